"""The C++ runtime on the trained model: labels, kept sets and confidences are Python's to the bit, on the CPU."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle
from c_binding import Failure
from c_binding import Session as CSession
from documents import code_blocks
from models import randomised, small_config
from native import ROOT, run, skip_unless_installed
from PIL import Image

import dovit
from dovit.runtime import DovitError, UsageError
from dovit.runtime.draw import overlay
from dovit.runtime.images import read_image

pytestmark = pytest.mark.xdist_group("cpp")  # one worker builds the library, once; others build it with sanitizers
INSTRUMENTED = [pytest.mark.slow, pytest.mark.xdist_group("cpp-sanitize")]

STREET = ROOT / "assets" / "street.png"


@pytest.fixture(scope="module")
def python_session(bundle: Path) -> dovit.Session:
    return dovit.load(bundle)


@pytest.fixture(scope="module")
def c_session(build: Callable[[str], Path], bundle: Path, library_path: Path) -> CSession:
    return CSession(build("release") / "libdovit_runtime.so", bundle, library_path)


def pictures() -> list[np.ndarray]:
    """The bundle's own size, larger, narrower, smaller, much smaller, tall, one pixel more than a window."""
    street = read_image(STREET)
    parts = [
        street,
        street[:192, :384],
        street[:300, :500],
        street[:100, :700],
        street[::2, ::3],
        street[:50, :40],
        street[:193],
        street[:, :150],
        street.repeat(2, 0).repeat(2, 1),
    ]
    return [np.ascontiguousarray(part) for part in parts]


SETTINGS: list[dict[str, Any]] = [
    {},
    {"schedule": "bucketed"},
    {"mode": "slide"},
    {"mode": "slide", "schedule": "bucketed"},
    {"mode": "slide", "threshold": [0.98, 0.5, 0.0]},
    {"threshold": [1.0]},
    {"threshold": [0.0]},
    {"threshold": [0.95, 0.0, 0.9], "schedule": "bucketed"},
    {"keep_ratio": True},
    {"keep_ratio": True, "schedule": "bucketed"},
    {"counts": [100, 50, 3]},
    {"counts": [17, 0, 0]},
    {"keep_ratio": True},
    {"keep_ratio": True, "schedule": "bucketed"},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_results_are_pythons(python_session: dovit.Session, c_session: CSession, setting: dict[str, Any]) -> None:
    for picture in pictures():
        expected = python_session(picture, return_logits=True, **setting)
        made = c_session(picture, **setting)
        assert np.array_equal(made.labels, expected.labels) and made.labels.dtype == expected.labels.dtype
        assert (made.kept, made.tokens) == (expected.kept, expected.tokens)
        assert np.array_equal(made.keep_maps, expected.keep_maps.reshape(made.keep_maps.shape))
        confidences = expected.confidence_maps.reshape(made.confidence_maps.shape)
        assert np.array_equal(made.confidence_maps, confidences, equal_nan=True)
        assert made.windows == ([(window.y, window.x) for window in expected.windows] or [(0, 0)])
        assert expected.logits is not None
        assert np.array_equal(made.logits, expected.logits)
        assert made.filled == (expected.filled or (192, 384))


def test_options_for_another_backend_are_told_in_pythons_words(
    build: Callable[[str], Path],
    bundle: Path,
    library_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    library = build("release") / "libdovit_runtime.so"
    on_cpu: dict[str, Any] = {"provider": b"cpu", "threads": 1, "low_memory": 1, "skip_accuracy_check": 1}
    CSession(library, bundle, library_path)
    assert capfd.readouterr().err == "", "what is for the backend"
    CSession(library, bundle, library_path, backend=b"onnxruntime", **on_cpu, graph=2)
    with pytest.raises(Failure):  # the bundle has no plans
        CSession(library, bundle, library_path, backend=b"tensorrt-rtx", **on_cpu, cache=b"here", graph=2)
    told = capfd.readouterr().err.splitlines()

    for_python: dict[str, Any] = {"provider": "cpu", "threads": 1, "low_memory": True, "check_accuracy": False}
    dovit.load(bundle, "onnxruntime", **for_python, graph=False).close()
    with pytest.raises(DovitError):
        dovit.load(bundle, "tensorrt-rtx", **for_python, cache="here", graph=False)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2
    assert told == [f"dovit: {sentence}".replace("check_accuracy", "skip_accuracy_check") for sentence in warned]


@pytest.mark.parametrize(
    ("stated", "named"), [({"mode": "slide"}, {}), ({"keep_ratio": True}, {"mode": "whole"})], ids=str
)
def test_the_bundle_states_the_default_mode(
    build: Callable[[str], Path],
    bundle: Path,
    library_path: Path,
    tmp_path: Path,
    c_session: CSession,
    stated: dict[str, Any],
    named: dict[str, Any],
) -> None:
    """The other bundle's session gives the same with this mode as an argument; and an argument overrides the bundle's mode."""
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    manifest = json.loads((other / "bundle.json").read_text()) | stated
    (other / "bundle.json").write_text(json.dumps(manifest))
    session = CSession(build("release") / "libdovit_runtime.so", other, library_path)
    for picture in pictures()[1:4]:
        expected, made = c_session(picture, **(stated | named)), session(picture)
        assert np.array_equal(made.labels, expected.labels) and made.windows == expected.windows
        assert made.filled == expected.filled
        plain = session(picture, mode="whole", keep_ratio=False)
        assert np.array_equal(plain.labels, c_session(picture).labels)
    narrow = pictures()[3]  # 100×700
    assert session(narrow).filled == ((55, 384) if "keep_ratio" in stated else (192, 384))


def test_wrong_arguments_are_refused(python_session: dovit.Session, c_session: CSession) -> None:
    """By both runtimes, with the cause in the message and the status of a usage error."""
    street = read_image(STREET)
    for picture, setting, cause in [
        (street, {"threshold": [1.5]}, r"threshold 1\.5 lies outside \[0, 1\]"),
        (street, {"threshold": [float("nan")]}, r"threshold nan lies outside \[0, 1\]"),
        (street, {"threshold": [0.1, 1e-7 - 1]}, "2 thresholds for 3 decisions"),
        (street, {"threshold": [0.1, 0.2, -1e-7]}, r"threshold -1e-0?7 lies outside \[0, 1\]"),
        (street, {"threshold": [0.5, 0.5, 0.5, 0.5]}, "4 thresholds for 3 decisions"),
        (street, {"counts": [1, 2, 3]}, "counts 1, 2, 3: give 3 falling numbers of tokens"),
        (street, {"counts": [5000, 2, 1]}, "counts 5000, 2, 1: give 3 falling numbers of tokens"),
        (np.zeros((2000, 1, 3), np.uint8), {"mode": "slide"}, "2000×1 is too narrow for windows of 192×384"),
    ]:
        arguments: dict[str, Any] = setting
        with pytest.raises(UsageError, match=cause):
            python_session(picture, **arguments)
        with pytest.raises(Failure, match=cause) as failure:
            c_session(picture, **arguments)
        assert failure.value.status == 2


def test_a_bundle_of_plans_alone_needs_tensorrt(
    build: Callable[[str], Path], bundle: Path, library_path: Path, tmp_path: Path
) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    for step in manifest["steps"]:
        step |= {"onnx": None, "openvino": []}
    (tmp_path / "bundle.json").write_text(json.dumps(manifest | {"files": {}}))
    cause = "holds plans only"
    with pytest.raises(DovitError, match=cause):
        dovit.load(tmp_path)
    with pytest.raises(Failure, match=cause):
        CSession(build("release") / "libdovit_runtime.so", tmp_path, library_path)


def test_nothing_but_the_interface_is_exported(build: Callable[[str], Path]) -> None:
    symbols = run("nm", "-D", "--defined-only", build("release") / "libdovit_runtime.so").splitlines()
    header = (ROOT / "runtime" / "cpp" / "include" / "dovit.h").read_text()
    names = {line.split()[-1] for line in symbols}
    assert names and all(name.startswith("dovit_") and f"{name}(" in header for name in names)


@pytest.mark.parametrize("flags", [(), ("--bucketed",), ("--slide",), ("--slide", "--bucketed")], ids=" ".join)
def test_the_segment_example(
    examples: Path, python_session: dovit.Session, bundle: Path, library_path: Path, tmp_path: Path, flags: tuple[str]
) -> None:
    labels, mixed = tmp_path / "labels.png", tmp_path / "overlay.png"
    printed = run(examples / "segment", bundle, STREET, labels, mixed, *flags, "--onnxruntime", library_path)
    picture = read_image(STREET)
    expected = python_session(
        picture,
        mode="slide" if "--slide" in flags else "whole",
        schedule="bucketed" if "--bucketed" in flags else "exact",
    )
    palette = python_session.manifest.palette
    assert palette is not None
    with Image.open(labels) as image:
        assert image.mode == "P" and image.getpalette()[: 3 * len(palette)] == [v for c in palette for v in c]
        assert np.array_equal(np.asarray(image), expected.labels)
    with Image.open(mixed) as image:
        assert np.array_equal(np.asarray(image), np.asarray(overlay(picture, expected.labels, palette)))
    assert printed == f"kept {' '.join(map(str, expected.kept))} of {expected.tokens} tokens\n"


def test_the_segment_example_fails_in_a_sentence(examples: Path, tmp_path: Path) -> None:
    done = subprocess.run([examples / "segment", tmp_path, STREET, "a", "b"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"segment: error: {tmp_path}: not a dovit bundle") and done.stderr.count("\n") == 1


def test_the_pipeline_example(examples: Path, bundle: Path, library_path: Path) -> None:
    printed = run(examples / "pipeline", bundle, "12", "--onnxruntime", library_path)
    assert printed == "12 frames, 12 with the labels that they get alone\n"
    for wrong in ("frame.png", "0", "-1"):
        done = subprocess.run([examples / "pipeline", bundle, wrong], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "") and "FRAMES is a number" in done.stderr


def test_the_readmes_program_runs(installed: Path, bundle: Path, library_path: Path, tmp_path: Path) -> None:
    """In a folder that holds the bundle where `make demo` writes it. The program prints what Python finds for a black image."""
    (code,) = code_blocks(ROOT / "README.md", "cpp")
    (tmp_path / "program.cpp").write_text(code)
    (tmp_path / "build" / "demo").mkdir(parents=True)
    (tmp_path / "build" / "demo" / "engines").symlink_to(bundle)
    folder = next(installed.rglob("libdovit_runtime.so")).parent
    flags = [f"-I{installed / 'include'}", f"-L{folder}", "-ldovit_runtime", f"-Wl,-rpath,{folder}"]
    run(
        "g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", tmp_path / "program.cpp", *flags, "-o", tmp_path / "program"
    )
    (tmp_path / "libonnxruntime.so.1").symlink_to(library_path)
    done = subprocess.run(
        [tmp_path / "program"],
        cwd=tmp_path,
        env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    kept = dovit.load(bundle)(np.zeros((384, 768, 3), np.uint8)).kept
    assert (done.returncode, done.stdout, done.stderr) == (0, f"768×384 labels, {kept[-1]} tokens kept\n", "")


def test_the_python_example(bundle: Path) -> None:
    printed = run(sys.executable, ROOT / "examples" / "python" / "embed.py", bundle, STREET)
    assert [line.split(":")[0] for line in printed.splitlines()] == ["image", "mirrored"]


def test_pkg_config_finds_it(installed: Path, tmp_path: Path) -> None:
    skip_unless_installed("pkg-config")
    moved = Path(shutil.copytree(installed, tmp_path / "elsewhere", symlinks=True))  # an installed tree may be moved
    folder = next(moved.rglob("dovit.pc")).parent
    flags = run("pkg-config", "--cflags", "--libs", "dovit", PKG_CONFIG_PATH=str(folder)).split()
    source = ROOT / "tests" / "cpp" / "header_in_c99.c"
    run("gcc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", source, "-o", tmp_path / "c99", *flags)
    run(tmp_path / "c99", LD_LIBRARY_PATH=str(next(moved.rglob("libdovit_runtime.so")).parent))


@pytest.mark.parametrize("preset", ["release", pytest.param("sanitize", marks=INSTRUMENTED)])
def test_the_tests_in_cpp(build: Callable[[str], Path], preset: str) -> None:
    """ctest: C99, layout, chain, sessions with eight threads, TensorRT-RTX's library where that is; with AddressSanitizer
    and UBSan, all but the layout, which is a comparison of names."""
    passed = ctest(build(preset))
    assert {"header_in_c99", "chain_logic", "wrong_engines", "sliding", "sessions", "threads"} <= passed
    assert ("manifest_layout" in passed) == (preset == "release")


@pytest.mark.slow
@pytest.mark.xdist_group("cpp-thread")
def test_sessions_under_the_thread_sanitizer(build: Callable[[str], Path]) -> None:
    """Eight threads share a session. The other tests in C++ have one thread, or (`threads`) count threads and processor time in
    forked processes, where ThreadSanitizer has threads of its own."""
    assert ctest(build("thread"), "--tests-regex", "^sessions$") == {"sessions"}


def ctest(folder: Path, *options: str) -> set[str]:
    """The names of the tests that passed; a test that fails is an assertion error with what it printed."""
    printed = run("ctest", "--test-dir", folder, "--output-on-failure", *options)
    assert "100% tests passed" in printed
    return set(re.findall(r": (\w+) \.+ +Passed", printed))


@pytest.mark.slow
def test_valgrind_sees_no_leak(examples: Path, library_path: Path, tmp_path: Path) -> None:
    """On a small model and image, of which every byte costs fifty times as much here."""
    skip_unless_installed("valgrind", "taskset")
    colours = tuple((7 * number, 255 - number, number) for number in range(7))
    make_bundle(randomised(small_config(palette=colours, thresholds=(0.9, 0.9))), tmp_path / "engines")
    with Image.open(STREET) as street:
        street.crop((0, 0, 130, 90)).save(tmp_path / "image.png")
    out = tmp_path / "labels.png", tmp_path / "overlay.png"
    printed = run(
        "taskset",
        "--cpu-list",
        "0",  # valgrind runs one thread at a time
        "valgrind",
        "--quiet",
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect",
        "--errors-for-leak-kinds=definite,indirect",
        "--error-exitcode=9",
        f"--suppressions={ROOT / 'tests' / 'cpp' / 'valgrind.txt'}",
        examples / "segment",
        tmp_path / "engines",
        tmp_path / "image.png",
        *out,
        "--onnxruntime",
        library_path,
    )
    assert 0 < int(printed.split()[2]) < 24, "every step was to run"
