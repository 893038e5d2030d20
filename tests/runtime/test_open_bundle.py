"""Folders that are no bundles, and damaged or tampered bundles: each is refused in one sentence before its content is used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import make_bundle
from models import random_images, randomised, small_config

from dovit.runtime import DovitError, UsageError, load
from dovit.runtime.bundle import external
from dovit.runtime.bundle.manifest import SCHEMA_VERSION
from dovit.runtime.bundle.open import open_bundle, read_manifest
from dovit.runtime.bundle.write import write_manifest


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    make_bundle(randomised(small_config()), folder)
    return folder


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict], None]) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    change(manifest)
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def refused(bundle: Path, sentence: str) -> None:
    with pytest.raises(DovitError, match=sentence) as error:
        load(bundle)
    assert "\n" not in str(error.value)


def test_a_flipped_byte(bundle: Path) -> None:
    for file in sorted((bundle / "onnx").iterdir()):
        whole = file.read_bytes()
        middle = len(whole) // 2
        file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        refused(bundle, "SHA-256 differs")
        file.write_bytes(whole)
    load(bundle)


def test_missing_and_cut_files(bundle: Path) -> None:
    file = next((bundle / "onnx").glob("*.weights"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    refused(bundle, "the manifest says")
    file.unlink()
    refused(bundle, "is missing")
    refused(bundle / "bundle.json", "a bundle is the folder in which bundle.json lies")
    refused(file.parent / "bundle.json", "not a dovit bundle")
    (bundle / "bundle.json").unlink()
    refused(bundle, "not a dovit bundle")
    refused(bundle / "nowhere", "not a dovit bundle")


def test_paths_that_leave_the_bundle(bundle: Path) -> None:
    entry = next(iter(json.loads((bundle / "bundle.json").read_text())["files"].values()))
    for name in ("../secret", "/etc/passwd", "onnx/../../secret", "..\\secret"):
        edit(bundle, lambda m, name=name: m["files"].update({name: entry}))
        refused(bundle, "leaves the bundle")
        edit(bundle, lambda m, name=name: m["files"].pop(name))
    (bundle.parent / "outside").write_text("x")
    (bundle / "link").symlink_to(bundle.parent / "outside")
    edit(bundle, lambda m: m["files"].update({"link": entry}))
    refused(bundle, "leaves the bundle")


def test_a_step_outside_the_hashed_files(bundle: Path) -> None:
    (bundle / "evil.onnx").write_bytes(b"x")
    edit(bundle, lambda m: m["steps"][0].update(onnx="evil.onnx"))
    refused(bundle, "does not list")


def test_weights_outside_the_hashed_files(bundle: Path) -> None:
    """ONNX Runtime opens by itself what an ONNX file names."""
    file = next((bundle / "onnx").glob("*.weights"))
    whole = file.read_bytes()
    edit(bundle, lambda m: m["files"].pop(f"onnx/{file.name}"))
    for content in (whole, whole[:-4] + bytes(4)):
        file.write_bytes(content)
        refused(bundle, rf"uses onnx/{file.name}, which the manifest does not list")


def replace_onnx(bundle: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """Alter a step's ONNX file, and let the manifest have its new hash."""
    file = next((bundle / "onnx").glob("block1*.onnx"), next((bundle / "onnx").glob("*.onnx")))
    model = onnx.load(file, load_external_data=False)
    change(model)
    rehash(bundle, file, model.SerializeToString())


def rehash(bundle: Path, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    edit(bundle, lambda m: m["files"].update({f"onnx/{file.name}": entry}))


@pytest.mark.parametrize("location", ["/etc/passwd", "../../secret", "*/_ORT_MEM_ADDR_/*", "..", "a\\b"])
def test_weights_elsewhere(bundle: Path, location: str) -> None:
    """A path out of the bundle, and ONNX Runtime's name for an address in memory."""

    def change(model: onnx.ModelProto) -> None:
        external = next(t for t in model.graph.initializer if t.external_data)
        next(entry for entry in external.external_data if entry.key == "location").value = location

    replace_onnx(bundle, change)
    refused(bundle, "not a file beside it")


def test_every_place_of_external_weights_is_found() -> None:
    """The fields that are searched are all of those through which onnx.proto reaches a tensor."""
    found: dict[str, dict[int, str]] = {}
    waiting = [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.name in found:
            continue
        inner = {field.number: field.message_type for field in message.fields if field.message_type}
        found[message.name] = {number: kind.name for number, kind in inner.items()}
        waiting += inner.values()

    def leads(name: str, seen: frozenset[str] = frozenset()) -> bool:
        inner = [kind for kind in found[name].values() if kind not in seen]
        return name == "TensorProto" or any(leads(kind, seen | {name}) for kind in inner)

    expected = {
        name: {number: kind for number, kind in inner.items() if leads(kind)}
        for name, inner in found.items()
        if name != "TensorProto" and leads(name)
    }
    assert expected | {"TensorProto": {13: "StringStringEntryProto"}} == external.FIELDS
    assert found["TensorProto"][13] == "StringStringEntryProto"


def test_files_that_are_not_onnx_are_refused(bundle: Path) -> None:
    file = next((bundle / "onnx").glob("*.onnx"))
    whole = file.read_bytes()
    nested = b""
    for _ in range(200):  # graph in attribute in node in graph …
        for number in (6, 5, 1):
            nested = bytes([number << 3 | 2]) + varint(len(nested)) + nested
    nested = bytes([7 << 3 | 2]) + varint(len(nested)) + nested
    for content in (b"not a protobuf", whole[:-1], b"\0", b"\x0b", b"\xff" * 11, nested):
        rehash(bundle, file, content)
        refused(bundle, "is not an ONNX file")


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def test_files_that_are_no_files(bundle: Path) -> None:
    """Reading a pipe would wait for ever."""
    manifest, file = bundle / "bundle.json", next((bundle / "onnx").glob("*.onnx"))
    file.unlink()
    os.mkfifo(file)
    refused(bundle, "is missing")
    manifest.unlink()
    os.mkfifo(manifest)
    refused(bundle, "not a regular file")
    manifest.unlink()
    manifest.mkdir()
    refused(bundle, "a folder, not a file")
    manifest.rmdir()
    manifest.symlink_to(manifest)
    refused(bundle, "cannot be read")
    refused(Path("zero\0byte"), "cannot be read")
    refused(Path("n" * 300), "cannot be read")


def test_json_that_is_no_json(bundle: Path) -> None:
    file = bundle / "bundle.json"
    whole = file.read_bytes()
    name = json.dumps(json.loads(whole)["architecture"], ensure_ascii=False).encode()
    for content in (
        b"\xef\xbb\xbf" + whole,
        whole + b"\0",
        whole.decode().encode("utf-16"),
        whole + b"x",
        b"\xff" + whole,
        whole[:-3],
        whole.replace(name, b'"\xed\xa0\x80"'),
    ):
        file.write_bytes(content)
        refused(bundle, "not a dovit manifest")
    file.write_bytes(b"[" * 100_000)
    refused(bundle, "nested too deeply")
    file.write_bytes(whole.replace(name, b"[" * 300 + b"]" * 300))
    refused(bundle, "the field")


def test_other_schemas_and_invalid_json(bundle: Path) -> None:
    edit(bundle, lambda m: m.update(schema_version=99))
    refused(bundle, "newer than this dovit reads.*upgrade")
    edit(bundle, lambda m: m.update(schema_version=1, classes="many"))
    refused(bundle, "the field classes is wrong")
    edit(bundle, lambda m: m.update(schema_version="1"))
    refused(bundle, "not a dovit manifest")
    for text in ("", "[]", "{", "null", "\x00"):
        (bundle / "bundle.json").write_text(text)
        refused(bundle, "not a dovit manifest")


def test_fields_of_a_newer_dovit(bundle: Path) -> None:
    edit(bundle, lambda m: m["decisions"][0].update(lens_shape="round"))
    refused(bundle, r"the field decisions\.0\.lens_shape is not known to this dovit; upgrade dovit")


@pytest.mark.parametrize(
    ("field", "entries"),
    [("class_names", ["road", "sky"]), ("class_names", []), ("palette", [[1, 2, 3], [4, 5, 6]]), ("palette", [])],
)
def test_a_name_and_a_colour_for_each_class(bundle: Path, field: str, entries: list) -> None:
    """Two for seven classes: drawing labels ended in an IndexError."""
    edit(bundle, lambda manifest: manifest.update({field: entries}))
    refused(bundle, rf"the manifest contradicts itself \({field}\); export the bundle again")


def without_mode(bundle: Path, schema: int) -> None:
    """As schema 1 and 2 were written."""
    edit(bundle, lambda m: m.update(schema_version=schema))
    edit(bundle, lambda m: (m.pop("mode"), m.pop("keep_ratio")))


@pytest.mark.parametrize("schema", [1, 2])
def test_older_schemas_are_read_and_written_as_this_one(bundle: Path, schema: int, tmp_path: Path) -> None:
    without_mode(bundle, schema)
    manifest = open_bundle(bundle).manifest
    assert (manifest.schema_version, manifest.mode, manifest.keep_ratio) == (schema, "whole", False)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest.model_copy(update={"schema_version": SCHEMA_VERSION})


def test_mode_and_keep_ratio_are_stated_and_checked(tmp_path: Path) -> None:
    config = small_config().model_copy(update={"mode": "slide", "keep_ratio": True})
    make_bundle(randomised(config), tmp_path)
    manifest = open_bundle(tmp_path).manifest
    assert (manifest.mode, manifest.keep_ratio) == ("slide", True)
    edit(tmp_path, lambda m: m.update(mode="crop"))
    refused(tmp_path, "the field mode is wrong")
    edit(tmp_path, lambda m: m.update(mode="whole", keep_ratio="perhaps"))
    refused(tmp_path, "the field keep_ratio is wrong")


def test_wrong_arguments(bundle: Path) -> None:
    session = load(bundle)
    image = random_images(small_config())[0].numpy()
    for arguments, sentence in [
        ({"threshold": 1.5}, "outside"),
        ({"threshold": -0.1}, "outside"),
        ({"threshold": float("nan")}, "outside"),
        ({"threshold": (0.5, 0.5, 0.5)}, "3 thresholds for 2 decisions"),
        ({"mode": "crop"}, "unknown mode"),
        ({"schedule": "loose"}, "unknown schedule"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            session(image, **arguments)
    with pytest.raises(UsageError, match="unknown backend"):
        load(bundle, "cuda")


def test_threads_share_a_session(bundle: Path) -> None:
    session = load(bundle)
    images = [random_images(small_config(), seed=seed)[0].numpy() for seed in range(8)]
    expected = [session(image, threshold=0.5, return_logits=True) for image in images]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            result = session(images[number], threshold=0.5, return_logits=True)
            same = np.array_equal(result.labels, expected[number].labels) and result.kept == expected[number].kept
            close = np.allclose(result.logits, expected[number].logits, rtol=1e-5, atol=1e-6)
            if not (same and close):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_describe_the_decisions(bundle: Path) -> None:
    session = load(bundle)
    result = session(random_images(small_config())[0].numpy(), threshold=0.5)
    assert result.logits is None and result.labels.shape == (64, 96) and result.labels.dtype == np.uint8
    assert result.keep_maps.shape == result.confidence_maps.shape == (2, 4, 6)
    assert tuple(result.keep_maps.sum((1, 2))) == result.kept
    assert np.array_equal(np.isnan(result.confidence_maps[1]), ~result.keep_maps[0])
    seen = ~np.isnan(result.confidence_maps)
    assert np.array_equal(result.keep_maps[seen], result.confidence_maps[seen] <= np.float32(0.5))
    nothing = session(random_images(small_config())[0].numpy(), threshold=0.0)
    assert nothing.kept == (0, 0) and not nothing.keep_maps.any()
