import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from oracle import mmseg
from torch.nn.functional import interpolate

from dovit.runtime.errors import UsageError
from dovit.runtime.resize import labels_from_logits, resize_bilinear, resize_image
from dovit.runtime.result import Result
from dovit.runtime.slide import segment_slide, window_starts
from dovit.runtime.whole import Core, fit_image, segment_whole

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
    assert window_starts(length, crop, stride) == expected


@pytest.mark.parametrize("size", [(32, 48), (32, 49), (33, 48), (52, 80), (53, 81), (77, 131), (100, 48)])
def test_slide_is_mmsegmentations(size: tuple[int, int]) -> None:
    image = picture(*size)
    result = segment_slide(image, CROP, STRIDE, core_of(), keep_logits=True)
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
    assert result.kept == (sum(window.kept[0] for window in result.windows),)
    assert result.keep_maps.shape == (9, 1, 4, 6) and result.confidence_maps.shape == (9, 1, 4, 6)
    np.testing.assert_array_equal(result.keep_maps[4], result.windows[4].keep_maps)


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((16, 24), (32, 48)), ((20, 100), (32, 160)), ((100, 20), (240, 48)), ((31, 48), (32, 50)), ((1, 1), (48, 48))],
)
def test_a_small_image_is_enlarged_in_proportion(size: tuple[int, int], scaled: tuple[int, int]) -> None:
    image = picture(*size)
    result = segment_slide(image, CROP, STRIDE, core_of(), keep_logits=True)
    assert result.logits is not None and result.logits.shape == (CLASSES, *scaled)
    expected = reference(resize_image(image, scaled), CROP, STRIDE)
    torch.testing.assert_close(torch.from_numpy(result.logits), expected, rtol=1e-5, atol=1e-5)
    shrunk = interpolate(expected[None], size, mode="bilinear", align_corners=False)[0]
    assert result.labels.shape == size
    assert (result.labels == shrunk.argmax(dim=0).numpy()).mean() > 0.99


@pytest.mark.parametrize("band", [1, 3000])
@pytest.mark.parametrize("size", [(77, 131), (16, 24), (100, 20), (32, 48)])
def test_bands_of_rows_give_the_same(size: tuple[int, int], band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(*size)
    expected = segment_slide(image, CROP, STRIDE, core_of(), keep_logits=True)
    assert segment_slide(image, CROP, STRIDE, core_of()).logits is None
    monkeypatch.setattr("dovit.runtime.slide.BAND_BYTES", band)  # one row, a few
    found = segment_slide(image, CROP, STRIDE, core_of(), keep_logits=True)
    assert found.logits is not None and expected.logits is not None
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_labels_at_the_size_that_the_windows_lie_in() -> None:
    result = segment_slide(picture(100, 20), CROP, STRIDE, core_of(), keep_logits=True, own_size=False)
    assert result.logits is not None and result.labels.shape == (240, 48)
    np.testing.assert_array_equal(result.labels, result.logits.argmax(axis=0))


LIMITS: list[tuple[tuple[int, int], dict[str, Any], str]] = [
    (
        (1, 1800),
        {},
        r"1×1800 is too narrow for windows of 32×48: .* it has 1843200 pixels, more than 1000000; use mode whole",
    ),
    ((600, 900), {}, r"600×900 needs 840 windows of 32×48, more than 500; use mode whole, or cut the image into parts"),
    ((60, 400), {}, r"needs the logits of 36 windows at a time, 5 classes of 24 each, more than 2000 values"),
    ((90, 80), {"keep_logits": True}, r"with 5 classes are 36000 values, more than 2000; leave return_logits off"),
]


@pytest.mark.parametrize(("size", "arguments", "sentence"), LIMITS, ids=str)
def test_limits_say_their_number(
    size: tuple[int, int], arguments: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, limit in {"MAX_PIXELS": 10**6, "MAX_WINDOWS": 500, "MAX_LOGITS": 2000}.items():
        monkeypatch.setattr(f"dovit.runtime.slide.{name}", limit)
    with pytest.raises(UsageError, match=sentence):
        segment_slide(picture(*size), CROP, STRIDE, core_of(), **arguments)


def test_a_very_narrow_image_is_refused_before_memory_runs_out() -> None:
    with pytest.raises(
        UsageError, match=r"too narrow for windows of 512×512: .* pixels, more than 16777216; use mode whole"
    ):
        segment_slide(np.zeros((1, 5000, 3), np.uint8), (512, 512), (512, 512), core_of(size=(512, 512)))


def test_many_classes_take_the_memory_of_a_row_of_windows() -> None:
    """All merged logits would be 600 MB."""
    logits = np.random.default_rng(0).standard_normal((300, 16, 16), dtype=np.float32)
    none = np.zeros((0, 4, 4))

    def core(pixels: np.ndarray) -> Result:
        return Result(np.zeros((128, 128), np.uint8), (), 16, none.astype(bool), none.astype(np.float32), logits.copy())

    image = np.zeros((600, 850, 3), np.uint8)
    tracemalloc.start()
    segment_slide(image, (128, 128), (96, 96), core)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


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
@pytest.mark.usefixtures("mmsegmentation")
@pytest.mark.parametrize("variant", ["setr-pup", "segmenter-mask"])
def test_slide_is_what_the_real_mmsegmentation_does(variant: str) -> None:
    model = mmseg.build(variant, image_size=(32, 48), classes=CLASSES, embed_dim=192, depth=8, heads=3)
    image = picture(50, 101)
    core = core_of(lambda pixels: mmseg.decoder_logits(model, pixels).numpy())
    result = segment_slide(image, CROP, STRIDE, core, keep_logits=True)
    expected = mmseg.slide_inference(model, image, CROP, STRIDE).numpy()
    assert result.logits is not None and result.logits.shape == expected.shape
    assert np.abs(result.logits - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.oracle
@pytest.mark.usefixtures("mmsegmentation")
@pytest.mark.parametrize("size", [(50, 101), (90, 40), (20, 33)])
def test_keeping_the_ratio_is_what_the_real_mmsegmentation_does(size: tuple[int, int]) -> None:
    """From the resized image on: its preprocessor's padding, its prediction, its cutting and resizing back."""
    from mmseg.structures import SegDataSample

    model = mmseg.build("setr-pup", image_size=(32, 48), classes=CLASSES, embed_dim=192, depth=8, heads=3)
    mean = torch.tensor([120.0, 115, 104])  # whole numbers, as an image's pixels are
    model.data_preprocessor.mean = mean.view(-1, 1, 1)
    model.data_preprocessor.test_cfg = {"size": (32, 48)}
    image = picture(*size)
    fitted = fit_image(image, (32, 48), keep_ratio=True, fill=mean.tolist())
    height, width = fitted.inside
    sample = SegDataSample(metainfo={"ori_shape": size, "img_shape": fitted.inside})
    bgr = np.ascontiguousarray(fitted.pixels[:height, :width, ::-1].transpose(2, 0, 1))
    data = model.data_preprocessor({"inputs": [torch.from_numpy(bgr)], "data_samples": [sample]}, training=False)
    with torch.no_grad():
        (expected,) = model.predict(data["inputs"], data["data_samples"])
    model.data_preprocessor.test_cfg = None  # the core's windows need no padding
    core = core_of(lambda pixels: mmseg.decoder_logits(model, pixels).numpy())
    found = segment_whole(image, (32, 48), core, keep_ratio=True, fill=mean.tolist())
    assert found.labels.shape == size
    assert (found.labels == expected.pred_sem_seg.data[0].numpy()).mean() > 0.999
