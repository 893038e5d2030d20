"""dovit-export with plans, as typed: what is built, kept, left out, and said."""

import json
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from installed import require
from models import randomised, small_config
from PIL import Image
from shared import made_once
from typed import Typed, call

from dovit.export import cli as export_cli
from dovit.export.checkpoints import save_model
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.cli import inspect as inspect_cli
from dovit.runtime.cli import run as run_cli

require("tensorrt_rtx")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_model(randomised(small_config()), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, str]:
    """The checkpoint's bundle with plans, a copy of the run's, and what its export printed."""

    def make(folder: Path) -> None:
        save_model(randomised(small_config()), folder / "model.safetensors")
        arguments = ["--ckpt", folder / "model.safetensors", "--out", folder / "engines", "--backend", "tensorrt-rtx"]
        with pytest.MonkeyPatch.context() as patch, (folder / "printed.txt").open("w") as printed:
            patch.setenv("COLUMNS", "160")
            with redirect_stdout(printed):
                assert not call(export_cli, *arguments)

    made = made_once("engines-with-plans", make)
    return Path(shutil.copytree(made / "engines", tmp_path / "engines")), (made / "printed.txt").read_text()


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_again_builds_nothing_and_other_precisions_stay(checkpoint: Path, tmp_path: Path, typed: Typed) -> None:
    engines = tmp_path / "engines"
    uncached = ["--ckpt", checkpoint, "--out", engines, "--backend", "tensorrt-rtx"]
    arguments = [*uncached, "--cache", tmp_path / "cache"]
    status, out, err = typed(export_cli, *arguments, "--json")
    first = json.loads(out)
    assert status == 0 and "error" not in err, err  # progress goes there, the JSON alone to stdout
    assert (first["plans"]["name"], first["plans"]["built"]) == ("tensorrt-rtx fp16", 4)
    assert first["plans"]["peak_bytes"] > 100 << 20 and first["plans"]["seconds"] > 0
    assert not first["reused"] and len(first["verification"]) == 6
    accuracy = first["manifest"]["plans"][0]["accuracy"]
    assert accuracy["scenes"] == 2 and 0.97 < accuracy["label_agreement"] <= 1 and accuracy["miou"] is None
    before = content(engines)

    start = time.perf_counter()
    status, out, _ = typed(export_cli, *arguments, "--json")
    again = json.loads(out)
    assert time.perf_counter() - start < 20  # 0.5 s where nothing else runs
    assert again["plans"]["built"] == 0 and again["reused"] and again["manifest"] == first["manifest"]
    assert content(engines) == before

    status, out, _ = typed(export_cli, *arguments, "--precision", "bf16", "--json")
    both = json.loads(out)
    assert both["reused"] and [plans["precision"] for plans in both["manifest"]["plans"]] == ["fp16", "bf16"]
    assert set(before) - {"bundle.json"} < set(content(engines))
    open_bundle(engines)

    # other ξ: other ONNX files' manifest, so nothing of the old bundle is taken over
    status, out, _ = typed(export_cli, *arguments, "--threshold", "0.9", "--json")
    changed = json.loads(out)
    assert not changed["reused"] and len(changed["manifest"]["plans"]) == 1
    assert changed["plans"]["built"] == 0  # ξ is an input: the plans are the same
    status, out, _ = typed(export_cli, *uncached, "--threshold", "0.9", "--force", "--no-cache", "--json")
    forced = json.loads(out)
    assert not forced["reused"] and forced["plans"]["built"] == 4


def test_tables_and_pictures(exported: tuple[Path, str], tmp_path: Path, typed: Typed) -> None:
    engines, out = exported
    for piece in ("(runtime)", "1…24", "2 of 2", "portable", "labels equal", "tensorrt-rtx fp16: "):
        assert piece in out, piece
    svg, dot = tmp_path / "chain.svg", tmp_path / "chain.dot"
    status, out, _ = typed(inspect_cli, engines, "--layers", "--svg", svg, "--dot", dot)
    assert status == 0 and "Layer(" in out and "tensorrt-rtx fp16" in out
    texts = [element.text for element in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {"stem", "decide1", "gather2", "sequence/reconstruct", "decoder"} <= set(texts)
    assert any(text and text.startswith("gathered1 float16[1, length1, 64]") for text in texts)
    graph = dot.read_text()
    assert graph.startswith("digraph") and graph.count(" -> ") >= 14 and graph.count("{") == graph.count("}")
    status, out, _ = typed(inspect_cli, engines, "--json")
    assert json.loads(out)["plans"][0]["flavour"] == "tensorrt-rtx"


def test_a_bundle_of_plans_alone(checkpoint: Path, tmp_path: Path, typed: Typed) -> None:
    """Without a GPU it is refused in one sentence, and the command that the sentence names fixes that."""
    engines, image = tmp_path / "engines", tmp_path / "image.png"
    arguments = ["--ckpt", checkpoint, "--out", engines]
    assert typed(export_cli, *arguments, "--backend", "tensorrt-rtx", "--plans-only")[0] == 0
    manifest = open_bundle(engines).manifest
    assert not (engines / "onnx").exists() or not any((engines / "onnx").iterdir())
    assert all(step.onnx is None for step in manifest.steps) and all(
        ".plan" in name or "/program-" in name for name in manifest.files
    )
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(image)
    for backend in ("auto", "onnxruntime"):
        status, _, err = typed(run_cli, "--engine", engines, image, "--out", tmp_path / "out", "--backend", backend)
        assert status == 1 and len(err.strip().splitlines()) == 1
        assert "holds plans only (tensorrt-rtx fp16): choose their backend" in err
        assert f"dovit-export --ckpt model.pth --out {engines} --backend onnxruntime" in err
    status, _, err = typed(export_cli, "--engine", engines, "--backend", "tensorrt-rtx", "--precision", "bf16")
    assert status == 1 and "needs the ONNX files" in err

    assert typed(export_cli, *arguments, "--backend", "onnxruntime")[0] == 0
    assert typed(run_cli, "--engine", engines, image, "--out", tmp_path / "out")[0] == 0


def test_plans_for_a_bundle_that_is_there(checkpoint: Path, tmp_path: Path, typed: Typed) -> None:
    """In place or beside it, without the checkpoint, and without torch."""
    engines, copy = tmp_path / "engines", tmp_path / "copy"
    status, out, _ = typed(export_cli, "--ckpt", checkpoint, "--out", engines, "--backend", "onnxruntime")
    assert status == 0 and "no TensorRT plans were built" in out
    assert open_bundle(engines).manifest.plans == ()
    checkpoint.unlink()
    before = content(engines)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from dovit.export.cli import main\n"
        f"sys.argv = ['dovit-export', '--engine', {str(engines)!r}, '--out', {str(copy)!r}, '--backend', 'tensorrt-rtx']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert content(engines) == before and len(open_bundle(copy).manifest.plans) == 1
    assert typed(export_cli, "--engine", engines, "--backend", "tensorrt-rtx", "--precision", "fp32")[0] == 0
    assert open_bundle(engines).manifest.plans[0].precision == "fp32"
    assert open_bundle(engines).manifest.plans[0].accuracy is None
    for wrong in (["--threshold", "0.5"], ["--dense"], ["--force"], ["--palette", "cityscapes"]):
        status, _, err = typed(export_cli, "--engine", engines, "--backend", "tensorrt-rtx", *wrong)
        assert status == 2 and "are for --ckpt" in err


def test_a_failure_leaves_the_old_bundle(
    exported: tuple[Path, str], checkpoint: Path, tmp_path: Path, typed: Typed
) -> None:
    engines, _ = exported
    arguments = ["--ckpt", checkpoint, "--out", engines, "--backend", "tensorrt-rtx"]
    before = content(engines)
    for wrong, status, sentence in (
        (["--compute-capability", "9.0"], 2, "does not build for 9.0: choose from"),
        (["--compute-capability", "sm_89"], 2, "give numbers such as 8.9"),
        (["--timing-cache", tmp_path / "t"], 2, "times nothing"),
        (["--plugins"], 2, "TensorRT-RTX has no plugins"),
        (["--jobs", "0"], 2, "--jobs 0: give 1 or more"),
        (["--backend", "tensorrt"], 1, "TensorRT is not installed here"),
        (["--profiles", "99"], 2, "the number of capacities"),
    ):
        found, _, err = typed(export_cli, *arguments, *wrong)
        *stages, last = err.splitlines()
        assert found == status and sentence in last and not any("error" in stage for stage in stages), (wrong, err)
        assert content(engines) == before


def test_running_plans_without_what_it_takes_is_one_sentence(
    exported: tuple[Path, str], tmp_path: Path, typed: Typed
) -> None:
    (engines, _), image = exported, tmp_path / "image.png"
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(image)
    status, _, err = typed(run_cli, "--engine", engines, image, "--out", tmp_path / "out", "--backend", "tensorrt")
    assert status == 1 and "no tensorrt plans in this bundle (there are: tensorrt-rtx fp16)" in err
    status, _, err = typed(run_cli, "--engine", engines, image, "--out", tmp_path / "out", "--backend", "tensorrt-rtx")
    assert status == 1 and "need an NVIDIA GPU" in err and len(err.strip().splitlines()) == 1


def test_an_interrupted_build_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    # a shell without job control starts what runs beside it with interrupts ignored
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from dovit.export.cli import main; main()"
    command = [sys.executable, "-c", code, "--ckpt", str(checkpoint), "--out", str(tmp_path / "engines")]
    command += ["--backend", "tensorrt-rtx", "--no-cache", "--no-verify"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("engines/.dovit-export-*/.lowered-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors
    assert not (tmp_path / "engines").exists()


def test_backends_are_listed(typed: Typed) -> None:
    status, out, _ = typed(export_cli, "--list-backends", "--json")
    listed = {report["name"]: report for report in json.loads(out)}
    assert status == 0 and listed["tensorrt-rtx"]["build"] == "yes, no GPU needed"
    status, out, _ = typed(export_cli, "--list-backends")
    assert status == 0 and all(name in out for name in ("tensorrt ", "tensorrt-rtx", "onnxruntime", "build", "run"))
