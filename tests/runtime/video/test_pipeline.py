"""Decoding, inference and encoding at the same time: their order, and what fails in one."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from dovit.runtime.errors import DovitError
from dovit.runtime.result import Result
from dovit.runtime.video.pipeline import Seconds, run_pipeline
from dovit.runtime.video.read import Frame


def staged(stage: float, ahead: int, count: int = 10, broken: int = -1) -> tuple[list[int], list[int], Seconds]:
    """A pipeline whose stages only wait."""
    written: list[int] = []
    seconds = Seconds()

    def frames() -> Iterator[Frame]:
        for number in range(count):
            time.sleep(stage)
            if number == broken:
                raise DovitError("broken")
            yield Frame(np.full((1, 1, 3), number, np.uint8), number, number / 25)

    def segment(pixels: Iterator[np.ndarray]) -> Iterator[Result]:
        for one in pixels:
            time.sleep(stage)
            yield Result(one[..., 0], (), 1, np.zeros((0, 1, 1), bool), np.zeros((0, 1, 1), np.float32))

    def write(number: int, frame: Frame, result: Result) -> None:
        time.sleep(stage)
        assert frame.pts == number == result.labels[0, 0]
        written.append(number)

    try:
        seen = [number for number, _, _ in run_pipeline(frames(), segment, write, seconds, ahead)]
    except DovitError:
        seen = []
    return seen, written, seconds


def test_stages_overlap_and_keep_their_order() -> None:
    start = time.perf_counter()
    seen, written, seconds = staged(0.03, 4)
    together = time.perf_counter() - start
    assert seen == written == list(range(10))
    assert together < 0.75 * (seconds.decoding + seconds.inference + seconds.encoding)
    start = time.perf_counter()
    assert staged(0.03, 0)[1] == list(range(10))
    assert time.perf_counter() - start > 0.9  # three stages of 10 × 0.03 s, one after the other


def test_what_fails_in_the_last_frames_is_raised_when_the_rest_is_not_wanted() -> None:
    def fail(*_: object) -> None:
        time.sleep(0.02)
        raise OSError(errno.ENOSPC, "No space left on device")

    frames = (Frame(np.zeros((1, 1, 3), np.uint8), number, number / 25) for number in range(10))
    results = (Result(np.zeros((1, 1)), (), 1, np.zeros((0, 1, 1)), np.zeros((0, 1, 1))) for _ in range(10))
    steps = run_pipeline(frames, lambda pixels: (next(results) for _ in pixels), fail, Seconds())
    with pytest.raises(OSError, match="No space left"), closing(steps):  # type: ignore[type-var]
        next(steps)


def test_what_came_before_a_failure_is_written() -> None:
    assert staged(0.0, 4, broken=6)[1] == list(range(6))
