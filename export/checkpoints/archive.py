"""The zip archive of a `.pth` file, checked before torch reads it: torch trusts its lengths and checks no sums."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dovit.export.checkpoints.pickles import Storage, read_storages
from dovit.runtime.errors import DovitError

_LOCAL = struct.Struct("<4sHHHHHIIIHH")  # signature, version, flags, method, time, date, CRC, 2 sizes, 2 lengths
_ENCRYPTED = 1
_CHUNK = 1 << 24


@dataclass(frozen=True)
class _Record:
    """A file in the archive: where it lies, and the checksum that it should have."""

    name: str
    start: int  # of its local header
    data: int
    end: int
    crc: int


def check_archive(path: Path) -> None:
    """Raise DovitError unless the torch archive `path` is whole.

    Whole: every record is stored uncompressed where the directory says, apart from the others, and has its checksum; each
    storage that the pickle names has as many bytes as the pickle says.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
            records = _records(path, archive, stream)
    except DovitError:
        raise
    except Exception as error:  # a damaged directory raises errors of struct, codecs and int through zipfile
        raise DovitError(
            f"{path}: cut off or damaged (the archive's directory cannot be read: {error}); download or copy it again"
        ) from error
    pickles = [record for record in records if record.name.endswith("/data.pkl")]
    if not pickles:
        raise DovitError(f"{path}: a zip archive without a torch checkpoint in it; unpack it and give the .pth file")
    folder = records[0].name.split("/")[0]  # where torch looks
    if [record.name for record in pickles] != [f"{folder}/data.pkl"]:
        raise _damaged(path, "it holds more than one checkpoint")
    with path.open("rb") as stream:
        _check_sums(path, stream, records)
        stream.seek(pickles[0].data)
        pickled = stream.read(pickles[0].end - pickles[0].data)
        storages = read_storages(path, io.BytesIO(pickled), len(pickled))
    _check_storages(path, storages, {record.name.removeprefix(f"{folder}/data/"): record for record in records})


def _records(path: Path, archive: zipfile.ZipFile, stream: BinaryIO) -> list[_Record]:
    """All records in the order of the directory, each with its local header read."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise DovitError(
            f"{path}: its records are compressed, which torch.save never does: the archive was packed anew; "
            f"get the original, or torch.load it and torch.save it again"
        )
    records = []
    for entry in entries:
        stream.seek(entry.header_offset)
        header = _LOCAL.unpack(stream.read(_LOCAL.size))
        signature, _, flags, method, _, _, _, packed, unpacked, name_length, extra_length = header
        name = stream.read(name_length)
        data = entry.header_offset + _LOCAL.size + name_length + extra_length
        same = signature == b"PK\x03\x04" and method == entry.compress_type and name == entry.orig_filename.encode()
        # the sizes may stand behind the data instead, or in the extra field where they need 64 bits
        sized = all(size in (0, 0xFFFFFFFF, entry.file_size) for size in (packed, unpacked))
        if not same or not sized or entry.compress_size != entry.file_size or (flags | entry.flag_bits) & _ENCRYPTED:
            raise _damaged(path, f"the record {entry.filename} is not what the directory says")
        records.append(_Record(entry.filename, entry.header_offset, data, data + entry.file_size, entry.CRC))
    if len({record.name.casefold() for record in records}) < len(records):
        raise _damaged(path, "two records have one name")
    lying = sorted(records, key=lambda record: record.start)
    limits = [*(record.start for record in lying[1:]), archive.start_dir]
    if any(record.end > limit for record, limit in zip(lying, limits, strict=True)) or (lying and lying[0].start):
        raise _damaged(path, "its records overlap, or something lies before them")
    return records


def _check_sums(path: Path, stream: BinaryIO, records: list[_Record]) -> None:
    """CRC-32 of every record: some gigabytes a second. `torch.serialization.set_crc32_options(False)` writes none."""
    if not any(record.crc for record in records):
        return
    for record in records:
        crc = 0
        stream.seek(record.data)
        for start in range(record.data, record.end, _CHUNK):
            crc = zlib.crc32(stream.read(min(_CHUNK, record.end - start)), crc)
        if crc != record.crc:
            raise _damaged(path, f"the checksum of the record {record.name} is another")


def _check_storages(path: Path, storages: list[Storage], records: dict[str, _Record]) -> None:
    for storage in storages:
        record = records.get(storage.key)
        if record is None:
            raise _damaged(path, f"the record data/{storage.key} is missing")
        if record.end - record.data != storage.size:
            raise _damaged(
                path, f"the record {record.name} has {record.end - record.data} bytes, its tensors need {storage.size}"
            )


def _damaged(path: Path, reason: str) -> DovitError:
    return DovitError(f"{path}: damaged ({reason}); download or copy it again")
