import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from dovit.runtime.arrays import Format, Layout
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import as_rgb, decode_image, read_image

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
def test_damaged_files_raise_nothing_but_dovit_errors(tmp_path: Path, suffix: str) -> None:
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


def channels(format: str) -> np.ndarray:
    alpha = RNG.integers(0, 256, (12, 17, 1), dtype=np.uint8)
    return {
        "rgb": COLOUR,
        "bgr": COLOUR[..., ::-1],
        "rgba": np.concatenate([COLOUR, alpha], axis=2),
        "bgra": np.concatenate([COLOUR[..., ::-1], alpha], axis=2),
        "gray": COLOUR[..., :1],
    }[format]


@pytest.mark.parametrize("kind", [np.uint8, np.float16, np.float32, np.float64, "torch", "torch float"])
@pytest.mark.parametrize("layout", ["hwc", "chw"])
@pytest.mark.parametrize("format", ["rgb", "bgr", "rgba", "bgra", "gray"])
def test_every_format_layout_and_type(format: Format, layout: Layout, kind: Any) -> None:
    array: Any = channels(format)
    if layout == "chw":
        array = array.transpose(2, 0, 1)
    if kind == "torch float":
        array = torch.from_numpy(array.copy()).float().div(255).requires_grad_()
    elif kind == "torch":
        array = torch.from_numpy(array.copy())
    elif kind != np.uint8:
        array = (array / 255).astype(kind)
    made = as_rgb(array, format, layout)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, COLOUR if format != "gray" else COLOUR[..., :1].repeat(3, axis=2))


def test_grey_arrays_may_have_two_dimensions() -> None:
    for layout in get_args(Layout):
        np.testing.assert_array_equal(as_rgb(COLOUR[..., 0], "gray", layout), COLOUR[..., :1].repeat(3, axis=2))


def test_paths_are_read(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    np.testing.assert_array_equal(as_rgb(tmp_path / "a.png"), COLOUR)
    np.testing.assert_array_equal(as_rgb(str(tmp_path / "a.png")), COLOUR)
    with pytest.raises(DovitError, match="no such image"):
        as_rgb("street.png")
    with pytest.raises(DovitError, match="URLs are not fetched"):
        as_rgb("https://example.org/a.png")
    with pytest.raises(DovitError, match=r"no file can have this name .*check the path"):
        as_rgb("a\0b.png")


FLOAT = COLOUR.astype(np.float32)
REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (COLOUR.astype(int), {}, r"not int64: convert it, as image\.astype\(np\.uint8\)"),
    (COLOUR > 9, {}, "not bool"),
    (DEEP[..., None].repeat(3, 2), {}, "not uint16"),
    (FLOAT, {}, r"values within 0…1, this one 0…255: divide by 255"),
    (FLOAT / 255 - 0.5, {}, "this one -0.5…0.5"),
    (FLOAT + np.float32(np.inf), {}, "this one NaN or infinite ones"),
    (FLOAT * np.nan, {}, "this one NaN or infinite ones"),
    (COLOUR[..., 0], {}, r'format rgb is \[H, W, C\], not uint8 \[12, 17\]: for a grey one say format="gray"'),
    (channels("rgba"), {}, r'\[H, W, 3\], not uint8 \[12, 17, 4\]: say format="rgba" or "bgra"'),
    (COLOUR, {"format": "rgba"}, r'\[H, W, 4\], not uint8 \[12, 17, 3\]: say format="rgb" or "bgr"'),
    (COLOUR.transpose(2, 0, 1), {}, r'\[H, W, 3\], not uint8 \[3, 12, 17\]: say layout="chw"'),
    (COLOUR, {"layout": "chw"}, r'\[3, H, W\], not uint8 \[12, 17, 3\]: leave layout="chw" out'),
    (COLOUR[None], {}, r"not uint8 \[1, 12, 17, 3\]: call session\.batch"),
    (np.zeros((0, 17, 3), np.uint8), {}, r"with some pixels, not uint8 \[0, 17, 3\]"),
    (np.uint8(3), {}, "not uint8"),
    (np.zeros((12, 17, 5), np.uint8), {}, r"not uint8 \[12, 17, 5\]$"),
    ([COLOUR], {}, r"not list; for several images call session\.batch"),
    (b"\x89PNG", {}, "not bytes; open encoded ones"),
    (None, {}, "not NoneType$"),
    (7, {}, "not int$"),
    (
        torch.zeros(12, 17, 3, dtype=torch.bfloat16),
        {},
        "the tensor cannot be read .*pass a dense one of uint8 or float32",
    ),
    (torch.zeros(12, 17, 3).to_sparse(), {}, "the tensor cannot be read"),
    (torch.nn.Identity(), {}, "the tensor cannot be read"),
    (Image.fromarray(COLOUR), {"format": "bgr"}, "format='bgr' is for arrays: files and Pillow images say themselves"),
    ("a.png", {"layout": "chw"}, "^layout='chw' is for arrays"),
]


@pytest.mark.parametrize(
    ("image", "arguments", "sentence"), REFUSED, ids=lambda v: str(v)[:40] if isinstance(v, str) else ""
)
def test_everything_else_is_refused_with_the_remedy(image: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        as_rgb(image, **arguments)
    assert "\n" not in str(caught.value)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, numpy, dovit; from dovit.runtime.images import as_rgb; as_rgb(numpy.zeros((2, 2, 3), 'uint8')); "
    )
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)


def test_the_content_of_a_file_is_read_as_the_file(tmp_path: Path) -> None:
    file = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    Image.fromarray(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)).save(file, exif=exif)
    np.testing.assert_array_equal(decode_image(file.read_bytes(), "row 1"), read_image(file))
    for content, sentence in (
        (b"", "row 1: holds no bytes"),
        (b"text", "row 1: not an image that Pillow can read"),
        (file.read_bytes()[:60], "row 1: the image is damaged or cut off"),
    ):
        with pytest.raises(DovitError, match=sentence):
            decode_image(content, "row 1")
