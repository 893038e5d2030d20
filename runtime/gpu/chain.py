"""A bundle's plans as the chain that a session runs: the mode that fits the machine, and one pass at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.bundle.program import Program
from dovit.runtime.chain import ChainResult
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.gpu.device import Device, DeviceEngine, Launchers, cuda_errors
from dovit.runtime.gpu.graph_mode import GraphMode
from dovit.runtime.gpu.mode import Mode
from dovit.runtime.gpu.profile import Profile, Profiler
from dovit.runtime.gpu.program import LoadedProgram
from dovit.runtime.gpu.resizing import MAX_ROWS
from dovit.runtime.gpu.stepped_modes import ExactMode, SegmentedMode
from dovit.runtime.gpu.stopwatch import Stopwatch
from dovit.runtime.gpu.transfers import Transfers
from dovit.runtime.gpu.trial import find_obstacles

LOG = logging.getLogger("dovit.runtime.gpu")


class GpuChain:
    """Runs as `dovit.runtime.chain.Chain` does. Threads may share one: their passes take turns."""

    def __init__(
        self,
        manifest: Manifest,
        plans: PlanSet,
        program: Program,
        engines: Mapping[str, DeviceEngine],
        kernels: Launchers,
        device: Device,
        *,
        graph: bool | None = None,
    ) -> None:
        """`graph`: the whole image as one CUDA graph, or one a segment; None: the former where the driver has it and every plan
        can be part of it, else the latter, and the log says why. Raises DovitError where that cannot be, with `graph` True."""
        self.manifest, self.plans, self.program = manifest, plans, program
        self._stopwatch = Stopwatch(device)
        self._parts = (self._stopwatch.engines(engines), self._stopwatch.kernels(kernels), device)
        self._device = device
        self._graph = graph
        # a stream may go on in another thread than the one it began in, and only that one could release an RLock
        self._lock = threading.Lock()
        self._streaming: int | None = None  # the thread that took the last result of the stream that is under way
        self._failure: str | None = None
        self._loaded = self._load_program()
        self._mode = self._capture(self._loaded)
        self._second: Mode | None = None  # for stream(), which has two images under way
        self._exact: ExactMode | None = None
        self._profiler: Profiler | None = None

    @property
    def device_bytes(self) -> int:
        """Bytes held on the device for tensors, scratch memory and larger images, the plans' weights not counted."""
        return self._mode.device_bytes + (0 if self._second is None else self._second.device_bytes)

    def accepts_size(self, size: tuple[int, int]) -> bool:
        """Whether images of this height and width may be given as they are. Those of another size than the bundle's are
        resized on the device, as Pillow does it, and labelled there at their own."""
        return size[0] <= MAX_ROWS

    @property
    def captured(self) -> Mode:
        """What runs the bundle's capacities, for measuring. Not for two threads at a time."""
        return self._mode

    def run(
        self,
        images: np.ndarray,
        thresholds: Sequence[float],
        capacities: Sequence[int],
        *,
        counts: Sequence[int] | None = None,
        logits: bool = True,
        labels: bool = True,
    ) -> ChainResult:
        """One pass over `images` [B, H, W, 3] uint8 of a size that it accepts. With the bundle's capacities it is what was
        captured; with any other, or `counts`, each decision's number is read back. Without `logits` those stay on the device;
        `labels` are always there.
        Raises DovitError where the images cannot be taken, and where the GPU fails, from then on."""
        self._check(images)
        with self._turn():
            mode = self._mode
            if counts is not None or tuple(capacities) != self.manifest.capacities:
                if self._exact is None:
                    self._exact = ExactMode(self._loaded, Transfers(self._loaded))
                self._exact.counts = counts
                mode = self._exact
            self._write(mode, images, thresholds)
            with self._marking_failures():
                mode.queue()
                return mode.wait(logits=logits)

    def stream(
        self, images: Iterable[np.ndarray], thresholds: Sequence[float], logits: Callable[[], bool] = lambda: False
    ) -> Iterator[ChainResult]:
        """The results of `images`, each [B, H, W, 3] uint8 of a size that it accepts, in their order, with the bundle's
        capacities. `logits` is asked before each result is read whether its logits are wanted. While one is under way, the
        next is uploaded: two sets of memory, taken when this is first called. Other passes wait until the last result was
        taken."""
        with self._turn():
            self._streaming = threading.get_ident()
            waiting: list[Mode] = []
            try:
                if self._second is None:
                    with self._marking_failures():
                        self._second = self._capture(self._load_program())
                modes = (self._mode, self._second)
                for number, batch in enumerate(images):
                    if len(waiting) == 2:
                        yield self._wait(waiting.pop(0), logits=logits())
                        self._resume()
                    mode = modes[number % 2]
                    self._check(batch)
                    self._write(mode, batch, thresholds)
                    with self._marking_failures():
                        mode.queue()
                    waiting.append(mode)
                while waiting:
                    yield self._wait(waiting.pop(0), logits=logits())
                    self._resume()
            finally:
                self._streaming = None
                # the results are dropped, but these passes still read memory that the next one would write
                while waiting and self._failure is None:
                    self._device.make_current()
                    self._wait(waiting.pop(), logits=False)

    def profile(
        self, images: np.ndarray, thresholds: Sequence[float], rounds: int = 20, *, exact: bool = False
    ) -> Profile:
        """How long every operation of this pass takes on the GPU, medians over `rounds`; and the captured pass as a whole,
        unless `exact`, whose kept sets it does not have. Takes some memory when this is first called."""
        self._check(images)
        with self._turn():
            if self._profiler is None:
                self._profiler = Profiler(self._loaded, self._stopwatch)
            self._write(self._mode, images, thresholds)
            with self._marking_failures():
                return self._profiler.measure(self._mode, images, thresholds, rounds, exact=exact)

    def _check(self, images: np.ndarray) -> None:
        if len(images) != self.plans.batch:
            raise DovitError(f"the {self.plans.name} plans take {self.plans.batch} images at a time, not {len(images)}")
        height, width = images.shape[1:3]
        if not self.accepts_size((height, width)):
            raise DovitError(f"an image of {height}×{width}: the GPU resizes images of at most {MAX_ROWS} rows")

    def _load_program(self) -> LoadedProgram:
        return LoadedProgram(self.manifest, self.plans, self.program, *self._parts)

    def _capture(self, program: LoadedProgram) -> Mode:
        program.warm_up()
        transfers = Transfers(program)
        if self._graph and not self._device.can_switch:
            return GraphMode(program, transfers)  # which says what is missing
        obstacles = find_obstacles(program)
        if obstacles and self._graph:
            raise DovitError(f"{obstacles[0]}; use the segmented mode (graph=False)")
        if self._graph or (self._graph is None and not obstacles and self._device.can_switch):
            return GraphMode(program, transfers)
        for obstacle in obstacles:
            how = "is queued operation by operation" if obstacle.invalidates else "becomes a graph of its own"
            LOG.warning("%s: segmented mode instead of one graph; this segment %s", obstacle, how)
        uncapturable = {(o.plan.segment, o.plan.tokens) for o in obstacles if o.invalidates}
        return SegmentedMode(program, transfers, uncapturable)

    def _write(self, mode: Mode, images: np.ndarray, thresholds: Sequence[float]) -> None:
        """Nothing is under way on this mode's memory, so what fails here leaves it as it was."""
        with cuda_errors("the images cannot be taken"):
            mode.write(images, thresholds)

    def _wait(self, mode: Mode, *, logits: bool) -> ChainResult:
        with self._marking_failures():
            return mode.wait(logits=logits)

    def _resume(self) -> None:
        """A stream goes on, perhaps in another thread, or after another device became current in this one."""
        self._streaming = threading.get_ident()
        self._device.make_current()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread at a time, which must not begin a pass within a stream, nor after a failure."""
        if self._streaming == threading.get_ident():  # it would wait for itself
            raise UsageError("a stream of this session is under way: take its results first")
        with self._lock:
            if self._failure is not None:
                raise DovitError(f"the session refuses work after an error ({self._failure}): load the bundle again")
            self._device.make_current()
            yield

    @contextmanager
    def _marking_failures(self) -> Iterator[None]:
        """CUDA errors are sticky; after one, the session refuses work."""
        try:
            with cuda_errors("the GPU failed"):
                yield
        except DovitError as error:
            self._failure = str(error)
            raise DovitError(f"{error}; the session refuses further work: load the bundle again") from None
