"""Functions for a process in which the stand-ins for the driver, TensorRT and the kernels are loaded."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from c_binding import Failure, Result, Session
from stand_in import StandIn

Settings = dict[str, Any]  # of a pass, as Session takes them
ALIVE = ("memory", "pinned", "stream", "event", "graph", "exec", "primary", "context", "engine", "runtime", "cache")
DEVICE = 1  # of dovit_memory


@dataclass(frozen=True)
class Setup:
    """What a session is made of."""

    libraries: StandIn
    runtime: Path
    onnxruntime: Path
    bundle: Path
    flavour: str
    tensorrt: Path  # the stand-in's library of this flavour and the bundle's version


@contextmanager
def gpu_process() -> Iterator[Callable[..., Any]]:
    """Calls functions of this module in a process of their own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


@cache
def stand_in(setup: Setup) -> ctypes.CDLL:
    """Load the driver's stand-in; the runtime finds it by its name from then on."""
    os.environ["DOVIT_STAND_IN_ONNXRUNTIME"] = str(setup.onnxruntime)
    return ctypes.CDLL(str(setup.libraries.cuda))


def load(setup: Setup, **options: object) -> Session:
    """A session on the stand-in."""
    stand_in(setup)
    given: dict[str, object] = {
        "backend": setup.flavour.encode(),
        "tensorrt": str(setup.tensorrt).encode(),
        "plugins": str(setup.libraries.plugins).encode(),
    }
    return Session(setup.runtime, setup.bundle, setup.onnxruntime, **(given | options))


def segment(setup: Setup, options: Settings, passes: Sequence[tuple[np.ndarray, Settings]]) -> list[Result]:
    """The results of pictures, each with its settings, from one session."""
    session = load(setup, **options)
    return [session(picture, **settings) for picture, settings in passes]


def calls_of_a_pass(setup: Setup, options: Settings, picture: np.ndarray, settings: Settings) -> dict[str, int]:
    """How often each function of interest was called for the second pass of a session."""
    session = load(setup, **options)
    session(picture, **settings)
    stand_in(setup).stand_in_reset_calls()
    session(picture, **settings)
    names = (
        "cuGraphLaunch",
        "cuStreamSynchronize",
        "cuMemAlloc",
        "cuMemHostAlloc",
        "cuStreamBeginCapture",
        "cuStreamBeginCaptureToGraph",
        "createExecutionContext",
        "enqueueV3",
    )
    return {name: stand_in(setup).stand_in_calls(name.encode()) for name in names}


def refusal(setup: Setup, options: Settings, machine: tuple[int, int, int, int, int] | None = None) -> tuple[int, str]:
    """How loading fails, status and sentence, on a machine as stand_in_configure makes it; and nothing stays behind."""
    driver = stand_in(setup)
    driver.stand_in_reset()
    if machine is not None:
        *numbers, free = machine
        driver.stand_in_configure(*numbers, ctypes.c_size_t(free))
    try:
        load(setup, **options)
    except Failure as failure:
        gc.collect()
        assert not any(alive(setup).values()), alive(setup)
        return failure.status, str(failure)
    finally:
        driver.stand_in_reset()
    return 0, ""


def after_usage_errors(
    setup: Setup, options: Settings, picture: np.ndarray, wrong: Sequence[Settings]
) -> tuple[list[tuple[int, str]], Result]:
    """How a session refuses a picture with each of the wrong settings, status and sentence; and its result without them."""
    session = load(setup, **options)
    refusals = []
    for settings in wrong:
        try:
            session(picture, **settings)
        except Failure as failure:
            refusals.append((failure.status, str(failure)))
    return refusals, session(picture)


def with_obstacle(
    setup: Setup, options: Settings, obstacle: str, passes: Sequence[tuple[np.ndarray, Settings]]
) -> tuple[list[Result], dict[str, int]]:
    """Results of a session whose second capture is invalidated (`invalid`), holds a call of the host, or is not tried, since
    TensorRT says that it cannot be (`refused`); and the calls of the last pass."""
    spoil(setup, obstacle)
    session = load(setup, **options)
    results = [session(picture, **settings) for picture, settings in passes]
    stand_in(setup).stand_in_reset_calls()
    results.append(session(passes[0][0], **passes[0][1]))
    return results, {name: stand_in(setup).stand_in_calls(name.encode()) for name in ("cuGraphLaunch", "enqueueV3")}


def calls_while_loading(setup: Setup, cache: Path, options: Settings, failing: str = "") -> list[dict[str, int]]:
    """How often TensorRT-RTX compiled and deserialized: for a session, for a second one beside it, for passes in exact mode, and
    for one more after both are gone; with compiled kernels kept in `cache`. `failing`: a function whose every call fails."""
    driver = stand_in(setup)
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(cache)
    calls: list[dict[str, int]] = []

    def counted(work: Callable[[], object]) -> object:
        driver.stand_in_reset_calls()
        if failing:
            driver.stand_in_fail(failing.encode(), -1)
        made = work()
        names = ("compile", "deserializeCudaEngine")
        calls.append({name: driver.stand_in_calls(name.encode()) for name in names})
        return made

    def exact(session: Session) -> None:
        image = np.zeros((64, 96, 3), np.uint8)
        for counts in ((13, 4), (7, 1)):
            session(image, counts=counts)

    try:
        driver.stand_in_reset()
        first = counted(partial(load, setup, **options))
        second = counted(partial(load, setup, **options))
        assert isinstance(first, Session)
        counted(partial(exact, first))
        del first, second
        gc.collect()
        assert not any(alive(setup).values()), alive(setup)
        counted(partial(load, setup, **options))
        return calls
    finally:
        driver.stand_in_reset()
        del os.environ["XDG_CACHE_HOME"]
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


def refusal_of(setup: Setup, function: str) -> tuple[int, str]:
    """How loading fails where a function does, at its first call."""
    stand_in(setup).stand_in_reset()
    stand_in(setup).stand_in_fail(function.encode(), 1)
    return refusal_as_it_is(setup)


def refusal_with_obstacle(setup: Setup, options: Settings, obstacle: str) -> tuple[int, str]:
    """How loading fails where a plan cannot be captured."""
    spoil(setup, obstacle)
    return refusal_as_it_is(setup, options)


def spoil(setup: Setup, obstacle: str) -> None:
    """Make the second capture of the next session fail, which is that of the first block after the stem."""
    driver = stand_in(setup)
    driver.stand_in_reset()
    if obstacle == "refused":
        driver.stand_in_fail(b"isStreamCapturable", 2)
    elif obstacle == "invalid":
        driver.stand_in_fail(b"cuStreamEndCapture", 2)
    else:
        driver.stand_in_add_unsupported_node(2)


def refusal_as_it_is(setup: Setup, options: Settings | None = None) -> tuple[int, str]:
    """The error of loading on this machine."""
    try:
        load(setup, **(options or {}))
    except Failure as failure:
        return failure.status, str(failure)
    return 0, ""


def alive(setup: Setup) -> dict[str, int]:
    """Objects that exist on the device, by kind."""
    return {kind: stand_in(setup).stand_in_alive(kind.encode()) for kind in ALIVE}


def fail_everywhere(setup: Setup, options: Settings, picture: np.ndarray, settings: Settings) -> dict[str, list[str]]:
    """Has every function fail once in loading, and once in a pass: the sentences. After each a new session has to work, and after
    one in a pass that did not say that the session refuses further work, that one."""
    driver = stand_in(setup)
    driver.stand_in_reset()
    expected = load(setup, **options)(picture, **settings)
    functions = _called(setup, lambda: load(setup, **options))
    sentences: dict[str, list[str]] = {"load": [], "prepare": [], "run": []}
    for name, count in functions.items():
        for nth in {1, (count + 1) // 2, count}:
            driver.stand_in_fail(name.encode(), nth)
            try:
                load(setup, **options)
            except Failure as failure:
                sentences["load"].append(f"{name}: {failure}")
            gc.collect()
            assert not any(alive(setup).values()), (name, nth, alive(setup))
    in_a_pass = _called(setup, partial(load(setup, **options), picture, **settings))
    for name in in_a_pass:
        session = load(setup, **options)
        driver.stand_in_fail(name.encode(), 1)
        try:
            session(picture, **settings)
        except Failure as failure:
            if "the session refuses further work" not in str(failure):
                sentences["prepare"].append(f"{name}: {failure}")
                assert np.array_equal(session(picture, **settings).labels, expected.labels)
            else:
                sentences["run"].append(f"{name}: {failure}")
                again = ""
                try:
                    session(picture, **settings)
                except Failure as dead:
                    again = str(dead)
                assert again.startswith("the session refuses work after an error ("), (name, again)
        del session
        gc.collect()
        assert not any(alive(setup).values()), (name, alive(setup))
        assert np.array_equal(load(setup, **options)(picture, **settings).labels, expected.labels)
    return sentences


def _called(setup: Setup, work: Callable[[], object]) -> dict[str, int]:
    """The functions that `work` has called, and how often, without those that only free or query, which cannot fail."""
    driver = stand_in(setup)
    driver.stand_in_reset_calls()
    made = work()
    names = [
        "cuInit",
        "cuDriverGetVersion",
        "cuDeviceGetCount",
        "cuDeviceGet",
        "cuDeviceGetName",
        "cuDeviceGetAttribute",
        "cuDevicePrimaryCtxRetain",
        "cuCtxPushCurrent",
        "cuMemGetInfo",
        "cuMemAlloc",
        "cuMemHostAlloc",
        "cuMemcpyAsync",
        "cuMemcpy2DAsync",
        "cuMemsetD8Async",
        "cuStreamCreate",
        "cuStreamSynchronize",
        "cuStreamWaitEvent",
        "cuEventCreate",
        "cuEventRecord",
        "cuStreamBeginCapture",
        "cuStreamBeginCaptureToGraph",
        "cuStreamEndCapture",
        "cuStreamGetCaptureInfo",
        "cuGraphCreate",
        "cuGraphAddNode",
        "cuGraphConditionalHandleCreate",
        "cuGraphGetNodes",
        "cuGraphNodeGetType",
        "cuGraphInstantiateWithFlags",
        "cuGraphLaunch",
        "launch",
        "enqueueV3",
        "getEngineValidity",
        "deserializeCudaEngine",
        "createExecutionContext",
        "setInputShape",
        "setTensorAddress",
    ]
    counts = {name: driver.stand_in_calls(name.encode()) for name in names}
    del made
    gc.collect()
    return {name: count for name, count in counts.items() if count > 0}


def too_large(setup: Setup, picture: np.ndarray, free: int) -> tuple[int, str]:
    """How a pass over a picture fails with so much memory left, once the session is loaded; it goes on where there is more."""
    session = load(setup)

    def leave(size: int) -> None:
        stand_in(setup).stand_in_configure(1, 12080, 8, 9, ctypes.c_size_t(size))

    leave(free)
    try:
        session(picture)
    except Failure as failure:
        return failure.status, str(failure)
    finally:
        leave(1 << 40)
        session(picture)
    return 0, ""


def from_device_memory(setup: Setup, picture: np.ndarray, settings: Settings) -> tuple[np.ndarray, np.ndarray, Result]:
    """A picture that a stream of the caller's is still to bring, in rows with gaps; its labels in device memory."""
    session = load(setup)
    context = ctypes.c_void_p()
    driver = Driver(stand_in(setup))
    driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    driver.cuCtxPushCurrent(context)
    stream = ctypes.c_void_p()
    driver.cuStreamCreate(ctypes.byref(stream), 1)
    height, width, channels = picture.shape
    there = driver.array((height, width * channels + 20))
    labels, copied = driver.array((height, width + 12)), driver.array((height, width))
    host = np.zeros((height, width * channels + 20), np.uint8)
    host[:, : width * channels] = picture.reshape(height, -1)
    size = ctypes.c_size_t(host.nbytes)
    driver.cuMemcpyAsync(ctypes.c_uint64(there.ctypes.data), ctypes.c_uint64(host.ctypes.data), size, stream)
    pixels = there[:, : width * channels].reshape(height, width, channels)
    assert pixels.ctypes.data == there.ctypes.data
    on_device = {"memory": DEVICE, "labels": labels.ctypes.data, "labels_stride": width + 12, "labels_memory": DEVICE}
    result = session(pixels, **settings, **on_device, stream=stream.value)
    kept = session(pixels, **settings, memory=DEVICE, stream=stream.value, copy_labels_to=copied.ctypes.data)
    assert np.array_equal(kept.labels, copied)
    return labels[:, :width].copy(), labels[:, width:].copy(), result


class Driver:
    """The stand-in's functions as a program calls them that has the driver from elsewhere."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Callable[..., None]:
        place, status = ctypes.c_void_p(), ctypes.c_int()
        find = self._library.cuGetProcAddress_v2
        assert (
            find(name.encode(), ctypes.byref(place), 12080, ctypes.c_uint64(0), ctypes.byref(status)) == 0
            and place.value
        )
        function = ctypes.CFUNCTYPE(ctypes.c_int)(place.value)
        function.argtypes = None  # type: ignore[assignment]  # whatever is passed

        def call(*arguments: object) -> None:
            code = function(*arguments)
            assert code == 0, (name, code)

        return call

    def array(self, shape: tuple[int, int]) -> np.ndarray:
        """Device memory, which the stand-in has on the host."""
        place = ctypes.c_uint64()
        size = shape[0] * shape[1]
        self.cuMemAlloc(ctypes.byref(place), ctypes.c_size_t(size))
        return np.frombuffer((ctypes.c_uint8 * size).from_address(place.value), np.uint8).reshape(shape)


def side_by_side(setup: Setup, options: Settings, passes: Sequence[tuple[np.ndarray, Settings]]) -> list[Result]:
    """The same as `segment` from eight threads that share the session."""
    session = load(setup, **options)
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(lambda one: session(one[0], **one[1]), passes))
