"""Runs decoding, inference and encoding of a video at the same time, each in a thread of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from dovit.runtime.result import Result
from dovit.runtime.video.read import Frame

AHEAD = 4  # frames that are decoded before they are needed, and that wait to be encoded


@dataclass
class Seconds:
    """How long each stage worked, waiting left out. The sum is larger than the time that passed where they overlap."""

    decoding: float = 0.0
    inference: float = 0.0
    encoding: float = 0.0


def run_pipeline(
    frames: Iterator[Frame],
    segment: Callable[[Iterable[np.ndarray]], Iterable[Result]],
    write: Callable[[int, Frame, Result], None],
    seconds: Seconds,
    ahead: int = AHEAD,
) -> Iterator[tuple[int, Frame, Result]]:
    """The number, frame and result of each frame, in order, after it was handed to `write`, which may still be running; all
    have been written when the iterator ends or is closed. What a stage raises is raised here, after what came before it was
    written. With `ahead` 0, one stage runs at a time."""
    under_way: deque[Frame] = deque()
    waiting_for_frames = [0.0]

    def decode() -> Frame | None:
        start = time.perf_counter()
        frame = next(frames, None)
        seconds.decoding += time.perf_counter() - start
        return frame

    def encode(number: int, frame: Frame, result: Result) -> None:
        start = time.perf_counter()
        write(number, frame, result)
        seconds.encoding += time.perf_counter() - start

    with ThreadPoolExecutor(1, "decode") as decoder, ThreadPoolExecutor(1, "encode") as encoder:
        decoded = deque(decoder.submit(decode) for _ in range(ahead))
        encoded: deque[Future[None]] = deque()

        def pixels() -> Iterator[np.ndarray]:
            while True:
                start = time.perf_counter()
                frame = (decoded.popleft() if ahead else decoder.submit(decode)).result()
                waiting_for_frames[0] += time.perf_counter() - start
                if frame is None:
                    return
                if ahead:
                    decoded.append(decoder.submit(decode))
                under_way.append(frame)
                yield frame.pixels

        try:
            results = iter(segment(pixels()))
            number = 0
            while True:
                start, waited = time.perf_counter(), waiting_for_frames[0]
                result = next(results, None)
                seconds.inference += time.perf_counter() - start - (waiting_for_frames[0] - waited)
                if result is None:
                    break
                frame = under_way.popleft()
                encoded.append(encoder.submit(encode, number, frame, result))
                while len(encoded) > ahead:
                    encoded.popleft().result()
                yield number, frame, result
                number += 1
        except GeneratorExit:
            pass  # closed before the end: errors in writing the frames until here are raised below all the same
        finally:
            decoder.shutdown(wait=False, cancel_futures=True)
            encoder.shutdown()  # what was segmented is written
        for one in encoded:
            one.result()
