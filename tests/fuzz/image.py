"""Image files and label files: mutants of small ones of every kind that Pillow reads."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from dovit.evaluation.data.read import read_labels
from dovit.runtime.images import as_rgb, read_image
from fuzz.common import Driver, Finding, mutate_bytes

KINDS = {
    "png": [("RGB", {}), ("L", {}), ("P", {}), ("I;16", {}), ("1", {}), ("RGBA", {})],
    "jpeg": [("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True})],
    "bmp": [("RGB", {}), ("P", {})],
    "tiff": [
        ("RGB", {}),
        ("RGB", {"compression": "tiff_lzw"}),
        ("F", {}),
        ("I;16", {}),
        ("L", {"compression": "jpeg"}),
    ],
    "webp": [("RGB", {}), ("RGB", {"lossless": True})],
    "gif": [("P", {})],
    "ppm": [("RGB", {}), ("L", {})],
    "ico": [("RGBA", {})],
    "tga": [("RGB", {"compression": "tga_rle"})],
    "pcx": [("L", {})],
    "jpeg2000": [("RGB", {})],
    "icns": [("RGBA", {})],
    "sgi": [("RGB", {})],
    "dds": [("RGBA", {})],
    "avif": [("RGB", {})],
}


def driver(folder: Path) -> Driver:
    """Small images of every kind that this Pillow writes."""
    seeds = {}
    pixels = np.arange(24 * 32 * 4, dtype=np.uint8).reshape(24, 32, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for kind, ways in KINDS.items():
        for number, (mode, options) in enumerate(ways):
            image = Image.fromarray(pixels, "RGBA").convert("L" if mode == "I;16" else mode)
            if mode == "I;16":
                image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
            path = folder / f"{number}.{kind}"
            try:
                image.save(path, kind.upper() if kind != "tiff" else "TIFF", **options, exif=exif)
            except (OSError, KeyError, ValueError):  # this Pillow was built without that library
                continue
            seeds[path.name] = path.read_bytes()
    if len(seeds) < 15:
        raise AssertionError(f"only {len(seeds)} kinds of image could be written")
    return _Images(seeds)


class _Images:
    def __init__(self, seeds: dict[str, bytes]) -> None:
        self.seeds = seeds

    def attempt(self, random: Random, folder: Path) -> str:
        name = random.choice(sorted(self.seeds))
        data = self.seeds[name]
        data = (
            _mutate_png(data, random) if name.endswith("png") and random.random() < 0.6 else mutate_bytes(data, random)
        )
        file = folder / random.choice([name, f"image.{random.choice(['png', 'jpg', 'tif', 'gif'])}", "image"])
        file.write_bytes(data)
        if random.random() < 0.3:
            labels = read_labels(file)
            if labels.dtype != np.uint8 or labels.ndim != 2:
                raise Finding(f"labels of {labels.dtype} {labels.shape}")
            return "labels"
        if random.random() < 0.3:
            try:
                image = Image.open(file)
            except Exception:
                return "not opened by Pillow"
            with image:
                return _checked(as_rgb(image), "opened by Pillow")
        return _checked(read_image(file), "image")


def _checked(pixels: np.ndarray, outcome: str) -> str:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise Finding(f"pixels of {pixels.dtype} {pixels.shape}")
    return outcome


def _mutate_png(data: bytes, random: Random) -> bytes:
    """A mutant of a PNG's chunks with right checksums, which gets past the first check."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    number = random.randrange(len(chunks))
    name, body = chunks[number]
    kind = random.randrange(6)
    if kind == 0:
        chunks[number] = name, mutate_bytes(body, random)
    elif kind == 1 and name == b"IDAT":
        chunks[number] = name, zlib.compress(mutate_bytes(zlib.decompress(body), random))
    elif kind == 2:
        del chunks[number]
    elif kind == 3:
        chunks.insert(number, random.choice(chunks))
    elif kind == 4:  # sizes
        sizes = struct.pack(">II", *(random.choice([0, 1, 7, 24, 32, 20_000, 2**31 - 1, 2**32 - 1]) for _ in range(2)))
        chunks[0] = chunks[0][0], sizes + chunks[0][1][8:]
    else:
        extra = random.choice(
            [b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"gAMA", b"tEXt", b"zTXt", b"acTL", b"fcTL", b"sBIT"]
        )
        inflated = zlib.compress(bytes(random.choice([10, 10**8])), 1) if extra in (b"zTXt", b"iCCP") else b""
        chunks.insert(number, (extra, random.randbytes(random.choice([0, 1, 6, 300])) + b"a\0\0" + inflated))
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
