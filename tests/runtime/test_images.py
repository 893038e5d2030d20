from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import as_rgb, read_image

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (12, 17)).astype(np.uint16)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm"])
def test_lossless_files_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    Image.fromarray(COLOUR).save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, COLOUR)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_16_bits_keep_the_upper_8(tmp_path: Path, name: str) -> None:
    Image.fromarray(DEEP).save(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name), np.repeat((DEEP >> 8)[..., None], 3, axis=2))


def test_16_bits_big_endian(tmp_path: Path) -> None:
    Image.frombytes("I;16B", (17, 12), DEEP.astype(">u2").tobytes()).save(tmp_path / "big.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "big.tif")[..., 1], DEEP >> 8)


def test_alpha_is_dropped_and_not_blended(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, (12, 17, 1), dtype=np.uint8)
    Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), COLOUR)
    grey = np.concatenate([COLOUR[..., :1], alpha], axis=2)
    Image.fromarray(grey).save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png"), np.repeat(COLOUR[..., :1], 3, axis=2))


def test_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    index = np.array([[0, 1], [2, 1]], np.uint8)
    colours = np.array([[10, 20, 30], [200, 100, 50], [7, 8, 9]], np.uint8)
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "p.png", transparency=1)
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), colours[index])


def test_one_bit(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png"), [[[255] * 3, [0] * 3]])


def test_cmyk(tmp_path: Path) -> None:
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)  # paper, cyan, black
    Image.frombytes("CMYK", (3, 1), inks.tobytes()).save(tmp_path / "inks.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "inks.tif"), [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]])


@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_exif_rotation_is_undone(tmp_path: Path, orientation: int, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOUR).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(COLOUR, turn))


def _png(path: Path, part: float) -> None:
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


BAD = {
    "missing": (lambda path: None, "no such image"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_text("not a picture, sorry"), "not an image that Pillow can read"),
    "folder": (lambda path: path.mkdir(), "a folder, not an image"),
    "cut off": (lambda path: _png(path, 0.5), "damaged or cut off"),
    "header only": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "not an image|damaged"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_gets_one_sentence(tmp_path: Path, kind: str) -> None:
    make, sentence = BAD[kind]
    path = tmp_path / "bad.png"
    make(path)
    with pytest.raises(DovitError, match=sentence) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and caught.value.exit_status == 1


def test_too_many_pixels_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(DovitError, match="too many pixels"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".gif", ".bmp", ".ppm"])
def test_no_damage_raises_anything_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOUR).save(path)
    whole = path.read_bytes()
    for _ in range(60):
        data = bytearray(whole[: RNG.integers(1, len(whole))])
        for at in RNG.integers(0, min(len(data), 200), 3):
            data[at] = RNG.integers(256)
        path.write_bytes(data)
        try:
            assert read_image(path).dtype == np.uint8  # where the damage does not matter
        except DovitError as error:
            assert "\n" not in str(error)


def test_as_rgb_takes_arrays_and_pillow_images() -> None:
    assert as_rgb(COLOUR) is COLOUR
    np.testing.assert_array_equal(as_rgb(Image.fromarray(COLOUR)), COLOUR)
    np.testing.assert_array_equal(as_rgb(Image.fromarray(DEEP))[..., 0], DEEP >> 8)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (COLOUR.astype(np.float32), r"float32 \[12, 17, 3\]"),
        (COLOUR[..., 0], r"uint8 \[12, 17\]"),
        (np.zeros((12, 17, 4), np.uint8), r"uint8 \[12, 17, 4\]"),
        (np.zeros((0, 17, 3), np.uint8), r"uint8 \[0, 17, 3\]"),
        ("street.png", "not str"),
    ],
)
def test_as_rgb_says_what_it_wants(image: object, sentence: str) -> None:
    with pytest.raises(UsageError, match=rf"an image is a uint8 array \[H, W, 3\].*{sentence}"):
        as_rgb(image)  # type: ignore[arg-type]
