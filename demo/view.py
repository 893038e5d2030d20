"""The page's pictures and numbers for one image at given thresholds, independent of Gradio."""

from __future__ import annotations

import hashlib
import html
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dovit.evaluation.cost import Cost
from dovit.evaluation.evaluate import kept_by_window
from dovit.runtime import draw
from dovit.runtime.bundle.manifest import Mode
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.result import Result
from dovit.runtime.session import Session

ENOUGH, MAX_RUNS = 0.3, 5  # seconds and repetitions of timing
MAX_IMAGES = 32  # uploaded ones that a running page remembers, for its links


@dataclass(frozen=True)
class View:
    """The pictures and numbers of one run."""

    overlay: Image.Image
    labels: Image.Image
    keep_maps: list[Image.Image]  # one a decision
    confidence_maps: list[Image.Image]
    legend: str  # HTML
    tokens: list[tuple[str, int]]  # that each block runs on
    macs: list[tuple[str, float]]  # GMACs of each block and the decoder, in the paper's count
    dense_tokens: int
    dense_macs: float
    summary: str  # HTML


class Images:
    """The examples, and the images that were uploaded last, by keys that a link can hold."""

    def __init__(self, examples: list[np.ndarray]) -> None:
        self.examples = examples
        self._uploaded: OrderedDict[str, np.ndarray] = OrderedDict()

    def add(self, image: np.ndarray) -> str:
        """Remember an uploaded image uint8 [H, W, 3]; returns its key."""
        content = hashlib.sha256(str(image.shape).encode() + image.tobytes())
        key = content.hexdigest()[:16]
        self._uploaded[key] = image
        self._uploaded.move_to_end(key)
        while len(self._uploaded) > MAX_IMAGES:
            self._uploaded.popitem(last=False)
        return key

    def get(self, key: str) -> np.ndarray:
        """uint8 [H, W, 3]. Raises UsageError for an unknown key, or one that was forgotten."""
        if key.startswith("example-") and key[8:].isdecimal() and int(key[8:]) < len(self.examples):
            return self.examples[int(key[8:])]
        try:
            return self._uploaded[key]
        except KeyError:
            raise UsageError("the image of this link is gone: drop it again") from None


class Viewer:
    """Runs a session for the page. Thread-safe as sessions are."""

    def __init__(self, session: Session, images: Images, mode: Mode | None = None) -> None:
        self.session, self.images, self.mode = session, images, mode
        self._cost = Cost.of_bundle(session.manifest)

    def view(self, key: str, thresholds: tuple[float, ...]) -> View:
        """Raises DovitError for an image that is gone or cannot be run."""
        image = self.images.get(key)
        result, milliseconds, slowest = self._timed(image, thresholds)
        windows = kept_by_window(result)
        tokens = np.sum([(self._cost.tokens, *kept) for kept in windows], axis=0).tolist()
        macs = np.sum([[paper for paper, _ in self._cost.by_step(kept)] for kept in windows], axis=0)
        dense_macs = self._cost.dense[0] * len(windows)
        blocks = [f"block {number}" for number in range(1, len(tokens) + 1)]
        size = (image.shape[0], image.shape[1])
        keeps, confidences = draw.whole_maps(result, size, self.session.manifest.image_size)
        share = float(macs.sum()) / dense_macs
        return View(
            overlay=result.overlay(image),
            labels=draw.labels_image(result.labels, self.session.palette).convert("RGB"),
            keep_maps=[draw.keep_picture(image, keep) for keep in keeps],
            confidence_maps=[draw.confidence_picture(confidence, size) for confidence in confidences],
            legend=_legend(result),
            tokens=list(zip(blocks, tokens, strict=True)),
            macs=[(name, float(m) / 1e9) for name, m in zip([*blocks, "decoder"], macs, strict=True)],
            dense_tokens=self._cost.tokens * len(windows),
            dense_macs=dense_macs / 1e9,
            summary=(
                f"<b>{milliseconds:.0f} ms</b>, {milliseconds / slowest:.0%} of the {slowest:.0f} ms with all tokens kept · "
                f"<b>{share:.1%} of the dense model's MACs</b> ({macs.sum() / 1e9:.3g} of {dense_macs / 1e9:.3g} GMACs) · "
                f"kept <b>{' / '.join(map(str, tokens[1:])) or 'all'}</b> of {tokens[0]} tokens"
            ),
        )

    def _timed(self, image: np.ndarray, thresholds: tuple[float, ...]) -> tuple[Result, float, float]:
        """The result, its milliseconds, and those with all tokens kept: the shortest of a few runs in turns, within
        ENOUGH seconds."""
        result, fastest = self._run(image, thresholds)
        all_kept, end = math.inf, time.perf_counter() + ENOUGH
        for _ in range(MAX_RUNS):
            all_kept = min(all_kept, self._run(image, (1.0,) * len(thresholds))[1])
            fastest = min(fastest, self._run(image, thresholds)[1])
            if time.perf_counter() > end:
                break
        return result, fastest, all_kept

    def _run(self, image: np.ndarray, thresholds: tuple[float, ...]) -> tuple[Result, float]:
        start = time.perf_counter()
        result = self.session(image, threshold=thresholds, mode=self.mode)
        return result, 1e3 * (time.perf_counter() - start)


def to_query(key: str, thresholds: tuple[float, ...]) -> str:
    """The state of the page as the query of its address."""
    return f"image={key}&xi={','.join(f'{value:.6g}' for value in thresholds)}"


def from_query(query: dict[str, str], viewer: Viewer) -> tuple[str, tuple[float, ...]]:
    """The image's key and the thresholds of an address; the first example and the bundle's ξ where it names none. Raises
    DovitError for what cannot be."""
    own = viewer.session.manifest.thresholds
    text = query.get("xi")
    thresholds = own
    if text is not None:
        try:
            thresholds = viewer.session.check_thresholds([float(part) for part in text.split(",")])
        except (ValueError, DovitError):
            raise UsageError(f"the link's xi={text[:40]}: give {len(own)} numbers from 0 to 1") from None
    key = query.get("image", "example-0")
    viewer.images.get(key)
    return key, thresholds


def _legend(result: Result) -> str:
    """The classes that occur, with their colours and shares."""
    counts = np.bincount(result.labels.ravel())
    items = []
    for number in np.argsort(-counts, kind="stable"):
        if counts[number]:
            name = result.class_names[number] if result.class_names else f"class {number}"
            colour = "#{:02x}{:02x}{:02x}".format(*(result.palette or ())[number])
            square = f"display: inline-block; width: .9em; height: .9em; border: 1px solid #888; background: {colour}"
            share = f"{html.escape(name)} {counts[number] / result.labels.size:.1%}"
            items.append(
                f'<span style="white-space: nowrap; margin-right: 1em"><span style="{square}"></span> {share}</span>'
            )
    return " ".join(items)
