"""Sessions: a loaded bundle that segments images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from PIL import Image

from dovit.runtime.arguments import check_counts, check_keep, check_thresholds, is_one_of, shown
from dovit.runtime.arrays import Format, Layout, check_layout
from dovit.runtime.bundle.manifest import ROUNDED_TO, Manifest, Mode, Schedule
from dovit.runtime.chain import Chain, ChainResult, decision_maps
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import ImageLike, as_rgb
from dovit.runtime.palettes import Colour, default_palette
from dovit.runtime.providers import ChosenProvider
from dovit.runtime.result import Result
from dovit.runtime.slide import segment_slide
from dovit.runtime.whole import FittedImage, fit_image

if TYPE_CHECKING:
    from dovit.runtime.gpu.chain import GpuChain

LabelSize = Literal["image", "model"]


class Session:
    """Segments images of any size. Thread-safe.

    A context manager, which closes the session.
    """

    def __init__(
        self,
        manifest: Manifest,
        chain: Chain | GpuChain,
        backend: str,
        schedule: Schedule = "exact",
        *,
        provider: ChosenProvider | None = None,
        precision: str | None = None,
    ) -> None:
        """`schedule`: the default of calls. `provider` and `precision`: what runs the steps on a CPU; None with plans."""
        self.manifest = manifest
        self.backend = backend
        self.provider = provider.name if provider else None
        # why `auto` took it where it could take either; else None
        self.provider_reason = provider.why if provider and provider.automatic else None
        self.precision = precision
        self.schedule = schedule
        self._chain: Chain | GpuChain | None = chain

    @property
    def chain(self) -> Chain | GpuChain:
        """The chain that runs the steps. Raises UsageError after `close()`."""
        if self._chain is None:
            raise UsageError("this session is closed: load the bundle again")
        return self._chain

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of all classes; None where the bundle has none."""
        return self.manifest.class_names

    @cached_property
    def palette(self) -> tuple[Colour, ...]:
        """Red, green and blue of all classes, 0…255: the bundle's, or generated ones."""
        return self.manifest.palette or default_palette(self.manifest.classes)

    def close(self) -> None:
        """Free the model's memory once calls running in other threads have ended. Later calls raise UsageError."""
        self._chain = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        manifest = self.manifest
        height, width = manifest.image_size
        provider = f" by {self.provider} in {self.precision}" if self.provider == "openvino" else ""
        closed = ", closed" if self._chain is None else ""
        return (
            f"Session({manifest.architecture}, {height}×{width}, {manifest.classes} classes, {manifest.tokens} tokens, "
            f"{len(manifest.decisions)} decisions, {self.backend}{provider}{closed})"
        )

    def __call__(
        self,
        image: ImageLike,
        *,
        mode: Mode | None = None,
        keep_ratio: bool | None = None,
        threshold: float | Sequence[float] | np.ndarray | None = None,
        schedule: Schedule | None = None,
        counts: Sequence[int] | np.ndarray | None = None,
        keep: Sequence[float] | np.ndarray | None = None,
        format: Format = "rgb",
        layout: Layout = "hwc",
        labels: LabelSize = "image",
        return_logits: bool = False,
    ) -> Result:
        """Segment one image.

        `image`: a path; a Pillow image; an array or torch tensor, uint8, or float within 0…1. `format`: an array's
        channels, `rgb`, `rgba`, `bgr` (as OpenCV reads them), `bgra`, or `gray`, whose array may be [H, W]; alpha is
        dropped. `layout`: `hwc` for [H, W, C], `chw` for [C, H, W].

        `mode`, default the bundle's: `whole` resizes the image to the bundle's size, `slide` moves a window of that size
        over it. `keep_ratio`, default the bundle's: in mode `whole` the image is scaled until it fits inside, and padded
        with the mean colour at the bottom and right, where otherwise it is stretched.

        In mmsegmentation, `keep_ratio` is `Resize(scale=(width, height), keep_ratio=True)` of the bundle's size for an
        image that is not wider or taller than that afterwards, then SegDataPreProcessor's padding by `pad_val=0` after
        normalisation: a pixel of the mean colour, to the nearest whole number, is 0 up to half a grey level. As there,
        logits are resized to the padded size, cut, and resized to the image's. Not as there: Pillow averages where it
        shrinks an image, OpenCV does not; the size of the model's input is fixed, so an upright image is scaled further
        down than there. Stretched images get their logits resized once, straight to the image's size. `slide` is
        mmsegmentation's `slide_inference`, but an image smaller than the window is enlarged in proportion until the window
        fits, and labels are shrunk again; mmsegmentation runs its model at the smaller size with resized positions.

        `threshold`: ξ for all decisions or one each, within [0, 1]; default the bundle's. `schedule`: default on a CPU
        exact in fp32 and rounded (to a multiple of 16 tokens) in bf16, on a GPU bucketed. Instead of ξ, `counts` keeps so many
        tokens after each decision, or `keep` such shares of all tokens, falling, the least confident ones: a fixed ratio,
        to compare token pass with.

        `labels`: at the size of the `image`, or as the `model` makes them: at the bundle's size (the part that is no
        padding), in mode slide at the size that the windows lie in. `return_logits`: see `Result`.

        Raises UsageError for an unsuitable argument, and in mode slide for an image that needs more windows, pixels or
        logits than its limits; DovitError where a file cannot be read or the backend fails.
        """
        request = self._request(mode, keep_ratio, threshold, schedule, counts, keep, labels, return_logits)
        return self._segment(as_rgb(image, format, layout), request)

    def batch(self, images: Iterable[ImageLike], **settings: Any) -> list[Result]:
        """The results of several images, of any sizes, as `[session(image, …) for image in images]`; `settings` as there.

        Images are run one after the other, each with its own kept tokens: what an image gets does not depend on others.
        """
        return list(self.stream(images, **settings))

    def stream(
        self,
        images: Iterable[ImageLike],
        *,
        mode: Mode | None = None,
        keep_ratio: bool | None = None,
        threshold: float | Sequence[float] | np.ndarray | None = None,
        schedule: Schedule | None = None,
        counts: Sequence[int] | np.ndarray | None = None,
        keep: Sequence[float] | np.ndarray | None = None,
        format: Format = "rgb",
        layout: Layout = "hwc",
        labels: LabelSize = "image",
        return_logits: bool = False,
    ) -> Iterator[Result]:
        """The results of `images`, in their order: `session(image, …)` of each.

        On a GPU, in `whole` mode and bucketed, the next image is uploaded and queued while one is under way, and the session
        does nothing else until the last result was taken. Images are taken from the iterator as they are needed. Raises
        UsageError as a call does, for an image up to two results before its own.
        """
        if isinstance(images, str | bytes | Path | Image.Image) or not isinstance(images, Iterable):
            raise UsageError("several images are a list or another iterable of them; for one, call session(image)")
        check_layout(format, layout)
        request = self._request(mode, keep_ratio, threshold, schedule, counts, keep, labels, return_logits)
        pixels = (as_rgb(image, format, layout) for image in images)
        if request.mode == "whole" and request.counts is None and request.capacities == self.manifest.capacities:
            return self._overlapping(pixels, request)
        return (self._segment(one, request) for one in pixels)

    def _request(
        self,
        mode: Mode | None,
        keep_ratio: bool | None,
        threshold: float | Sequence[float] | np.ndarray | None,
        schedule: Schedule | None,
        counts: Sequence[int] | np.ndarray | None,
        keep: Sequence[float] | np.ndarray | None,
        labels: LabelSize,
        return_logits: bool,
    ) -> _Request:
        """The arguments of a call, checked."""
        chosen = self.manifest.mode if mode is None else mode
        if not is_one_of(chosen, get_args(Mode)):
            raise UsageError(f"unknown mode {shown(chosen)}: choose {' or '.join(get_args(Mode))}")
        if not is_one_of(labels, get_args(LabelSize)):
            raise UsageError(f"labels={shown(labels)}: choose {' or '.join(get_args(LabelSize))}, whose size they get")
        for name, flag in (("keep_ratio", keep_ratio), ("return_logits", return_logits)):
            if flag is not None and not isinstance(flag, bool | int | np.bool_):
                raise UsageError(f"{name}={shown(flag)}: give True or False")
        if keep_ratio and chosen == "slide":
            raise UsageError(
                'keep_ratio is for mode="whole": slide runs windows of the image and stretches none of them'
            )
        given = [
            name for name, value in (("threshold", threshold), ("counts", counts), ("keep", keep)) if value is not None
        ]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} both say which tokens stay: give one of them")
        if counts is not None:
            counts = check_counts(self.manifest, counts)
        elif keep is not None:
            counts = check_keep(self.manifest, keep)
        return _Request(
            mode=chosen,
            keep_ratio=self.manifest.keep_ratio if keep_ratio is None else bool(keep_ratio),
            thresholds=self.check_thresholds(threshold),
            capacities=self.capacities(self.schedule if schedule is None else schedule),
            counts=counts,
            own_size=labels == "image",
            logits=bool(return_logits),
        )

    def _segment(self, pixels: np.ndarray, request: _Request) -> Result:
        chain = self.chain

        def core(window: np.ndarray, logits: bool, labels: bool = True) -> Result:
            xi, allowed, counts = request.thresholds, request.capacities, request.counts
            made = chain.run(window[None], xi, allowed, counts=counts, logits=logits, labels=labels)
            return self._result(made)

        with _out_of_memory():
            if request.mode == "slide":
                manifest = self.manifest
                found = segment_slide(
                    pixels,
                    manifest.image_size,
                    manifest.slide_stride,
                    lambda window: core(window, True, labels=False),
                    keep_logits=request.logits,
                    own_size=request.own_size,
                )
                return replace(found, class_names=self.class_names, palette=self.palette)
            fitted = self._fit(chain, pixels, request)
            if fitted is None:
                return request.finished(core(pixels, request.logits))
            from_logits = request.own_size and fitted.needs_logits
            result = core(fitted.pixels, request.logits or from_logits, labels=not from_logits)
            return request.finished(fitted.labelled(result, own_size=request.own_size))

    def _fit(self, chain: Chain | GpuChain, pixels: np.ndarray, request: _Request) -> FittedImage | None:
        """The image at the bundle's size; None where the chain resizes it."""
        manifest = self.manifest
        size = (pixels.shape[0], pixels.shape[1])
        if size == manifest.image_size or (request.own_size and not request.keep_ratio and chain.accepts_size(size)):
            return None
        return fit_image(pixels, manifest.image_size, keep_ratio=request.keep_ratio, fill=manifest.mean)

    def _overlapping(self, images: Iterator[np.ndarray], request: _Request) -> Iterator[Result]:
        chain = self.chain
        under_way = deque[FittedImage | None]()

        def batches() -> Iterator[np.ndarray]:
            for pixels in images:
                under_way.append(self._fit(chain, pixels, request))
                fitted = under_way[-1]
                yield (pixels if fitted is None else fitted.pixels)[None]

        def logits_needed() -> bool:
            fitted = under_way[0]
            return request.logits or (fitted is not None and request.own_size and fitted.needs_logits)

        with _out_of_memory():
            for made in chain.stream(batches(), request.thresholds, logits_needed):
                result, fitted = self._result(made), under_way.popleft()
                if fitted is not None:
                    result = fitted.labelled(result, own_size=request.own_size)
                yield request.finished(result)

    def check_thresholds(self, threshold: float | Sequence[float] | np.ndarray | None) -> tuple[float, ...]:
        """One ξ a decision, the bundle's own where None is given; UsageError where they cannot be."""
        return check_thresholds(self.manifest, threshold)

    def capacities(self, schedule: Schedule) -> Sequence[int]:
        """The kept counts that a schedule allows."""
        if not is_one_of(schedule, get_args(Schedule)):
            raise UsageError(f"unknown schedule {shown(schedule)}: choose one of {', '.join(get_args(Schedule))}")
        if schedule == "exact":
            return range(self.manifest.tokens + 1)
        if schedule == "rounded":
            if self.backend != "onnxruntime":
                raise UsageError("schedule rounded is for a CPU: choose exact or bucketed for plans")
            return [*range(0, self.manifest.tokens, ROUNDED_TO), self.manifest.tokens]
        return self.manifest.capacities

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
            class_names=self.class_names,
            palette=self.palette,
        )


@dataclass(frozen=True)
class _Request:
    """The checked arguments of a call, with the bundle's defaults filled in."""

    mode: Mode
    keep_ratio: bool
    thresholds: tuple[float, ...]
    capacities: Sequence[int]
    counts: Sequence[int] | None
    own_size: bool
    logits: bool

    def finished(self, result: Result) -> Result:
        """`result` without logits if the caller did not ask for them."""
        return result if self.logits else result.without_logits()


@contextmanager
def _out_of_memory() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise DovitError("not enough memory for this image: use a smaller one, or mode slide") from None
