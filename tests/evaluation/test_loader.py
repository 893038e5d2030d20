"""Batches: an endless sequence, the same from any step on, with any number of threads and processes."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dovit.evaluation.data.augment import Augmentation
from dovit.evaluation.data.dataset import Sample
from dovit.evaluation.data.loader import batches
from dovit.evaluation.data.open import open_data
from dovit.runtime.errors import DovitError, UsageError


class Numbers:
    """Sample k: an image and labels full of k; `broken` cannot be read."""

    class_names = palette = classes = None

    def __init__(self, count: int, broken: int | None = None, size: tuple[int, int] = (4, 6)) -> None:
        self.count, self.broken, self.size = count, broken, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Sample:
        if number == self.broken:
            raise DovitError(f"{number}: broken")
        return Sample(str(number), np.full((*self.size, 3), number, np.uint8), np.full(self.size, number, np.uint8))


def take(iterator, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    taken = [next(iterator) for _ in range(count)]
    iterator.close()
    return taken


def numbers(taken: list[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    return [int(n) for _, labels in taken for n in labels[:, 0, 0]]


def assert_equal(one: list, other: list) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


AUGMENTATION = Augmentation((32, 48))


@pytest.fixture
def pictures(tmp_path: Path):
    for part, values, shape in (("images", 256, (40, 56, 3)), ("labels", 4, (40, 56))):
        (tmp_path / part).mkdir()
        for k in range(5):
            pixels = np.random.default_rng(k).integers(0, values, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / f"{k}.png")
    return open_data(str(tmp_path), "train", classes=4)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_step_can_be_resumed_from_with_any_number_of_workers(pictures, workers: int) -> None:
    whole = take(batches(pictures, AUGMENTATION, 2, seed=3, workers=0), 12)
    assert whole[0][0].shape == (2, 32, 48, 3)
    assert whole[0][1].shape == (2, 32, 48)
    assert {array.dtype for batch in whole for array in batch} == {np.dtype(np.uint8)}
    for start in (0, 1, 7):
        resumed = take(batches(pictures, AUGMENTATION, 2, seed=3, start_step=start, workers=workers), 12 - start)
        assert_equal(resumed, whole[start:])


def test_another_seed_and_another_epoch_differ(pictures) -> None:
    first = take(batches(pictures, AUGMENTATION, 5, seed=0, workers=0), 2)
    second = take(batches(pictures, AUGMENTATION, 5, seed=1, workers=0), 1)
    assert not np.array_equal(first[0][0], second[0][0])
    assert not np.array_equal(first[0][0], first[1][0])


def test_each_epoch_has_every_sample_once_in_its_own_order() -> None:
    seen = np.array(numbers(take(batches(Numbers(20), None, 5, seed=0, workers=2), 12))).reshape(3, 20)
    assert (np.sort(seen, axis=1) == np.arange(20)).all()
    assert len({tuple(order) for order in seen.tolist()}) == 3


def test_ranks_are_disjoint_and_together_the_whole() -> None:
    world = [numbers(take(batches(Numbers(24), None, 4, seed=5, rank=r, world=3, workers=r), 2)) for r in range(3)]
    assert sorted(n for rank in world for n in rank) == list(range(24))
    alone = numbers(take(batches(Numbers(24), None, 12, seed=5), 2))
    assert alone == [n for step in range(2) for rank in world for n in rank[4 * step : 4 * step + 4]]


def test_fewer_samples_than_a_batch() -> None:
    assert sorted(numbers(take(batches(Numbers(3), None, 9, seed=0), 1))) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("workers", [0, 3])
def test_what_a_worker_raises_comes_where_its_batch_would(workers: int) -> None:
    before = numbers(take(batches(Numbers(20), None, 2, seed=0, workers=0), 10)).index(7) // 2
    iterator = batches(Numbers(20, broken=7), None, 2, seed=0, workers=workers)
    for _ in range(before):
        next(iterator)
    with pytest.raises(DovitError, match=r"^7: broken$"):
        next(iterator)
    assert not data_threads()


def data_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dovit-data")]


def test_closing_stops_the_threads() -> None:
    iterator = batches(Numbers(20), None, 2, seed=0, workers=3)
    next(iterator)
    assert data_threads()
    iterator.close()
    assert not data_threads()


def test_only_a_few_batches_are_prepared_ahead() -> None:
    asked: list[int] = []

    class Counted(Numbers):
        def __getitem__(self, number: int) -> Sample:
            asked.append(number)
            return super().__getitem__(number)

    iterator = batches(Counted(100), None, 2, seed=0, workers=2)
    for _ in range(3):
        next(iterator)
    iterator.close()
    assert len(asked) <= 2 * (3 + 2)


def test_invalid_arguments_of_batches_are_refused() -> None:
    with pytest.raises(UsageError, match="the data set has no images"):
        batches(Numbers(0), None, 2, seed=0)
    for wrong in ({"batch_size": 0}, {"seed": -1}, {"start_step": -1}, {"rank": 2, "world": 2}, {"workers": -1}):
        with pytest.raises(UsageError, match="the batch size is at least 1"):
            batches(Numbers(4), None, **{"batch_size": 2, "seed": 0, **wrong})

    class Growing(Numbers):
        def __getitem__(self, number: int) -> Sample:
            return Numbers(4, size=(4, 6 + number))[number]

    with pytest.raises(UsageError, match=r"pixels in one batch; crop"):
        next(batches(Growing(4), None, 4, seed=0))
