import numpy as np
import pytest
import torch
from oracle import mmseg
from torch.nn.functional import interpolate

from dovit.runtime.errors import UsageError
from dovit.runtime.resize import labels_from_logits, resize_bilinear, resize_image
from dovit.runtime.result import Result
from dovit.runtime.slide import segment_slide, starts
from dovit.runtime.whole import Core, segment_whole

CROP, STRIDE, PATCH, CLASSES = (32, 48), (20, 32), 8, 5
WEIGHT = torch.randn(CLASSES, 3, PATCH, PATCH, generator=torch.Generator().manual_seed(3)) / 100


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def decoder(image: np.ndarray) -> np.ndarray:
    """Fixed random logits [C, h / PATCH, w / PATCH] that depend on the whole window's mean, as attention's do."""
    x = torch.tensor(image).permute(2, 0, 1)[None].float()
    return torch.nn.functional.conv2d(x - x.mean(), WEIGHT, stride=PATCH)[0].numpy()


def core_of(logits_of=decoder, seen: list[np.ndarray] | None = None, size: tuple[int, int] = CROP) -> Core:
    def core(pixels: np.ndarray) -> Result:
        assert pixels.shape == (*size, 3) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
        if seen is not None:
            seen.append(pixels.copy())
        logits = logits_of(pixels)
        keep = np.arange(24).reshape(1, 4, 6) < int(pixels[0, 0, 0]) % 24
        return Result(
            labels=labels_from_logits(logits, size),
            kept=(int(keep.sum()),),
            tokens=24,
            keep_maps=keep,
            confidence_maps=np.zeros((1, 4, 6), np.float32),
            logits=logits,
        )

    return core


def reference(image: np.ndarray, crop: tuple[int, int], stride: tuple[int, int]) -> torch.Tensor:
    """mmseg/models/segmentors/encoder_decoder.py, slide_inference, in torch; the image is at least as large as crop."""
    height, width = image.shape[:2]
    total, count = torch.zeros(CLASSES, height, width), torch.zeros(height, width)
    for row in range(max(height - crop[0] + stride[0] - 1, 0) // stride[0] + 1):
        for column in range(max(width - crop[1] + stride[1] - 1, 0) // stride[1] + 1):
            bottom, right = min(row * stride[0] + crop[0], height), min(column * stride[1] + crop[1], width)
            top, left = max(bottom - crop[0], 0), max(right - crop[1], 0)
            logits = torch.from_numpy(decoder(image[top:bottom, left:right]))[None]
            total[:, top:bottom, left:right] += interpolate(logits, crop, mode="bilinear", align_corners=False)[0]
            count[top:bottom, left:right] += 1
    assert count.min() > 0
    return total / count


@pytest.mark.parametrize(
    ("length", "crop", "stride", "expected"),
    [
        (32, 32, 20, [0]),
        (33, 32, 20, [0, 1]),
        (52, 32, 20, [0, 20]),
        (53, 32, 20, [0, 20, 21]),
        (90, 32, 32, [0, 32, 58]),
        (10, 32, 20, [0]),
    ],
)
def test_windows_cover_the_line_and_the_last_ends_at_the_border(
    length: int, crop: int, stride: int, expected: list[int]
) -> None:
    assert starts(length, crop, stride) == expected


@pytest.mark.parametrize("size", [(32, 48), (32, 49), (33, 48), (52, 80), (53, 81), (77, 131), (100, 48)])
def test_slide_is_mmsegmentations(size: tuple[int, int]) -> None:
    image = picture(*size)
    result = segment_slide(image, CROP, STRIDE, core_of())
    expected = reference(image, CROP, STRIDE)
    assert result.logits is not None and result.logits.shape == (CLASSES, *size)
    torch.testing.assert_close(torch.from_numpy(result.logits), expected, rtol=1e-5, atol=1e-5)
    assert result.labels.shape == size and result.labels.dtype == np.uint8
    np.testing.assert_array_equal(result.labels, result.logits.argmax(axis=0))
    assert (result.labels == expected.argmax(dim=0).numpy()).mean() > 0.999


def test_slide_reports_every_window() -> None:
    image, seen = picture(53, 81), []
    result = segment_slide(image, CROP, STRIDE, core_of(seen=seen))
    corners = [(y, x) for y in (0, 20, 21) for x in (0, 32, 33)]
    assert [(window.y, window.x) for window in result.windows] == corners
    for pixels, (y, x) in zip(seen, corners, strict=True):
        np.testing.assert_array_equal(pixels, image[y : y + 32, x : x + 48])
    assert result.tokens == 24 * 9
    assert result.kept == (sum(window.result.kept[0] for window in result.windows),)
    assert result.keep_maps.shape == (9, 1, 4, 6) and result.confidence_maps.shape == (9, 1, 4, 6)
    np.testing.assert_array_equal(result.keep_maps[4], result.windows[4].result.keep_maps)
    assert all(window.result.logits is None for window in result.windows)


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((16, 24), (32, 48)), ((20, 100), (32, 160)), ((100, 20), (240, 48)), ((31, 48), (32, 50)), ((1, 1), (48, 48))],
)
def test_a_small_image_is_enlarged_in_proportion(size: tuple[int, int], scaled: tuple[int, int]) -> None:
    image = picture(*size)
    result = segment_slide(image, CROP, STRIDE, core_of())
    assert result.logits is not None and result.logits.shape == (CLASSES, *scaled)
    expected = reference(resize_image(image, scaled), CROP, STRIDE)
    torch.testing.assert_close(torch.from_numpy(result.logits), expected, rtol=1e-5, atol=1e-5)
    shrunk = interpolate(expected[None], size, mode="bilinear", align_corners=False)[0]
    assert result.labels.shape == size
    assert (result.labels == shrunk.argmax(dim=0).numpy()).mean() > 0.99


def test_a_sliver_is_refused_before_memory_runs_out() -> None:
    with pytest.raises(UsageError, match="too narrow for windows of 512×512: use mode whole"):
        segment_slide(np.zeros((1, 5000, 3), np.uint8), (512, 512), (512, 512), core_of(size=(512, 512)))


def test_a_bundle_without_decisions_slides_too() -> None:
    def core(pixels: np.ndarray) -> Result:
        none = np.zeros((0, 4, 6))
        return Result(np.zeros(CROP, np.uint8), (), 24, none.astype(bool), none.astype(np.float32), decoder(pixels))

    result = segment_slide(picture(53, 81), CROP, STRIDE, core)
    assert result.kept == () and result.keep_maps.shape == (9, 0, 4, 6)


def test_whole_takes_the_cores_labels_at_its_own_size() -> None:
    image = picture(*CROP)
    result = segment_whole(image, CROP, core_of())
    np.testing.assert_array_equal(result.labels, resize_bilinear(decoder(image), CROP).argmax(axis=0))
    assert result.windows == () and result.keep_maps.shape == (1, 4, 6)


@pytest.mark.parametrize("size", [(64, 96), (20, 90), (7, 5), (1, 1)])
def test_whole_gives_labels_at_the_size_of_the_image(size: tuple[int, int]) -> None:
    image, seen = picture(*size), []
    result = segment_whole(image, CROP, core_of(seen=seen))
    np.testing.assert_array_equal(seen[0], resize_image(image, CROP))
    logits = torch.from_numpy(decoder(seen[0]))[None]
    expected = interpolate(logits, size, mode="bilinear", align_corners=False)[0].argmax(dim=0)
    assert result.labels.shape == size
    assert (result.labels == expected.numpy()).mean() > 0.999


@pytest.mark.oracle
@pytest.mark.skipif(mmseg.available() is not None, reason=str(mmseg.available()))
@pytest.mark.parametrize("variant", ["setr-pup", "segmenter-mask"])
def test_slide_is_what_the_real_mmsegmentation_does(variant: str) -> None:
    model = mmseg.build(variant, image_size=(32, 48), classes=CLASSES, embed_dim=192, depth=8, heads=3)
    image = picture(50, 101)
    core = core_of(lambda pixels: mmseg.decoder_logits(model, pixels).numpy())
    result = segment_slide(image, CROP, STRIDE, core)
    expected = mmseg.slide_inference(model, image, CROP, STRIDE).numpy()
    assert result.logits is not None and result.logits.shape == expected.shape
    assert np.abs(result.logits - expected).max() <= 1e-5 * np.abs(expected).max()
