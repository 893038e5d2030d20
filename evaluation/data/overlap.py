"""Whether two data sets have images in common."""

from __future__ import annotations

from dovit.evaluation.data.dataset import Dataset
from dovit.evaluation.data.pairs import Pairs
from dovit.evaluation.data.streets import Streets
from dovit.runtime.files import real_path


def count_shared(one: Dataset, other: Dataset) -> int:
    """How many images of `other` are in `one` as well, by file or by scene; no image is read."""
    return len(_images(one) & _images(other))


def _images(dataset: Dataset) -> set[str]:
    if isinstance(dataset, Pairs):
        return {str(real_path(pair.image)) for pair in dataset.pairs}
    if isinstance(dataset, Streets):
        return {f"scene {dataset.first + number}" for number in range(dataset.count)}
    return set()
