"""An endless, resumable stream of batches: the content of a batch depends on the seed and its number only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dovit.evaluation.data.dataset import Dataset, Sample
from dovit.runtime.errors import UsageError

Batch = tuple[np.ndarray, np.ndarray]  # images uint8 [B, H, W, 3], labels uint8 [B, H, W]
Augment = Callable[[Sample, np.random.Generator], Sample]


def batches(
    dataset: Dataset,
    augmentation: Augment | None,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 4,
) -> Generator[Batch, None, None]:
    """The batches of process `rank` of `world`, from step `start_step` on, without end.

    The steps of all processes go through the data set in turns, each turn (epoch) in an order of its own; a batch may
    have the end of one and the beginning of the next. `workers` threads read and augment ahead (0: none, all is done
    when a batch is asked for). Threads and not processes: Pillow and numpy let others run while they work.

    What reading a sample raises is raised where its batch would have been. Close the generator to stop the threads.
    Raises UsageError for numbers that make no sense, and where the images of one batch differ in size.
    """
    if not len(dataset):
        raise UsageError("the data set has no images; name one that has some")
    if batch_size < 1 or workers < 0 or seed < 0 or start_step < 0 or not 0 <= rank < world:
        raise UsageError(
            f"batch size {batch_size}, workers {workers}, seed {seed}, step {start_step}, process {rank} of {world}: "
            "the batch size is at least 1, the others at least 0, and processes count from 0"
        )
    plan = _Plan(dataset, augmentation, seed, batch_size, rank, world)
    return _prefetching(plan, start_step, workers) if workers else _without_threads(plan, start_step)


@dataclass(frozen=True)
class _Plan:
    dataset: Dataset
    augmentation: Augment | None
    seed: int
    batch_size: int
    rank: int
    world: int

    def places(self, step: int) -> range:
        """Which of the endless sequence of samples make the batch of `step`."""
        first = (step * self.world + self.rank) * self.batch_size
        return range(first, first + self.batch_size)

    def sample(self, place: int) -> Sample:
        epoch, position = divmod(place, len(self.dataset))
        sample = self.dataset[int(_order(self.seed, epoch, len(self.dataset))[position])]
        if self.augmentation is None:
            return sample
        return self.augmentation(sample, np.random.default_rng((self.seed, epoch, position + 1)))


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    # (…, 0), as numpy takes (seed, epoch) and (seed, epoch, 0) for the same: the samples' own begin at 1
    return np.random.default_rng((seed, epoch, 0)).permutation(count)


def _without_threads(plan: _Plan, step: int) -> Generator[Batch, None, None]:
    while True:
        yield _stack([plan.sample(place) for place in plan.places(step)])
        step += 1


def _prefetching(plan: _Plan, step: int, workers: int) -> Generator[Batch, None, None]:
    waiting = 1 + -(
        -2 * workers // plan.batch_size
    )  # the batch asked for, and enough after it to keep all threads busy
    pool = ThreadPoolExecutor(workers, thread_name_prefix="dovit-data")
    under_way: deque[list[Future[Sample]]] = deque()
    try:
        while True:
            while len(under_way) < waiting:
                under_way.append([pool.submit(plan.sample, place) for place in plan.places(step)])
                step += 1
            yield _stack([future.result() for future in under_way.popleft()])
    finally:  # waits only for the samples that are being read at this moment
        pool.shutdown(wait=True, cancel_futures=True)


def _stack(samples: list[Sample]) -> Batch:
    first = samples[0]
    for sample in samples:
        if sample.image.shape != first.image.shape:
            sizes = " and ".join("{}×{}".format(*s.image.shape[1::-1]) for s in (first, sample))
            raise UsageError(
                f"{first.name} and {sample.name}: {sizes} pixels in one batch; crop, or batch one at a time"
            )
    return np.stack([sample.image for sample in samples]), np.stack([sample.labels for sample in samples])
