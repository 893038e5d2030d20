import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from dovit.runtime.resize import BAND_BYTES, argmax_labels, labels_from_logits, resize_bilinear, resize_image, taps

SIZES = [
    ((8, 8), (32, 32)),
    ((7, 9), (31, 64)),
    ((64, 80), (17, 23)),
    ((97, 33), (1531, 211)),
    ((1, 1), (5, 7)),
    ((5, 7), (1, 1)),
    ((1, 6), (3, 2)),
    ((40, 10), (11, 45)),
    ((6, 6), (6, 13)),
]


def logits(classes: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((classes, *size)).astype(np.float32)


def by_torch(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return interpolate(torch.from_numpy(x)[None], size=size, mode="bilinear", align_corners=False)[0].numpy()


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_bilinear_is_torchs(source: tuple[int, int], target: tuple[int, int]) -> None:
    x = logits(4, source)
    resized = resize_bilinear(x, target)
    assert resized.dtype == np.float32
    assert np.abs(resized - by_torch(x, target)).max() <= 1e-5 * np.abs(x).max()


@pytest.mark.parametrize(("source", "target"), [(7, 31), (31, 7), (1, 9), (9, 1), (4097, 8191)])
def test_weights_are_within_0_and_1_and_sum_to_1(source: int, target: int) -> None:
    made = taps(source, target)
    assert made.low.shape == (target,) and (np.diff(made.low) >= 0).all() and made.high.max() < source
    assert min(made.low_weight.min(), made.high_weight.min()) >= 0
    np.testing.assert_allclose(made.low_weight + made.high_weight, 1, rtol=1e-6)


def test_equal_size_is_left_alone() -> None:
    x = logits(3, (5, 6))
    assert resize_bilinear(x, (5, 6)) is x


@pytest.mark.parametrize(("source", "target"), [*SIZES, ((9, 11), (9, 11)), ((9, 5), (9, 11))])
@pytest.mark.parametrize("band", [1, 4000, BAND_BYTES])
def test_labels_are_the_argmax_of_upsampled_logits(
    source: tuple[int, int], target: tuple[int, int], band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dovit.runtime.resize.BAND_BYTES", band)  # bands of one row, of a few, of all
    x = logits(19, source)
    labels, upsampled = labels_from_logits(x, target), by_torch(x, target)
    assert labels.shape == target and labels.dtype == np.uint8
    # where two classes are nearly equal either may win: the winner's logit is what must be the largest
    won = np.take_along_axis(upsampled, labels[None].astype(np.int64), axis=0)[0]
    assert (upsampled.max(axis=0) - won).max() <= 4e-5
    assert (labels == upsampled.argmax(axis=0)).mean() > 0.999


def test_many_classes_need_int16_and_ties_go_to_the_lowest() -> None:
    x = np.zeros((300, 2, 2), np.float32)
    x[[257, 299], 0, 0] = 1
    labels = labels_from_logits(x, (2, 2))
    assert labels.dtype == np.int16
    assert labels.tolist() == [[257, 0], [0, 0]]
    assert labels_from_logits(x[:256], (2, 2)).dtype == np.uint8


def smooth(classes: int, size: tuple[int, int]) -> np.ndarray:
    """Logits of areas, as a segmenter's are: in most places one class leads around."""
    return by_torch(logits(classes, (5, 6)) * 9, size) + logits(classes, size) * 0.1


@pytest.mark.parametrize("classes", [1, 2, 19, 300])
@pytest.mark.parametrize("target", [(200, 300), (37, 41), (24, 1000), (11, 7)])
def test_areas_of_one_class_are_what_every_pixel_alone_would_be(classes: int, target: tuple[int, int]) -> None:
    """To the bit: the argmax of all upsampled logits, which are not made where four corners agree."""
    x = smooth(classes, (24, 30))
    np.testing.assert_array_equal(labels_from_logits(x, target), resize_bilinear(x, target).argmax(axis=0))


def test_ties_next_to_a_clear_winner() -> None:
    x = np.zeros((4, 6, 6), np.float32)
    x[1:3, :3] = 1  # two classes equal over an area, then all four
    x[3, 5, 5] = 1e-7  # by less than float32 can carry through an interpolation
    upsampled = resize_bilinear(x, (61, 47))
    np.testing.assert_array_equal(labels_from_logits(x, (61, 47)), upsampled.argmax(axis=0))


def test_not_a_number_is_not_the_largest() -> None:
    x = smooth(5, (8, 8))
    x[2, 3:5, 3:5] = np.nan
    x[4, 0, 0], x[3, 7, 7] = np.inf, -np.inf
    labels = labels_from_logits(x, (64, 64))
    assert not (labels[26:36, 26:36] == 2).any() and labels[0, 0] == 4
    assert (labels_from_logits(x, (8, 8)) == argmax_labels(x)).all() and not (argmax_labels(x)[3:5, 3:5] == 2).any()


@pytest.mark.parametrize("target", [(1500, 1500), (300, 6000), (6000, 300)])
def test_labels_take_little_memory(target: tuple[int, int]) -> None:
    x = logits(150, (32, 32))  # all upsampled logits at once would be 1 GB or more
    tracemalloc.start()
    labels_from_logits(x, target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_image_is_left_alone_at_its_size_and_keeps_flat_colours() -> None:
    image = np.full((6, 9, 3), (10, 200, 30), np.uint8)
    assert resize_image(image, (6, 9)) is image
    assert (resize_image(image, (32, 17)) == (10, 200, 30)).all()
