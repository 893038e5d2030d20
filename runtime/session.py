"""A bundle ready to segment images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from dovit.runtime.bundle.manifest import Manifest, Schedule
from dovit.runtime.bundle.open import Bundle, with_bundle
from dovit.runtime.bundle.plans import Precision
from dovit.runtime.chain import Chain, ChainResult, Decided
from dovit.runtime.engine import OnnxRuntimeEngine
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import as_rgb
from dovit.runtime.plans import choose_plans
from dovit.runtime.resize import resize_image
from dovit.runtime.result import Result
from dovit.runtime.slide import segment_slide
from dovit.runtime.whole import segment_whole, with_labels_of

if TYPE_CHECKING:
    from PIL import Image

    from dovit.runtime.gpu.chain import GpuChain

Backend = Literal["auto", "onnxruntime", "tensorrt", "tensorrt-rtx"]
Mode = Literal["whole", "slide"]


def load(
    path: str | Path,
    backend: Backend = "auto",
    *,
    threads: int | None = None,
    low_memory: bool = False,
    precision: Precision | None = None,
    device: int = 0,
    graph: bool | None = None,
) -> Session:
    """Open the bundle in the folder `path` and get it ready to run.

    `auto` takes `onnxruntime` on the CPU: the chain of plans has not been seen on a GPU yet, so name its backend to have it.
    For `onnxruntime`: `threads`, CPU threads, default all, and the first session of a process decides for all; `low_memory`,
    no repacked copy of the weights, which is somewhat slower. For plans: `precision`, default that built last; `device`,
    the GPU's number; `graph`, the whole image as one CUDA graph (CUDA 12.8) or a graph a segment, default what the driver has.
    Raises DovitError where the bundle or the machine does not allow it, UsageError for an unknown backend.
    """
    if backend not in get_args(Backend):
        raise UsageError(f"unknown backend {backend!r}: choose one of {', '.join(get_args(Backend))}")
    return with_bundle(path, lambda bundle: _session(bundle, backend, threads, low_memory, precision, device, graph))


def _session(
    bundle: Bundle, backend: Backend, threads: int | None, low_memory: bool, precision: Precision | None, device: int,
    graph: bool | None,
) -> Session:  # fmt: skip
    manifest = bundle.manifest
    if backend == "tensorrt" or backend == "tensorrt-rtx":
        from dovit.runtime.gpu.open import open_chain

        plans = choose_plans(bundle.root, manifest, backend, precision)
        return Session(manifest, open_chain(bundle, plans, device=device, graph=graph), backend, "bucketed")
    engines = []
    for step in manifest.steps:
        if step.onnx is None:
            there = ", ".join(plans.name for plans in manifest.plans)
            raise DovitError(
                f"{bundle.root}: holds plans only ({there}): choose their backend on a machine with a GPU, or add ONNX Runtime's "
                f"files with dovit-export --ckpt model.pth --out {bundle.root} --backend onnxruntime"
            )
        file = bundle.path(step.onnx)
        engines.append(OnnxRuntimeEngine(step.name, file, threads=threads, prepack=not low_memory))
    return Session(manifest, Chain(manifest, engines), "onnxruntime")


class Session:
    """Segments images of any size. Several threads may call one session at a time."""

    def __init__(self, manifest: Manifest, chain: Chain | GpuChain, backend: str, schedule: Schedule = "exact") -> None:
        """`schedule`: the one that passes have which name none."""
        self.manifest = manifest
        self.chain = chain
        self.backend = backend
        self.schedule = schedule

    def __call__(
        self,
        image: np.ndarray | Image.Image,
        *,
        mode: Mode = "whole",
        threshold: float | Sequence[float] | None = None,
        schedule: Schedule | None = None,
        counts: Sequence[int] | None = None,
        return_logits: bool = False,
    ) -> Result:
        """Segment one RGB image, uint8 [H, W, 3], or anything Pillow has opened.

        `whole` resizes it to the bundle's size, `slide` moves a window of that size over it, as mmsegmentation does.
        `threshold`: ξ for all decisions or one each, within [0, 1]; default the bundle's. `schedule`: default exact on a CPU,
        bucketed on a GPU. `counts` keeps so many tokens
        after each decision instead, the least confident ones: a fixed ratio, to compare token pass with. Raises
        UsageError for an unsuitable argument, DovitError where the backend fails.
        """
        pixels = as_rgb(image)
        xi = self.check_thresholds(threshold)
        capacities = self.capacities(schedule or self.schedule)
        takes = self.chain.takes((pixels.shape[0], pixels.shape[1]))
        needs_logits = return_logits or mode == "slide" or not takes
        fixed = None if counts is None else self.check_counts(counts)

        def core(window: np.ndarray) -> Result:
            with _out_of_memory():
                return self._result(self.chain.run(window[None], xi, capacities, counts=fixed, logits=needs_logits))

        if mode == "whole":
            result = core(pixels) if takes else segment_whole(pixels, self.manifest.image_size, core)
        elif mode == "slide":
            result = segment_slide(pixels, self.manifest.image_size, self.manifest.slide_stride, core)
        else:
            raise UsageError(f"unknown mode {mode!r}: choose whole or slide")
        return result if return_logits else result.without_logits()

    def stream(
        self,
        images: Iterable[np.ndarray | Image.Image],
        *,
        mode: Mode = "whole",
        threshold: float | Sequence[float] | None = None,
        schedule: Schedule | None = None,
        return_logits: bool = False,
    ) -> Iterator[Result]:
        """The results of `images`, in their order: `session(image, …)` of each.

        On a GPU, in `whole` mode and bucketed, the next image is uploaded and queued while one is under way, and the session
        does nothing else until the last result was taken. Images are taken from the iterator as they are needed. Raises
        UsageError as a call does, for an image up to two results before its own.
        """
        xi, chosen = self.check_thresholds(threshold), schedule or self.schedule
        if mode == "whole" and self.capacities(chosen) == self.manifest.capacities:
            return self._overlapping(images, xi, return_logits)
        return (self(one, mode=mode, threshold=xi, schedule=chosen, return_logits=return_logits) for one in images)

    def _overlapping(
        self, images: Iterable[np.ndarray | Image.Image], thresholds: Sequence[float], return_logits: bool
    ) -> Iterator[Result]:
        sizes = deque[tuple[int, int]]()  # of the images under way

        def batches() -> Iterator[np.ndarray]:
            for image in images:
                pixels = as_rgb(image)
                sizes.append((pixels.shape[0], pixels.shape[1]))
                yield (pixels if self.chain.takes(sizes[-1]) else resize_image(pixels, self.manifest.image_size))[None]

        with _out_of_memory():
            for made in self.chain.stream(
                batches(), thresholds, lambda: return_logits or not self.chain.takes(sizes[0])
            ):
                result, size = self._result(made), sizes.popleft()
                if not self.chain.takes(size):
                    result = with_labels_of(result, size)
                yield result if return_logits else result.without_logits()

    def check_thresholds(self, threshold: float | Sequence[float] | None) -> tuple[float, ...]:
        """One ξ a decision, the bundle's own where None is given; UsageError where they cannot be."""
        count = len(self.manifest.decisions)
        if threshold is None:
            return self.manifest.thresholds
        given = [float(threshold)] if isinstance(threshold, int | float) else [float(t) for t in threshold]
        if len(given) == 1:
            given *= count
        if len(given) != count:
            raise UsageError(f"{len(given)} thresholds for {count} decisions: give one for all, or one each")
        for value in given:
            if not 0 <= value <= 1:
                raise UsageError(f"threshold {value} lies outside [0, 1]; 1 stops no token")
        return tuple(given)

    def check_counts(self, counts: Sequence[int]) -> tuple[int, ...]:
        """Tokens to keep after each decision; UsageError where they cannot be."""
        limits = [self.manifest.tokens, *counts]
        decisions = len(self.manifest.decisions)
        if len(counts) != decisions or any(not 0 <= k <= most for k, most in zip(counts, limits, strict=False)):
            raise UsageError(
                f"counts {', '.join(map(str, counts))}: give {decisions} falling numbers of tokens, from {limits[0]} to 0"
            )
        return tuple(counts)

    def capacities(self, schedule: Schedule) -> Sequence[int]:
        """The kept counts that a schedule allows."""
        if schedule == "exact":
            return range(self.manifest.tokens + 1)
        if schedule == "bucketed":
            return self.manifest.capacities
        raise UsageError(f"unknown schedule {schedule!r}: choose {' or '.join(get_args(Schedule))}")

    def _result(self, made: ChainResult) -> Result:
        shape = (len(self.manifest.decisions), *self.manifest.grid)
        keep_maps, confidence_maps = decision_maps(made.decisions, self.manifest.tokens, len(self.manifest.decisions))
        kept = tuple(d.keep.shape[1] for d in made.decisions)
        return Result(
            labels=made.labels[0],
            kept=kept + (0,) * (shape[0] - len(kept)),
            tokens=self.manifest.tokens,
            keep_maps=keep_maps.reshape(shape),
            confidence_maps=confidence_maps.reshape(shape),
            logits=made.logits[0] if made.logits.size else None,
        )


def decision_maps(
    decisions: Sequence[Decided], tokens: int, count: int, image: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Per decision [count, N]: which positions stay (bool), and the confidence (float32, NaN where already stopped)."""
    keep_maps = np.zeros((count, tokens), bool)
    confidence_maps = np.full((count, tokens), np.nan, np.float32)
    for number, decision in enumerate(decisions):
        index = decision.index[image]
        confidence_maps[number, index] = decision.confidence[image]
        keep_maps[number, index[decision.keep[image]]] = True
    return keep_maps, confidence_maps


@contextmanager
def _out_of_memory() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise DovitError("not enough memory for this image: use a smaller one, or mode slide") from None
