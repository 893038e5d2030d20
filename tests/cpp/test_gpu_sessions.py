"""libdovit_runtime's GPU half, end to end on stand-ins for the driver and TensorRT, with the kernels' own sources: kept sets are
those of the Python runtime on the CPU, and failures are sentences."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_binding import Session
from gpu_images import CAPACITIES, GRAPH, SEGMENTED, Call, other, picture, same
from gpu_process import (
    Setup,
    after_usage_errors,
    calls_of_a_pass,
    fail_everywhere,
    from_device_memory,
    refusal_with_obstacle,
    segment,
    side_by_side,
    too_large,
    with_obstacle,
)
from models import random_images, small_config, spreading_thresholds
from native import ROOT, export, run, skip_unless_rtx_runs, tensorrt_rtx
from PIL import Image

import dovit
from dovit.export.model import DoViT
from dovit.plugins import left_out, library
from dovit.runtime.images import read_image

pytestmark = pytest.mark.xdist_group("cpp")

KINDS = [
    ("setr-naive", "conv", 1, "tensorrt10"),
    ("setr-mla", "conv", 1, "tensorrt-rtx"),
    ("setr-mla", "fcn", 2, "tensorrt11"),
    ("segmenter-mask", "setr-k1", 1, "tensorrt-rtx"),
    ("segmenter-linear", "fcn", 0, "tensorrt10"),
    ("segmenter-linear", "lens-unmerged", 1, "tensorrt-rtx"),
    ("segmenter-linear", "neighbours", 1, "tensorrt-rtx"),
    ("setr-mla", "fcn-cells", 2, "tensorrt-rtx"),
]


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
    """One session for all ξ, schedules and sizes: no pass reads what another left in memory."""
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
    """The picture is still being copied when the pass begins; labels are written into rows with gaps, and nowhere else."""
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
    preparing = {message.partition(":")[0] for message in sentences["prepare"]}
    taking = {"cuCtxPushCurrent", "cuMemGetInfo", "cuMemAlloc", "cuMemHostAlloc"}
    assert preparing == (set() if image.shape == picture().shape else taking)
    for message in sentences["load"] + sentences["prepare"] + sentences["run"]:
        assert "internal error" not in message and "\n" not in message
    for message in sentences["run"]:
        assert message.endswith("; the session refuses further work: load the bundle again")


def test_wrong_arguments_are_refused_and_the_session_goes_on(setup: Setup, on_gpu: Call) -> None:
    wrong: list[dict[str, Any]] = [{"schedule": "rounded"}, {"threshold": (2.0,)}, {"counts": (1, 2)}]
    refusals, result = on_gpu(after_usage_errors, setup, {}, picture(), wrong)
    assert [status for status, _ in refusals] == [2, 2, 2]
    assert refusals[0][1] == "schedule rounded is for a CPU: choose exact or bucketed for plans"
    assert result.labels.shape == picture().shape[:2]


def test_an_image_that_does_not_fit_is_refused_and_the_next_is_not(setup: Setup, on_gpu: Call) -> None:
    status, message = on_gpu(too_large, setup, np.zeros((1000, 700, 3), np.uint8), 1 << 20)
    assert status == 1
    assert re.fullmatch(
        r"resizing an image of 1000×700 needs \d+ MiB on [\w -]+, of which \d MiB are free: give a smaller image, or use "
        "mode slide",
        message,
    ), message


@pytest.mark.parametrize("obstacle", ["invalid", "unsupported node", "refused"])
def test_a_plan_that_cannot_be_captured(
    setup: Setup, make: Callable[..., tuple[Setup, DoViT]], on_gpu: Call, some: dict[str, Any], obstacle: str
) -> None:
    """Tried before any graph is built, for ending an invalidated capture of a body crashes in the driver. Segments instead, one
    of them without a graph where the plan cannot be captured at all; an error where one graph is demanded."""
    status, sentence = on_gpu(refusal_with_obstacle, setup, {"graph": GRAPH}, obstacle)
    reason = {
        "invalid": r"cannot be captured: .*cuStreamEndCapture failed: ",
        "unsupported node": "cannot be in the body of a SWITCH node: its capture holds a call of the host",
        "refused": r"cannot be captured: TensorRT-RTX says so \(IExecutionContext::isStreamCapturable\)",
    }[obstacle]
    message = rf"block2 with 5 tokens {reason}.*; use the segmented mode \(graph = DOVIT_SEGMENTED\)"
    assert status == 1 and re.search(message, sentence), sentence
    few = spreading_thresholds(make()[1], random_images(small_config()), (0.2, 0.15), list(CAPACITIES))
    settings = [{"schedule": "bucketed", "threshold": xi} for xi in (few, some["threshold"], (1.0, 1.0), (0.0, 0.0))]
    passes = [(picture(), one) for one in settings]
    found, calls = on_gpu(with_obstacle, setup, {}, obstacle, passes)
    python = dovit.load(setup.bundle)
    for (image, one), result in zip([*passes, passes[0]], found, strict=True):
        same(result, python(image, return_logits=True, **one))
    assert found[-1].kept[0] == 5, "the segment was to run"
    eager = obstacle != "unsupported node"
    assert calls == {"cuGraphLaunch": 3 if eager else 4, "enqueueV3": int(eager)}


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


def test_a_failure_ends_every_wait(build: Callable[[str], Path], setup: Setup) -> None:
    """Threads that wait while the pass of another fails get errors too; one left waiting ends the program after a minute."""
    gpu_sessions(build("release"), setup, "failure")


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["sanitize", "thread"])
def test_sanitizers_find_nothing(build: Callable[[str], Path], setup: Setup, preset: str) -> None:
    gpu_sessions(build(preset), setup)


def gpu_sessions(built: Path, setup: Setup, *part: str) -> None:
    """Run the program of this name."""
    suppressions = Path(__file__).with_name("thread_sanitizer.txt")
    run(
        built / "tests" / "gpu_sessions",
        setup.bundle,
        setup.flavour,
        setup.tensorrt,
        setup.libraries.plugins,
        *part,
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
