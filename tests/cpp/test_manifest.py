"""One manifest, two readers: the C++ reader knows the same fields, and accepts and refuses the same files as Python's."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import threading
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from bundles import make_bundle
from models import randomised, small_config
from native import run
from pydantic import BaseModel

from dovit.runtime import DovitError
from dovit.runtime.bundle.manifest import SCHEMA_VERSION, Manifest
from dovit.runtime.bundle.open import open_bundle, read_manifest

pytestmark = pytest.mark.xdist_group("cpp")  # one worker builds the library, once

HERE = Path(__file__).parent

PLANS = {
    "flavour": "tensorrt-rtx",
    "version": "1.7",
    "cuda": 13,
    "compute_capabilities": ["8.9"],
    "precision": "fp16",
    "float32_nodes": ["a"],
    "batch": 1,
    "plugin_version": None,
    "workspace_mib": None,
    "optimisation_level": 3,
    "user_allocation": True,
    "steps": [
        {
            "name": "a",
            "step": "stem",
            "kind": "plan",
            "outputs": [],
            "inputs": [{"name": "image", "dtype": "uint8", "shape": ["batch", 1]}],
            "plan": {
                "file": "x.plan",
                "profiles": [{"least": 1, "best": 2, "most": 3}],
                "parameters": 1,
                "network_layers": 2,
                "layers": ["a"],
                "attentions": 1,
                "fused_attentions": 1,
                "weight_bytes": 1,
                "activation_bytes": 1,
                "build_seconds": 1.5,
            },
        }
    ],
    "accuracy": {
        "scenes": 1,
        "lowering": "a",
        "differences": {"a": 0.5},
        "label_agreement": 1.0,
        "kept_agreement": [0.5],
        "miou": [1.0, 2.0],
    },
}

QUANTIZATION = {
    "calibrated": 3,
    "products": {"stem": 12},
    "left": [{"product": "layers.1.attn.qkv", "cost": 0.5}],
    "measured": 1,
    "held_out": True,
    "errors": {"stem": 0.01},
    "label_agreement": 0.99,
    "same_fate": 1.0,
    "miou": [50.0, 49.9],
}
WRONG: list[Any] = [None, True, -1, 7, 1.5, 3.0, 1e30, "x", "12", " 7 ", "1.5", "", "true", [], [1], {}, {"a": 1}]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    make_bundle(randomised(small_config()), folder)
    return folder


@pytest.fixture(scope="module")
def says(build: Callable[[str], Path]) -> Callable[..., list[str]]:
    """What the C++ reader says of folders: `read`, or its sentence."""
    tool = build("release") / "tests" / "manifests"
    return lambda how, *folders: run(tool, how, *folders).splitlines()


def python_says(reader: Callable[[Path], object], folder: Path) -> str:
    try:
        reader(folder)
    except DovitError as error:
        return str(error)
    return "read"


def alike(one: str, other: str) -> bool:
    """Both readers accept it, or both refuse it with a message."""
    return (one == "read") == (other == "read") and all("internal error" not in reported for reported in (one, other))


def described(annotation: Any, records: dict[str, Any]) -> Any:
    """A type of the manifest in the words of manifest_layout.json."""
    names = {str: "string", int: "integer", float: "number", bool: "boolean"}
    if annotation in names:
        return names[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        records[annotation.__name__] = {
            name: {"type": described(field.annotation, records), "required": field.is_required()}
            for name, field in annotation.model_fields.items()
        }
        return annotation.__name__
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return {"choice": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments:
            (inner,) = (a for a in arguments if a is not type(None))
            return {"optional": described(inner, records)}
        return " or ".join(described(a, records) for a in arguments)
    if origin is dict:
        return {"map": described(arguments[1], records)}
    assert origin is tuple, annotation
    if arguments[-1] is Ellipsis:
        return {"list": described(arguments[0], records)}
    return {"tuple": described(arguments[0], records), "count": len(arguments)}


def test_the_layout_is_what_python_reads() -> None:
    """The C++ side of it is the ctest `manifest_layout`."""
    records: dict[str, Any] = {}
    described(Manifest, records)
    stated = json.loads((HERE / "manifest_layout.json").read_text())
    assert stated == {"schema_version": SCHEMA_VERSION, "records": records}


def small(original: Path) -> dict[str, Any]:
    """A manifest with one of everything."""
    manifest = json.loads((original / "bundle.json").read_text())
    manifest["steps"] = manifest["steps"][:1]
    manifest["steps"][0]["outputs"] = manifest["steps"][0]["outputs"][:1]
    manifest["files"] = dict(list(manifest["files"].items())[:1])
    manifest["decisions"] = [{**manifest["decisions"][0], "lens_kernel": 3}]
    manifest |= {"class_names": ["a", "b"], "palette": [[1, 2, 3]], "plans": [PLANS], "taps": ["tap"]}
    manifest["quantization"] = QUANTIZATION
    manifest["source"] = {"checkpoint": "a", "options": "b", "verified": True}
    return manifest


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from places(part, (*path, key))


def damaged(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every value of the manifest replaced, left out, and given a neighbour."""
    for path in places(manifest):
        if not path:
            continue
        for how in (*WRONG, "leave out", "add"):
            changed = copy.deepcopy(manifest)
            at: Any = changed
            for key in path[:-1]:
                at = at[key]
            if how == "leave out":
                del at[path[-1]]
            elif how == "add":
                if isinstance(at, list):
                    at.append(copy.deepcopy(at[-1]))
                else:
                    at["extra"] = 1
            else:
                at[path[-1]] = how
            yield changed


def test_damaged_fields_are_refused_by_both(original: Path, says: Callable[..., list[str]], tmp_path: Path) -> None:
    folders = []
    for number, manifest in enumerate(damaged(small(original))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "bundle.json").write_text(json.dumps(manifest))
        folders.append(folder)
    assert len(folders) > 2000
    expected = [python_says(read_manifest, folder) for folder in folders]
    made = [line for start in range(0, len(folders), 1000) for line in says("read", *folders[start : start + 1000])]
    differing = [(e, m) for e, m in zip(expected, made, strict=True) if not alike(e, m)]
    assert not differing, f"{len(differing)} of {len(folders)}: {differing[:5]}"
    assert expected.count("read") < len(expected) / 2


@pytest.mark.parametrize(
    "text", ["", "{", "\x00", "[1,", "{'a': 1}", "nonsense", '{"schema_version": 1e999}', "\ufeff{"]
)
def test_broken_json_is_refused_by_both(says: Callable[..., list[str]], tmp_path: Path, text: str) -> None:
    """The parsers' messages differ."""
    (tmp_path / "bundle.json").write_text(text)
    ours, theirs = says("read", tmp_path)[0], python_says(read_manifest, tmp_path)
    start, end = f"{tmp_path}/bundle.json: not a dovit manifest (", "); export the bundle again"
    assert ours.startswith(start) and ours.endswith(end) and theirs.startswith(start) and theirs.endswith(end)


@pytest.mark.parametrize(
    "change", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text + b"\0", lambda text: text + b"\n\0\n"]
)
def test_what_python_takes_for_broken_is_broken(
    original: Path, says: Callable[..., list[str]], tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    """A byte-order mark and zero bytes, around a manifest that is whole."""
    whole = (original / "bundle.json").read_bytes()
    (tmp_path / "bundle.json").write_bytes(whole)
    assert says("read", tmp_path) == ["read"]
    (tmp_path / "bundle.json").write_bytes(change(whole))
    for sentence in (says("read", tmp_path)[0], python_says(read_manifest, tmp_path)):
        assert sentence.startswith(f"{tmp_path}/bundle.json: not a dovit manifest (")


def test_deeply_nested_json(says: Callable[..., list[str]], tmp_path: Path) -> None:
    sentence = f"{tmp_path}/bundle.json: not a dovit manifest (nested too deeply); export the bundle again"
    for text in ("[" * 1_000_000, '{"a":' * 100_000 + "1" + "}" * 100_000):
        (tmp_path / "bundle.json").write_text(text)
        assert [sentence] == says("read", tmp_path) == [python_says(read_manifest, tmp_path)]


def test_a_manifest_that_is_no_file(says: Callable[..., list[str]], tmp_path: Path) -> None:
    """Opening a pipe without a writer would block forever."""
    for number, make in enumerate([os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / "bundle.json")
        assert alike(says("read", folder)[0], python_says(read_manifest, folder)) and says("read", folder) != ["read"]


@pytest.mark.parametrize("value", [99, "1", 1.5, None])
def test_other_schemas(original: Path, says: Callable[..., list[str]], tmp_path: Path, value: object) -> None:
    manifest = json.loads((original / "bundle.json").read_text()) | {"schema_version": value}
    (tmp_path / "bundle.json").write_text(json.dumps(manifest))
    assert alike(says("read", tmp_path)[0], python_says(read_manifest, tmp_path)) and says("read", tmp_path) != ["read"]
    del manifest["schema_version"]
    (tmp_path / "bundle.json").write_text(json.dumps(manifest))
    assert alike(says("read", tmp_path)[0], python_says(read_manifest, tmp_path)) and says("read", tmp_path) != ["read"]


@pytest.mark.parametrize("schema", [1, 2])
def test_older_schemas_are_read(original: Path, says: Callable[..., list[str]], tmp_path: Path, schema: int) -> None:
    """They have neither mode nor keep_ratio."""
    manifest = json.loads((original / "bundle.json").read_text()) | {"schema_version": schema}
    del manifest["mode"], manifest["keep_ratio"]
    (tmp_path / "bundle.json").write_text(json.dumps(manifest))
    assert says("read", tmp_path) == [python_says(read_manifest, tmp_path)] == ["read"]


def test_tampered_bundles_are_refused_by_both(original: Path, says: Callable[..., list[str]], tmp_path: Path) -> None:
    """Hashes, sizes, missing files, paths that leave the bundle, files that nobody hashed."""
    manifest = json.loads((original / "bundle.json").read_text())
    entry = next(iter(manifest["files"].values()))
    weights = next(name for name in manifest["files"] if name.endswith(".weights"))

    def flip(folder: Path) -> None:
        data = bytearray((folder / weights).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / weights).write_bytes(data)

    def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
        def edit(folder: Path) -> None:
            changed = copy.deepcopy(manifest)
            change(changed)
            (folder / "bundle.json").write_text(json.dumps(changed))

        return edit

    def rewritten(folder: Path, change: Callable[[bytes], bytes]) -> None:
        """The ONNX file changed, with its hash."""
        name = manifest["steps"][0]["onnx"]
        data = change((folder / name).read_bytes())
        (folder / name).write_bytes(data)
        stated = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        edited(lambda m: m["files"].update({name: stated}))(folder)

    def link(folder: Path) -> None:
        (tmp_path / "outside").write_text("x")
        (folder / "link").symlink_to(tmp_path / "outside")
        edited(lambda m: m["files"].update({"link": entry}))(folder)

    names = ["../secret", "/etc/passwd", "onnx/../../secret", "..\\secret", "", ".", "a'b/..", "tab\t/../..", "é/.."]
    changes: list[Callable[[Path], object]] = [
        lambda folder: None,
        flip,
        lambda folder: (folder / weights).unlink(),
        lambda folder: (folder / weights).write_bytes(b"short"),
        lambda folder: (folder / "bundle.json").unlink(),
        lambda folder: shutil.rmtree(folder),
        link,
        edited(lambda m: m["steps"][0].update(onnx="evil.onnx")),
        edited(lambda m: m["files"][weights].update(sha256="0" * 64)),
        edited(lambda m: m.update(plans=[PLANS])),
        edited(lambda m: m["files"].pop(weights)),
        lambda folder: rewritten(folder, lambda data: data[:-1]),
        lambda folder: rewritten(folder, lambda data: b"\x07" + data),
        lambda folder: rewritten(folder, lambda data: data.replace(b".weights", b"/weights")),
        lambda folder: rewritten(folder, lambda data: data.replace(b".weights", b".Weights")),
        lambda folder: ((folder / weights).unlink(), os.mkfifo(folder / weights)),
        *(edited(lambda m, name=name: m["files"].update({name: entry})) for name in names),
    ]
    for number, change in enumerate(changes):
        folder = shutil.copytree(original, tmp_path / str(number))
        change(folder)
        expected = python_says(open_bundle, folder)
        assert alike(says("open", folder)[0], expected)
        assert (expected == "read") == (number == 0)
    odd = f"{tmp_path}//./0/"
    read, gone = says("open", odd, f"{odd}gone//")
    assert read == "read" and "not a dovit bundle" in gone
    for file in (original / "bundle.json", original / "bundle.json" / "below", next((original / "onnx").iterdir())):
        assert says("open", file) == [python_says(open_bundle, file)]


def contradictions(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`manifest` with sizes that cannot be, and its steps with each tensor left out, of another type, size or name."""
    for change in [
        {"patch": 0},
        {"patch": 7},
        {"prefix": manifest["prefix"] + 1},
        {"prefix": manifest["prefix"] - 1},
        {"merge": True, "merge_cells": 2},
        {"merge": False, "merge_cells": 1025},
        {"merge": False, "merge_cells": 1},  # more cells than there are tokens before the patches
        {"image_size": [1 << 40, 1 << 40]},
        {"image_size": [0, 64]},
        {"capacities": [-1]},
        {"capacities": [1 << 20]},
        {"capacities": []},
        {"capacities": [0, 8]},
        {"capacities": [24, 8, 24]},
        {"steps": []},
        {"slide_stride": [0, 0]},
        {"mean": [0, "nan", 0]},
        {"std": [1, 0, 1]},
        {"std": [1, 1, "inf"]},
        {"slide_stride": [65, 1]},
        {"slide_stride": [1, 97]},
        {"prefix": -1},
        {"classes": 0},
        {"classes": 1 << 15},
        {"thresholds": []},
        {"thresholds": [0.5, 1.5]},
        {"thresholds": [-0.1, 0.5]},
        {"palette": [[0, 0, 256]] * manifest["classes"]},
        {"palette": [[0, 0, 0]] * (manifest["classes"] - 1)},
        {"palette": []},
        {"class_names": ["a"] * (manifest["classes"] + 1)},
        {"class_names": []},
        {"decisions": []},
        *({"decisions": [{**d, "lens_kernel": side} for d in manifest["decisions"]]} for side in (0, -1, 1025)),
    ]:
        yield manifest | change
    steps = manifest["steps"]
    for number, step in enumerate(steps):
        yield manifest | {"steps": [*steps[:number], *steps[number + 1 :]]}
        for side in ("inputs", "outputs"):
            for place, spec in enumerate(step[side]):
                types = {"dtype": "int64" if spec["dtype"] != "int64" else "float32"}
                shapes = [{"shape": [*spec["shape"], size]} for size in (1 << 41, -1, "unknown")]
                shapes += [{"shape": [1] * 9}]
                if spec["name"] in ("labels", "logits"):
                    shapes += [{"shape": [images, *spec["shape"][1:]]} for images in (0, 2, "kept1")]
                for other in ([], *([spec | change] for change in (types, {"name": "other"}, *shapes))):
                    changed = [*step[side][:place], *other, *step[side][place + 1 :]]
                    yield manifest | {"steps": [*steps[:number], step | {side: changed}, *steps[number + 1 :]]}


def test_what_contradicts_itself_is_not_run(original: Path, says: Callable[..., list[str]], tmp_path: Path) -> None:
    """In C++ it would be an access out of bounds, in Python an error of numpy's. chain_logic.cpp has more cases."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    manifest = json.loads((original / "bundle.json").read_text())
    reported = set()
    without_files = manifest | {
        "files": {},
        "steps": [step | {"onnx": None, "openvino": []} for step in manifest["steps"]],
    }
    for changed in contradictions(without_files):
        (folder / "bundle.json").write_text(json.dumps(changed))
        expected = python_says(open_bundle, folder)
        assert alike(says("open", folder)[0], expected)
        # a step may do without some inputs and outputs; no other field may have the values above
        assert expected != "read" or changed["steps"] != without_files["steps"], changed
        reported.add(expected.partition("contradicts itself (")[2])
    assert len(reported) > 30


def test_a_bundle_that_is_replaced_meanwhile_is_read_anew(
    build: Callable[[str], Path], original: Path, tmp_path: Path
) -> None:
    """Two bundles replace each other as exports do: new files are written, the manifest is renamed, old files are removed."""
    tool, folder = build("release") / "tests" / "manifests", tmp_path / "bundle"
    shutil.copytree(original, folder)
    manifest = json.loads((original / "bundle.json").read_text())
    stop = threading.Event()

    def exports() -> None:
        old = manifest["files"]
        for turn in range(1_000_000):
            if stop.is_set():
                return
            renamed = {name: f"onnx/{turn}-{Path(name).name}" for name in manifest["files"] if name.endswith(".onnx")}
            changed = copy.deepcopy(manifest)
            changed["files"] = {renamed.get(name, name): entry for name, entry in manifest["files"].items()}
            for step in changed["steps"]:
                step["onnx"] = renamed[step["onnx"]]
                step["openvino"] = [renamed[name] for name in step["openvino"]]
            for name, new in renamed.items():
                shutil.copyfile(original / name, folder / new)
            (folder / "next.json").write_text(json.dumps(changed))
            (folder / "next.json").rename(folder / "bundle.json")
            for name in old:
                if name not in changed["files"]:
                    (folder / name).unlink()
            old = changed["files"]
            stop.wait(0.005)  # an export takes seconds; a reader that is always overtaken gives up after 20 attempts

    thread = threading.Thread(target=exports)
    thread.start()
    try:
        printed = run(tool, "open", *[folder] * 300).splitlines()
    finally:
        stop.set()
        thread.join()
    assert printed == ["read"] * 300
