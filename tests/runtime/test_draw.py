import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dovit.runtime import draw
from dovit.runtime.errors import DovitError
from dovit.runtime.palettes import default_palette
from dovit.runtime.result import Result, Window

PALETTE = default_palette(19)
IMAGE = np.random.default_rng(0).integers(0, 250, (8, 12, 3), dtype=np.uint8)  # nowhere white


def test_labels_are_an_indexed_png_of_class_numbers(tmp_path: Path) -> None:
    labels = np.arange(96, dtype=np.uint8).reshape(8, 12) % 19
    draw.save_labels(labels, PALETTE, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert (image.format, image.mode) == ("PNG", "P")
        np.testing.assert_array_equal(np.asarray(image), labels)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.array(PALETTE, np.uint8)[labels])


def test_256_classes_still_fit_and_more_become_16_bit_grey(tmp_path: Path) -> None:
    draw.save_labels(np.full((2, 3), 255, np.uint8), default_palette(256), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and (np.asarray(image) == 255).all()
    labels = np.array([[0, 299], [256, 1]], np.int16)
    draw.save_labels(labels, default_palette(300), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode.startswith("I")
        np.testing.assert_array_equal(np.asarray(image), labels)


def test_overlay_mixes_image_and_colours() -> None:
    labels = np.full((8, 12), 3, np.uint8)
    mixed = np.asarray(draw.overlay(IMAGE, labels, PALETTE, alpha=0.25))
    expected = IMAGE * 0.75 + np.array(PALETTE[3]) * 0.25
    assert mixed.dtype == np.uint8 and np.abs(mixed - expected).max() <= 0.5
    np.testing.assert_array_equal(np.asarray(draw.overlay(IMAGE, labels, PALETTE, alpha=0)), IMAGE)


def test_kept_patches_show_the_image_and_stopped_ones_are_white() -> None:
    keep = np.array([[True, False, True], [False, False, True]])
    painted = np.asarray(draw.keep_picture(IMAGE, keep))
    pixels = keep.repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(painted[pixels], IMAGE[pixels])
    assert (painted[~pixels] == 255).all()


def test_patches_follow_an_image_that_was_resized() -> None:
    keep = np.array([[True, False]])
    painted = np.asarray(draw.keep_picture(IMAGE[:5, :7], keep))
    assert painted.shape == (5, 7, 3)
    assert (painted[:, :4] == IMAGE[:5, :4]).all() and (painted[:, 4:] == 255).all()


def test_confidence_goes_from_dark_blue_to_yellow_and_stopped_is_white() -> None:
    confidence = np.array([[0.0, 0.5, 1.0, np.nan]], np.float32)
    painted = np.asarray(draw.confidence_picture(confidence, (2, 8)))
    assert painted.shape == (2, 8, 3)
    assert painted[0, ::2].tolist() == [[68, 1, 84], [33, 145, 140], [253, 231, 37], [255, 255, 255]]


def _window(y: int, x: int, keep: list[list[bool]], confidence: list[list[float]]) -> Window:
    maps = np.array([keep]), np.array([confidence], np.float32)
    return Window(y, x, (int(maps[0].sum()),), *maps)


def test_maps_of_windows_are_joined() -> None:
    nan = float("nan")
    left = _window(0, 0, [[True, False], [False, False]], [[0.2, 0.9], [0.8, nan]])
    right = _window(0, 2, [[False, True], [False, False]], [[0.7, 0.1], [0.6, nan]])
    stacked = [np.stack([getattr(w, n) for w in (left, right)]) for n in ("keep_maps", "confidence_maps")]
    result = Result(np.zeros((4, 6), np.uint8), (2,), 8, *stacked, windows=(left, right))
    keeps, confidences = draw.whole_maps(result, (4, 6), (4, 4))
    assert keeps[0].tolist() == [[True, True, False, False, True, True]] * 2 + [[False] * 6] * 2
    top = [0.2, 0.2, 0.7, 0.7, 0.1, 0.1]  # the overlap has the less certain of its two windows
    np.testing.assert_allclose(confidences[0][0], top, rtol=1e-6)
    np.testing.assert_allclose(confidences[0][3], [0.8, 0.8, 0.6, 0.6, nan, nan], rtol=1e-6)
    assert draw.whole_maps(result, (8, 12), (4, 4))[0][0].shape == (8, 12)


def test_writing_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    old_mask = os.umask(0o022)
    try:
        draw.save(Image.fromarray(IMAGE), target)
    finally:
        os.umask(old_mask)
    assert os.listdir(tmp_path) == ["a.png"]
    assert target.stat().st_mode & 0o777 == 0o644
    np.testing.assert_array_equal(np.asarray(Image.open(target)), IMAGE)


@pytest.mark.parametrize(
    ("error", "raised", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DovitError, "the disk is full; free some space"),
        (OSError(errno.EROFS, "Read-only file system"), DovitError, "cannot be written: Read-only file system"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_write_that_fails_keeps_the_old_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
    sentence: str | None,
) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def fail(self: Image.Image, part: Path, kind: str, **options: object) -> None:
        part.write_bytes(b"half")
        raise error

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(raised, match=sentence):
        draw.save(Image.fromarray(IMAGE), target)
    assert os.listdir(tmp_path) == ["a.png"] and target.read_bytes() == b"old"


def test_a_folder_that_is_gone_or_a_target_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DovitError, match="cannot be written"):
        draw.save(Image.fromarray(IMAGE), tmp_path / "gone" / "a.png")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(DovitError, match="a folder; name a file"):
        draw.save(Image.fromarray(IMAGE), tmp_path / "a.png")
    assert os.listdir(tmp_path) == ["a.png"]
