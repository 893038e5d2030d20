"""What mmsegmentation does to an image before and around the model: normalisation, the test pipeline, and test_cfg."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.section import Section
from dovit.export.model.config import HALF, IMAGENET
from dovit.runtime.bundle.manifest import Mode

Triple = tuple[float, float, float]
TRAINING_KEYS = ("pad_val", "seg_pad_val", "size", "size_divisor", "batch_augments", "non_blocking", "padding_mode")
# strides of mmsegmentation's configurations
STRIDES = {("setr", 512): 341, ("setr", 768): 512, ("segmenter", 512): 480, ("segmenter", 640): 608}
HARMLESS = ("LoadAnnotations", "PackSegInputs", "ImageToTensor", "DefaultFormatBundle", "Collect", "ToTensor")
LOADING_KEYS = ("to_float32", "file_client_args", "backend_args", "ignore_empty")
RESIZING_KEYS = ("multiscale_mode", "clip_object_border", "scale_factor")


@dataclass
class Pipeline:
    """What the test pipeline says: Normalize, Resize, and what a bundle leaves to the user."""

    normalize: Section | None = None
    scale: tuple[int, int] | None = None  # (height, width)
    keep_ratio: bool | None = None
    notes: list[str] = field(default_factory=list)


def read_pipeline(root: Section) -> Pipeline:
    """The transforms of the test pipeline, 1.x's or 0.x's. Raises DovitError for one whose effect a bundle cannot have."""
    found = Pipeline()
    for key, listed in _pipelines(root):
        transforms = Section(root.path, "", {key: listed}, root.known, root.settings, root.options)
        for transform in transforms.sections(key):
            _transform(transform, found)
        return found
    return found


def _pipelines(root: Section) -> list[tuple[str, Any]]:
    """The first that is there is the one that mmsegmentation's tests run."""
    places = ("test_dataloader.dataset.pipeline", "data.test.pipeline", "test_pipeline")
    found = []
    for place in places:
        at: Any = root.content
        for key in place.split("."):
            at = at.get(key) if isinstance(at, Mapping) else None
        if at is not None:
            found.append((place, at))
    root.ignore(*root.content)  # the rest is about training and data
    return found


def _transform(transform: Section, found: Pipeline) -> None:
    kind = transform.type()
    if kind in HARMLESS:
        return
    match kind:
        case "LoadImageFromFile":
            transform.only(
                "color_type", "color", default="color", reason="dovit's images have three channels of 8 bits"
            )
            transform.only(
                "imdecode_backend",
                "cv2",
                "pillow",
                "turbojpeg",
                None,
                reason="dovit's images are decoded as OpenCV's, whose channels are known",
            )
            transform.ignore(*LOADING_KEYS)
            transform.finish()
        case "RandomFlip":  # 0.x has one in MultiScaleFlipAug, which decides whether it flips
            if ".transforms." not in transform.name:
                for key in ("prob", "flip_ratio"):  # 0.x has both names
                    transform.only(key, None, 0, reason="flipped test images are no part of a bundle")
        case "Resize":
            _resize(transform, found)
        case "Normalize":
            if found.normalize is not None:
                raise transform.refusal("type", "images would be normalised twice")
            found.normalize = transform
        case "MultiScaleFlipAug":  # 0.x
            transform.only("flip", False, default=False, reason="test-time augmentation is no part of a bundle")
            ratios = transform.get("img_ratios")
            if ratios not in (None, 1.0, [1.0], (1.0,)):
                raise transform.refusal("img_ratios", "test-time augmentation is no part of a bundle")
            for inner in transform.sections("transforms"):
                if inner.type() == "Resize" and "scale" not in inner and "img_scale" not in inner:
                    content = {
                        **inner.content,
                        "scale": transform.get("img_scale"),
                        "keep_ratio": inner.get("keep_ratio", True),
                    }
                    inner = Section(inner.path, inner.name, content, inner.known, inner.settings, inner.options)
                _transform(inner, found)
        case _:
            raise transform.refusal(
                "type",
                "dovit does not know this transform of the test pipeline; --set test_pipeline=[] leaves the pipeline out",
            )


def _resize(transform: Section, found: Pipeline) -> None:
    key = "scale" if "scale" in transform else "img_scale"
    scale = transform.get(key)
    transform.only("interpolation", "bilinear", default="bilinear", reason="dovit resizes images bilinearly")
    transform.only("backend", "cv2", default="cv2", reason="dovit resizes images as OpenCV does")
    transform.only("ratio_range", None, reason="images of random size are for training")
    transform.ignore("type", "scale", "img_scale", *RESIZING_KEYS)
    found.keep_ratio = transform.flag("keep_ratio", False)
    transform.finish()
    if isinstance(scale, list) and len(scale) == 1:  # 0.x's scales
        scale = scale[0]
    if isinstance(scale, int):
        scale = (scale, scale)
    if isinstance(scale, list | tuple) and len(scale) == 2 and all(isinstance(v, int) and v > 0 for v in scale):
        found.scale = (int(scale[1]), int(scale[0]))  # mmcv's are (width, height)
    elif scale is not None:
        raise transform.refusal(
            key, "not one width and height; several are test-time augmentation, no part of a bundle"
        )
    kept = ", keeping their proportions" if found.keep_ratio else ""
    to = f"{scale[0]}×{scale[1]} (width, height)" if found.scale and scale else str(transform.get("scale_factor"))
    found.notes.append(
        f"its test pipeline resizes images to {to}{kept} before they reach the model; a bundle takes them as they are"
    )


@dataclass(frozen=True)
class Pixels:
    """RGB, 0…255; `bgr`: the weights take BGR."""

    mean: Triple
    std: Triple
    bgr: bool


def _preprocessor(root: Section, model: Section) -> Section:
    """The data_preprocessor, where mmengine's runner looks for it."""
    own = model.section("data_preprocessor")
    return own if "data_preprocessor" in model else root.section("data_preprocessor")


def read_pixels(root: Section, model: Section, pipeline: Pipeline, family: str, options: ReadOptions) -> Pixels:
    """Normalisation and the order of channels, of 1.x's data_preprocessor or 0.x's Normalize."""
    section, flips, to_rgb = _preprocessor(root, model), True, True
    if section.content and section.type("SegDataPreProcessor") != "SegDataPreProcessor":
        raise section.refusal("type", "dovit knows SegDataPreProcessor")
    if pipeline.normalize is not None:
        if section.get("mean") is not None:
            raise pipeline.normalize.refusal(
                "type", "images would be normalised twice, here and in the data_preprocessor"
            )
        to_rgb = pipeline.normalize.flag("to_rgb", True)
        flips = to_rgb ^ _converts(section)
    elif root.known or section.content:
        flips = _converts(section)
    source = pipeline.normalize or section
    place = source.place("bgr_to_rgb" if pipeline.normalize is None else "to_rgb")
    option = (place, not flips) if section.is_option("bgr_to_rgb") else None
    if options.bgr is not None:
        option = ("--bgr", options.bgr)
    bgr = root.settings.choose(
        "BGR weights",
        option=option,
        file=(place, not flips) if root.known or section.content else None,
        assumed=("as in mmsegmentation's configurations", False),
    )
    statistics = IMAGENET if family == "setr" else HALF
    said = root.known or "mean" in source or "std" in source
    values: dict[str, Triple] = {}
    for name, none in (("mean", 0.0), ("std", 1.0)):
        # Normalize comes before the data_preprocessor turns the channels round
        value = _triple(source, name, none, bgr=bgr if pipeline.normalize is None else not to_rgb) if said else None
        at = source.place(name) if source.get(name) is not None else "configuration: images are not normalised"
        flag = getattr(options, name)
        values[name] = root.settings.choose(
            name,
            option=(f"--{name}", flag) if flag is not None else (at, value) if source.is_option(name) else None,
            file=(at, value) if said else None,
            assumed=("as in mmsegmentation's configurations", statistics[name]),
        )
    if said and (source.get("mean") is None) != (source.get("std") is None):
        raise source.refusal("std", "mmsegmentation needs mean and std, or neither")
    section.ignore(*TRAINING_KEYS, "test_cfg")
    section.finish()
    return Pixels(values["mean"], values["std"], bool(bgr))


def _converts(section: Section) -> bool:
    """Whether the data_preprocessor turns the channels round: either conversion does."""
    return section.flag("bgr_to_rgb", False) | section.flag("rgb_to_bgr", False)


def _triple(section: Section, key: str, none: float, *, bgr: bool) -> Triple:
    """As RGB, whatever order the weights take."""
    value = section.get(key)
    if value is None:
        return none, none, none
    numbers = [value] if isinstance(value, int | float) else value
    if (
        not isinstance(numbers, list | tuple)
        or len(numbers) not in (1, 3)
        or not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in numbers)
        or (key == "std" and any(v <= 0 for v in numbers))
    ):
        raise section.refusal(key, "give three numbers, one a channel" + (", each above 0" if key == "std" else ""))
    three = [float(v) for v in (numbers if len(numbers) == 3 else [*numbers] * 3)]
    r, g, b = reversed(three) if bgr else three
    return r, g, b


@dataclass(frozen=True)
class Testing:
    """How images of another size are run."""

    image_size: tuple[int, int]
    mode: Mode
    stride: tuple[int, int]
    keep_ratio: bool


def read_testing(
    root: Section, model: Section, pipeline: Pipeline, trained: tuple[int, int], family: str, options: ReadOptions
) -> Testing:
    """test_cfg and what of the test pipeline belongs to it. `trained`: the size in pixels that the positions are of."""
    test = model.section("test_cfg")
    old = root.section("test_cfg")  # 0.x takes it there too; 1.x's is the test loop's
    if not test.content and "mode" in old:
        test = old
    said: Mode = test.choose(
        "mode",
        "whole",
        assumed=("images are resized to the model's size", "whole"),
        option=("--mode", options.mode),
        name="mode",
    )
    if said not in ("whole", "slide"):
        raise test.refusal("mode", "dovit runs whole and slide")
    crop, stride = test.pair("crop_size"), test.pair("stride")
    test.finish()
    slides = test.get("mode", "whole") == "slide" and crop is not None
    settings = model.settings
    size = trained
    if slides and crop:
        size = crop
    elif pipeline.scale is not None and pipeline.keep_ratio is False:
        size = pipeline.scale
    at = "test_cfg.crop_size" if slides else "test pipeline: Resize" if size != trained else "size of the positions"
    size = settings.choose("image_size", option=("--image-size", options.image_size), file=(at, size))
    if stride is not None and crop is not None:
        place = test.place("stride")
        if size != crop:  # the share of a window that the next one moves on stays
            stride = (max(size[0] * stride[0] // crop[0], 1), max(size[1] * stride[1] // crop[1], 1))
            place += f", in proportion to its crop of {crop[0]}×{crop[1]}"
        said_stride = (place, stride)
    else:
        said_stride = None
    known = STRIDES.get((family, size[0] if size[0] == size[1] else 0))
    chosen = settings.choose(
        "stride",
        option=("--stride", options.stride) if options.stride else said_stride if test.is_option("stride") else None,
        file=said_stride,
        assumed=(
            "as in mmsegmentation's configurations" if known else "two thirds of the window",
            (known, known) if known else (size[0] * 2 // 3, size[1] * 2 // 3),
        ),
    )
    keep = said == "whole" and bool(pipeline.keep_ratio)
    if pipeline.keep_ratio is not None and said == "whole":
        settings.choose("keep_ratio", file=("test pipeline: Resize", keep))
    _padding(_preprocessor(root, model), said, size)
    return Testing(size, said, chosen, keep)


def _padding(section: Section, mode: str, size: tuple[int, int]) -> None:
    """data_preprocessor.test_cfg pads images before the model. At the model's size that may change nothing."""
    test = section.section("test_cfg")
    if not test.content:
        return
    padded, divisor = test.pair("size"), test.get("size_divisor")
    test.finish()
    divides = divisor is None or (isinstance(divisor, int) and divisor > 0 and not any(side % divisor for side in size))
    larger = padded is not None and (padded[0] > size[0] or padded[1] > size[1])
    if mode == "slide" or larger or not divides:
        key = "size" if larger or padded else "size_divisor"
        raise test.refusal(
            key, "a bundle does not pad images; --set model.data_preprocessor.test_cfg=None leaves the padding out"
        )
