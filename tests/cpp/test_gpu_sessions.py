"""libdovit_runtime's GPU half, end to end on stand-ins for the driver and TensorRT, with the kernels' own sources: kept sets are
those of the Python runtime on the CPU, and failures are sentences."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_binding import Result, Session
from gpu_process import (
    Setup,
    calls_of_a_pass,
    calls_while_loading,
    fail_everywhere,
    from_device_memory,
    gpu_process,
    refusal,
    refusal_as_it_is,
    refusal_of,
    refusal_with_obstacle,
    segment,
    side_by_side,
    too_large,
    with_obstacle,
)
from models import random_images, randomised, small_config, spreading_thresholds
from native import ROOT, export, run, skip_unless_rtx_runs, tensorrt_rtx
from PIL import Image
from plan_bundles import make_plan_bundle
from stand_in import StandIn

import dovit
from dovit.export.model import DoViT
from dovit.plugins import left_out, library
from dovit.runtime import DovitError
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.bundle.program import read_program
from dovit.runtime.gpu.runtime_cache import cache_file
from dovit.runtime.images import read_image
from dovit.runtime.machine import find_gpu

pytestmark = pytest.mark.xdist_group("cpp")

CAPACITIES = (0, 5, 11, 17, 24)
KINDS = [
    ("setr-naive", "conv", 1, "tensorrt10"),
    ("setr-mla", "conv", 1, "tensorrt-rtx"),
    ("setr-mla", "fcn", 2, "tensorrt11"),
    ("segmenter-mask", "setr-k1", 1, "tensorrt-rtx"),
    ("segmenter-linear", "fcn", 0, "tensorrt10"),
]
VERSIONS = {"tensorrt10": "10.14.1.48", "tensorrt11": "11.4.0.106", "tensorrt-rtx": "1.7.1.116"}
GRAPH, SEGMENTED = 1, 2
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def on_gpu() -> Iterator[Call]:
    with gpu_process() as call:
        yield call


@pytest.fixture(scope="module")
def make(
    build: Callable[[str], Path], stand_in_gpu: StandIn, library_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Setup, DoViT]]:
    made: dict[tuple[object, ...], tuple[Setup, DoViT]] = {}

    def one(
        decoder: str = "setr-naive", head: str = "conv", prefix: int = 1, library: str = "tensorrt-rtx"
    ) -> tuple[Setup, DoViT]:
        key = (decoder, head, prefix, library)
        path = {
            "tensorrt10": stand_in_gpu.tensorrt,
            "tensorrt11": stand_in_gpu.tensorrt11,
            "tensorrt-rtx": stand_in_gpu.tensorrt_rtx,
        }[library]
        if path is None:
            pytest.skip("TensorRT 10's headers are not here: set TENSORRT_ROOT, or have pip download kernel-lens")
        if key not in made:
            model = randomised(small_config(decoder, prefix, head))
            flavour = library.rstrip("01")
            bundle = make_plan_bundle(
                model, tmp_path_factory.mktemp("gpu") / "bundle", CAPACITIES, flavour, VERSIONS[library]
            )
            runtime = build("release") / "libdovit_runtime.so"
            made[key] = Setup(stand_in_gpu, runtime, library_path, bundle, flavour, path), model
        return made[key]

    return one


@pytest.fixture(scope="module")
def setup(make: Callable[..., tuple[Setup, DoViT]]) -> Setup:
    return make()[0]


def picture(seed: int = 0) -> np.ndarray:
    return random_images(small_config(), seed=seed)[0].numpy()


def same(found: Result, expected: dovit.Result) -> None:
    """Sums are added in another order than ONNX Runtime's, so a confidence may differ in its last digits; nothing else may."""
    assert (found.kept, found.tokens) == (expected.kept, expected.tokens)
    assert np.array_equal(found.keep_maps, expected.keep_maps.reshape(found.keep_maps.shape))
    confidences = expected.confidence_maps.reshape(found.confidence_maps.shape)
    np.testing.assert_allclose(found.confidence_maps, confidences, rtol=1e-5)
    assert found.labels.dtype == expected.labels.dtype and (found.labels == expected.labels).mean() > 0.999
    assert expected.logits is not None
    assert np.abs(found.logits - expected.logits).max() <= 1e-4 * np.abs(expected.logits).max()


@pytest.mark.parametrize("graph", [GRAPH, SEGMENTED], ids=["graph", "segmented"])
@pytest.mark.parametrize(("decoder", "head", "prefix", "library"), KINDS)
def test_results_are_those_of_python_on_the_cpu(
    make: Callable[..., tuple[Setup, DoViT]],
    on_gpu: Call,
    decoder: str,
    head: str,
    prefix: int,
    library: str,
    graph: int,
) -> None:
    """One session for all ξ, schedules and sizes: what one pass leaves in memory does not reach the next."""
    setup, model = make(decoder, head, prefix, library)
    images = random_images(model.config)
    spread = [
        spreading_thresholds(model, images, keep, list(CAPACITIES)) for keep in ((0.7, 0.7), (0.4, 0.5), (0.8, 0.2))
    ]
    settings: list[dict[str, Any]] = [{"threshold": xi} for xi in [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0), *spread]]
    settings += [{"threshold": spread[0], "schedule": "exact"}, {"threshold": (0.0, 0.0), "schedule": "exact"}]
    settings += [{"counts": (13, 4)}, {"counts": (7, 0)}]
    passes = [(picture(seed), one) for seed, one in enumerate(settings)]
    small = np.ascontiguousarray(picture(8)[::2, ::3])
    passes += [(other(), {"threshold": spread[0]}), (small, {"threshold": spread[1]}), (small, {"counts": (9, 3)})]
    passes += [(other(), {"threshold": spread[1], "mode": "slide"}), (picture(1), {"threshold": spread[0]})]
    python = dovit.load(setup.bundle)
    found = on_gpu(segment, setup, {"graph": graph}, [(image, {"schedule": "bucketed"} | one) for image, one in passes])
    kept = set()
    for (image, one), result in zip(passes, found, strict=True):
        same(result, python(image, return_logits=True, **({"schedule": "bucketed"} | one)))
        kept.add(result.kept)
    assert len(kept) >= 6, "the passes were to differ"


@pytest.fixture(scope="module")
def some(make: Callable[..., tuple[Setup, DoViT]]) -> dict[str, Any]:
    """Settings with which some tokens stop at each decision."""
    _, model = make()
    xi = spreading_thresholds(model, random_images(model.config), (0.7, 0.7), list(CAPACITIES))
    return {"schedule": "bucketed", "threshold": xi}


def other(seed: int = 9) -> np.ndarray:
    """Larger than the bundle's size in one direction, smaller in the other."""
    return np.ascontiguousarray(picture(seed).repeat(2, 0)[:100, :90])


@pytest.mark.parametrize("image", [picture(), other()], ids=["own", "other"])
def test_an_image_is_one_launch_and_one_wait(
    setup: Setup, on_gpu: Call, some: dict[str, Any], image: np.ndarray
) -> None:
    calls = on_gpu(calls_of_a_pass, setup, {"graph": GRAPH}, image, some | {"return_logits": 0})
    expected = {"cuGraphLaunch": 1, "cuStreamSynchronize": 1}
    assert {name: count for name, count in calls.items() if count} == expected


def test_segments_are_a_launch_and_a_wait_each(setup: Setup, on_gpu: Call, some: dict[str, Any]) -> None:
    calls = on_gpu(calls_of_a_pass, setup, {"graph": SEGMENTED}, picture(), some | {"return_logits": 0})
    expected = {"cuGraphLaunch": 4, "cuStreamSynchronize": 3}  # two decisions, and the decoder with the last wait
    assert {name: count for name, count in calls.items() if count} == expected


def test_eight_threads_share_a_session(setup: Setup, on_gpu: Call, some: dict[str, Any]) -> None:
    passes = [(picture(n % 3), some | {"threshold": [(1.0,), (0.4, 0.2), (0.0,)][n % 3]}) for n in range(16)]
    alone = on_gpu(segment, setup, {}, passes[:3])
    for n, result in enumerate(on_gpu(side_by_side, setup, {"workers": 3}, passes)):
        assert result.kept == alone[n % 3].kept and np.array_equal(result.labels, alone[n % 3].labels)


def test_device_memory_and_a_stream_of_the_callers(setup: Setup, on_gpu: Call, some: dict[str, Any]) -> None:
    """The picture is on its way when the pass begins; labels land between the gaps of their rows, and nowhere else."""
    [expected] = on_gpu(segment, setup, {}, [(picture(), some)])
    labels, gaps, result = on_gpu(from_device_memory, setup, picture(), some)
    assert np.array_equal(labels, expected.labels) and (gaps == 0xFF).all()
    assert result.labels.size == 0 and result.kept == expected.kept
    resized = np.ascontiguousarray(picture(5)[:50, :70])
    [expected] = on_gpu(segment, setup, {}, [(resized, some)])
    labels, gaps, _ = on_gpu(from_device_memory, setup, resized, some)
    assert np.array_equal(labels, expected.labels) and (gaps == 0xFF).all()


@pytest.mark.parametrize("graph", [GRAPH, SEGMENTED], ids=["graph", "segmented"])
@pytest.mark.parametrize("schedule", ["bucketed", "exact"])
@pytest.mark.parametrize("image", [picture(), other()], ids=["own", "other"])
def test_every_failure_is_a_sentence_and_the_last_of_its_session(
    setup: Setup, on_gpu: Call, some: dict[str, Any], graph: int, schedule: str, image: np.ndarray
) -> None:
    """A driver, TensorRT or a kernel that fails, at every call: no hang, no wrong labels, nothing left behind. Where it is memory
    for an image of another size, the session goes on."""
    if (graph, schedule) == (SEGMENTED, "exact"):
        pytest.skip("exact passes are the same in both")
    sentences = on_gpu(
        fail_everywhere, setup, {"graph": graph}, image, some | {"schedule": schedule, "return_logits": 0}
    )
    assert len(sentences["load"]) > 30 and len(sentences["run"]) >= 2
    preparing = {told.partition(":")[0] for told in sentences["prepare"]}
    taking = {"cuCtxPushCurrent", "cuMemGetInfo", "cuMemAlloc", "cuMemHostAlloc"}
    assert preparing == (set() if image.shape == picture().shape else taking)
    for told in sentences["load"] + sentences["prepare"] + sentences["run"]:
        assert "internal error" not in told and "\n" not in told
    for told in sentences["run"]:
        assert told.endswith("; this session is dead: load the bundle again")


def test_an_image_that_does_not_fit_is_refused_and_the_next_is_not(setup: Setup, on_gpu: Call) -> None:
    status, told = on_gpu(too_large, setup, np.zeros((1000, 700, 3), np.uint8), 1 << 20)
    assert status == 1
    assert re.fullmatch(
        r"resizing an image of 1000×700 needs \d+ MiB on [\w -]+, of which \d MiB are free: give a smaller image, or use "
        "mode slide",
        told,
    ), told


def change(setup: Setup, tmp_path: Path, **fields: object) -> Setup:
    """The bundle with other fields in its plan set."""
    folder = tmp_path / "changed"
    shutil.copytree(setup.bundle, folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["plans"][0] |= fields
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return replace(setup, bundle=folder)


PLENTY = 1 << 40


@pytest.mark.parametrize(
    ("options", "machine", "status", "told"),
    [
        ({}, (0, 12080, 8, 9, PLENTY), 1, "no NVIDIA GPU was found"),
        ({"device": b"cuda:2"}, (2, 12080, 8, 9, PLENTY), 1, "no NVIDIA GPU number 2 was found: this machine has 2"),
        ({"graph": GRAPH}, (1, 12060, 8, 9, PLENTY), 1, "SWITCH nodes need CUDA 12.8, and this driver runs 12.6"),
        ({}, (1, 12080, 7, 5, PLENTY), 1, "which means 8.0 and newer, this GPU"),
        (
            {},
            (1, 12080, 9, 0, PLENTY),
            1,
            "TensorRT-RTX 1.7.1.116 runs on compute capability 7.5, 8.0, 8.6, 8.9, 12.0, 12.1, this GPU (",
        ),
        ({}, (1, 12080, 8, 9, 1 << 10), 1, "close what else uses it"),
        ({"precision": b"fp16"}, None, 1, "no tensorrt-rtx fp16 plans in this bundle (there are: tensorrt-rtx fp32)"),
        ({"tensorrt": b"/nowhere/libtensorrt_rtx.so.1"}, None, 1, "TensorRT-RTX's library cannot be opened"),
        ({"plugins": b"/nowhere/libdovit_plugins.so"}, None, 1, "the kernels' library cannot be opened"),
        ({"device": b"cpu"}, None, 2, "runs on a GPU, not on device cpu"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_machine_that_cannot_is_told_why(
    setup: Setup, on_gpu: Call, options: dict[str, Any], machine: tuple[int, ...] | None, status: int, told: str
) -> None:
    found = on_gpu(refusal, setup, options, machine)
    assert found[0] == status and told in found[1], found


def test_an_older_driver_runs_segments(setup: Setup, on_gpu: Call) -> None:
    assert on_gpu(refusal, setup, {}, (1, 12040, 8, 9, PLENTY)) == (0, "")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"version": "1.8.0.1"},
            "the bundle's version says TensorRT-RTX 1.8.0.1, 1.7.1.116 is installed; rebuild the plans: ",
        ),
        ({"compute_capabilities": ["12.0"]}, "the bundle's compute_capabilities say 12.0, this GPU"),
        ({"user_allocation": False}, "plans were built without REQUIRE_USER_ALLOCATION, and cannot be captured"),
        ({"cuda": 13}, "the bundle's cuda says 13, this machine's driver runs CUDA 12.8 at most: update the driver"),
        ({"plugin_version": "1"}, "plans have the token pass inside (--plugins)"),
        ({"batch": 2}, "plans take 2 images at a time, and a session of libdovit_runtime one"),
        ({"steps": []}, "does not fit bundle.json (there is no plan stem); build the plans again"),
        (
            {"program": None},
            "plans have no program, for an older dovit has built them; build the plans again: dovit-export",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_plans_for_other_machines_are_refused(
    setup: Setup, on_gpu: Call, tmp_path: Path, fields: dict[str, object], told: str
) -> None:
    status, sentence = on_gpu(refusal, change(setup, tmp_path, **fields), {}, (1, 12080, 8, 9, PLENTY))
    assert status == 1 and told in sentence, sentence


def program_of(setup: Setup) -> dict[str, Any]:
    """The program of the bundle's plan set, as JSON."""
    [plans] = json.loads((setup.bundle / "bundle.json").read_text())["plans"]
    program: dict[str, Any] = json.loads((setup.bundle / plans["program"]).read_text())
    return program


def with_program(setup: Setup, folder: Path, program: dict[str, Any]) -> Setup:
    """The bundle with another program, and its hash."""
    folder.mkdir()
    content = json.dumps(program).encode()
    (folder / "program.json").write_bytes(content)
    manifest = json.loads((setup.bundle / "bundle.json").read_text())
    manifest["plans"][0]["program"] = "program.json"
    manifest["files"] = {
        name: entry for name, entry in manifest["files"].items() if not Path(name).name.startswith("program-")
    } | {"program.json": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}}
    for name in manifest["files"]:
        if name != "program.json":
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).hardlink_to(setup.bundle / name)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return replace(setup, bundle=folder)


def broken(program: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`program` with each number far too large or negative, each text another one, and each list one shorter, wherever that
    leaves memory or names what does not exist."""

    def walk(at: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], object]]:
        if isinstance(at, dict):
            for key, value in at.items():
                yield from walk(value, (*path, key))
        elif isinstance(at, list):
            if path[-1] in ("tensors", "segments", "decisions", "inputs", "outputs"):
                yield path, at[:-1]
            for key, value in enumerate(at):
                yield from walk(value, (*path, key))
        elif isinstance(at, str):
            yield path, "nowhere"
        elif isinstance(at, int) and path[-1] not in ("first", "last"):
            yield path, -1
            if path[-1] not in ("arena_bytes",) and "profiles" not in path:
                yield path, 1 << 50

    # arguments that are numbers, and what a constant is, are the planner's promise: only their type has bounds
    promised = {"values", "scratch"}
    for path, value in walk(program, ()):
        if path[-1] == "name" or promised & {*path} or ("arguments" in path and value == -1 and path[-1] != "offset"):
            continue
        changed = copy.deepcopy(program)
        at: Any = changed
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        yield changed


def test_programs_that_leave_the_arena_are_refused(setup: Setup, on_gpu: Call, tmp_path: Path) -> None:
    """By both languages: nothing on the device is used."""
    changed = list(broken(program_of(setup)))
    assert len(changed) > 300
    for number, program in enumerate(changed):
        if number % 25:  # test_programs.py has thousands; here what a session says
            continue
        one = with_program(setup, tmp_path / str(number), program)
        bundle = open_bundle(one.bundle)
        with pytest.raises(DovitError, match="build the plans again"):
            read_program(bundle, bundle.manifest.plans[0])
        status, sentence = on_gpu(refusal, one, {})
        assert status == 1 and ("build the plans again" in sentence or "has no kernel" in sentence), sentence
        shutil.rmtree(one.bundle)


def test_arguments_of_another_library_are_refused(setup: Setup, on_gpu: Call, tmp_path: Path) -> None:
    program = program_of(setup)
    launch = next(o for s in program["segments"] for o in s["operations"] if o.get("kernel") == "gather")
    launch["arguments"]["older"] = launch["arguments"].pop("prefix")
    status, sentence = on_gpu(refusal, with_program(setup, tmp_path / "one", program), {})
    assert status == 1 and "the kernel gather takes type, tokens, " in sentence and "not type" in sentence


@pytest.mark.parametrize("obstacle", ["invalid", "foreign", "told"])
def test_a_plan_that_cannot_be_captured(
    setup: Setup, make: Callable[..., tuple[Setup, DoViT]], on_gpu: Call, some: dict[str, Any], obstacle: str
) -> None:
    """Tried before any graph is built, for ending an invalidated capture of a body crashes in the driver. Segments instead, one
    of them without a graph where the plan cannot be captured at all; an error where one graph is demanded."""
    status, sentence = on_gpu(refusal_with_obstacle, setup, {"graph": GRAPH}, obstacle)
    reason = {
        "invalid": r"cannot be captured: .*cuStreamEndCapture failed: ",
        "foreign": "cannot be in the body of a SWITCH node: its capture holds a call of the host",
        "told": r"cannot be captured: TensorRT-RTX says so \(IExecutionContext::isStreamCapturable\)",
    }[obstacle]
    told = rf"block2 with 5 tokens {reason}.*; use the segmented mode \(graph = DOVIT_SEGMENTED\)"
    assert status == 1 and re.search(told, sentence), sentence
    few = spreading_thresholds(make()[1], random_images(small_config()), (0.2, 0.15), list(CAPACITIES))
    settings = [{"schedule": "bucketed", "threshold": xi} for xi in (few, some["threshold"], (1.0, 1.0), (0.0, 0.0))]
    passes = [(picture(), one) for one in settings]
    found, calls = on_gpu(with_obstacle, setup, {}, obstacle, passes)
    python = dovit.load(setup.bundle)
    for (image, one), result in zip([*passes, passes[0]], found, strict=True):
        same(result, python(image, return_logits=True, **one))
    assert found[-1].kept[0] == 5, "the segment was to run"
    eager = obstacle != "foreign"
    assert calls == {"cuGraphLaunch": 3 if eager else 4, "enqueueV3": int(eager)}


def kernel_cache(folder: Path) -> Path:
    """Where the Python runtime keeps what TensorRT-RTX compiles."""
    before = os.environ["XDG_CACHE_HOME"]
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        return cache_file("tensorrt-rtx", VERSIONS["tensorrt-rtx"], "stand-in GPU", "8.9")
    finally:
        os.environ["XDG_CACHE_HOME"] = before


def test_kernels_are_compiled_once(setup: Setup, on_gpu: Call, tmp_path: Path) -> None:
    """For all contexts of a process and for the next, in Python's file; engines are shared by the sessions of a process."""
    plans = sum(
        step["kind"] == "plan" for step in json.loads((setup.bundle / "bundle.json").read_text())["plans"][0]["steps"]
    )
    nothing = {"compile": 0, "deserializeCudaEngine": 0}
    calls = on_gpu(calls_while_loading, setup, tmp_path, {"workers": 2})
    shapes = calls[0]["compile"]
    assert shapes > 5 and calls[0]["deserializeCudaEngine"] == plans, calls
    assert calls[1:] == [nothing, nothing, nothing | {"deserializeCudaEngine": plans}]
    file = kernel_cache(tmp_path)
    content = file.read_bytes()
    assert len(content.splitlines()) == 1 + shapes and [*file.parent.iterdir()] == [file]
    for damaged in (b"", content[5:], b"stand-in 1.8.0.1" + content[17:]):
        file.write_bytes(damaged)
        calls = on_gpu(calls_while_loading, setup, tmp_path, {})
        assert calls[0]["compile"] == shapes and file.read_bytes() == content


def test_a_cache_that_cannot_be_kept_is_no_error(setup: Setup, on_gpu: Call, tmp_path: Path) -> None:
    (tmp_path / "dovit").write_text("no folder")
    calls = on_gpu(calls_while_loading, setup, tmp_path, {})
    assert calls[0]["compile"] == calls[3]["compile"] > 5 and calls[1]["compile"] == 0
    refused = on_gpu(calls_while_loading, setup, tmp_path / "other", {}, "setRuntimeCache")
    assert refused[0]["compile"] == refused[1]["compile"] == calls[0]["compile"]


def test_a_plan_that_is_not_valid_here_is_refused_before_it_is_loaded(setup: Setup, on_gpu: Call) -> None:
    status, told = on_gpu(refusal_of, setup, "getEngineValidity")
    assert status == 1 and told.endswith(": TensorRT-RTX does not take this plan: UNSUPPORTED_CC, OLD_CUDA_DRIVER"), (
        told
    )


def test_without_a_driver(setup: Setup, make: Callable[..., tuple[Setup, DoViT]]) -> None:
    """In a process of its own, in which nothing stands in for the driver."""
    if not isinstance(find_gpu(), str):
        pytest.skip("this machine has a driver")
    real = tensorrt_rtx()
    if real is None:
        pytest.skip("TensorRT-RTX is not installed")
    with gpu_process() as call:
        # the real library, for the stand-in's brings its driver
        libraries = replace(setup.libraries, cuda=Path("libc.so.6"))
        nothing = replace(setup, libraries=libraries, tensorrt=real[0])
        status, sentence = call(refusal_as_it_is, nothing)
    assert status == 1 and "plans need an NVIDIA GPU: no NVIDIA GPU was found (libcuda.so.1: " in sentence
    assert sentence.endswith("install its driver; backend onnxruntime runs on a CPU")


def test_the_examples(setup: Setup, on_gpu: Call, examples: Path, tmp_path: Path) -> None:
    image, labels, mixed = (tmp_path / name for name in ("image.png", "labels.png", "mixed.png"))
    Image.fromarray(picture()).save(image)
    libraries = setup.libraries
    options = [
        "--backend",
        setup.flavour,
        "--tensorrt",
        str(setup.tensorrt),
        "--plugins",
        str(libraries.plugins),
    ]
    environment = {"LD_LIBRARY_PATH": str(libraries.cuda.parent), "DOVIT_STAND_IN_ONNXRUNTIME": str(setup.onnxruntime)}
    run(examples / "segment", setup.bundle, image, labels, mixed, *options, **environment)
    [expected] = on_gpu(segment, setup, {}, [(picture(), {"schedule": "bucketed"})])
    assert np.array_equal(np.asarray(Image.open(labels)), expected.labels)
    printed = run(examples / "pipeline", setup.bundle, "5", *options, **environment)
    assert printed == "5 frames, 5 with the labels that they get alone\n"


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["sanitize", "thread"])
def test_sanitizers_find_nothing(build: Callable[[str], Path], setup: Setup, preset: str) -> None:
    suppressions = Path(__file__).with_name("thread_sanitizer.txt")
    run(
        build(preset) / "tests" / "gpu_sessions",
        setup.bundle,
        setup.flavour,
        setup.tensorrt,
        setup.libraries.plugins,
        LD_LIBRARY_PATH=str(setup.libraries.cuda.parent),
        DOVIT_STAND_IN_ONNXRUNTIME=str(setup.onnxruntime),
        TSAN_OPTIONS=f"suppressions={suppressions}",
    )


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [GRAPH, SEGMENTED], ids=["graph", "segmented"])
def test_on_a_real_gpu(
    build: Callable[[str], Path], bundle: Path, library_path: Path, tmp_path: Path, graph: int
) -> None:
    """The trained model's plans give the same labels and kept sets as the Python chain does on that GPU."""
    skip_unless_rtx_runs()
    rtx, kernels = tensorrt_rtx(), library()
    if rtx is None:
        pytest.skip("TensorRT-RTX is not installed")
    if kernels is None:
        pytest.skip(f"no kernels: {left_out()}")
    shutil.copytree(bundle, tmp_path / "engines")
    export("--engine", tmp_path / "engines", "--backend", "tensorrt-rtx")
    python = dovit.load(tmp_path / "engines", backend="tensorrt-rtx", graph=graph == GRAPH)
    session = Session(
        build("release") / "libdovit_runtime.so",
        tmp_path / "engines",
        library_path,
        backend=b"tensorrt-rtx",
        graph=graph,
        tensorrt=str(rtx[0]).encode(),
        plugins=str(kernels).encode(),
    )
    street = read_image(ROOT / "assets" / "street.png")
    for xi in ([1.0], [0.98], [0.9], [0.5], [0.0]):
        image = street[:192, :384] if xi[0] < 0.95 else street  # of the bundle's size, or to be resized
        found, expected = session(image, threshold=xi, schedule="bucketed"), python(image, threshold=xi)
        assert found.kept == expected.kept and np.array_equal(found.labels, expected.labels)
        assert np.array_equal(found.keep_maps[0], expected.keep_maps)
