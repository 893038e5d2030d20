"""From a backbone to a segmenter: with the linear head of its files, or with a decoder that training is to fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dovit.export.checkpoints.keys import Account, check_classes
from dovit.export.checkpoints.linear_heads import LinearHead
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.settings import Settings
from dovit.export.model import BackboneConfig, DoViT, ModelConfig
from dovit.export.model.config import (
    IMAGENET,
    DecoderConfig,
    SegmenterLinearDecoder,
    SegmenterMaskDecoder,
    SetrMlaDecoder,
    SetrUpDecoder,
)
from dovit.export.model.config.bounds import MAX_TAPS
from dovit.runtime.errors import DovitError, UsageError

NEW_DECODER = "decoder and decision heads are freshly initialised"  # a note


@dataclass(frozen=True)
class ReadBackbone:
    """A backbone whose weights are in an account: its configuration (with its final norm), and how images come to it.

    `mean` and `std`: (place, RGB from 0 to 255), None where the files do not say them.
    """

    family: str
    config: BackboneConfig
    image_size: tuple[int, int]
    mean: tuple[str, Any] | None = None
    std: tuple[str, Any] | None = None


def build_segmenter(
    account: Account,
    backbone: ReadBackbone,
    head: LinearHead | None,
    options: ReadOptions,
    settings: Settings,
    class_names: tuple[str, ...] | None = None,
) -> tuple[DoViT, list[str]]:
    """The model, and notes. DovitError where there is no head and untrained parts are not allowed."""
    path, config = account.path, backbone.config
    untrained: tuple[str, ...] = ("heads.",) if options.untrained else ()
    if head is not None:
        if options.arch not in (None, "segmenter-linear"):
            raise UsageError(f"--arch {options.arch}: {path} has a linear head, which is segmenter-linear")
        decoder: DecoderConfig = head.decoder
        classes = check_classes(head.classes, options.classes)
    else:
        if not options.untrained:
            raise DovitError(
                f"{path}: a backbone of {backbone.family} without a decoder, which can start a training (dovit-train --ckpt) but "
                f"has nothing to segment with; give --head its linear head, or export the segmenter that is trained from it"
            )
        arch, classes = options.segmenter_for(path)
        decoder = new_decoder(arch, config, options.decoder_layers)
        untrained += ("decoder.",)
        if not arch.startswith("segmenter"):
            config = config.model_copy(update={"final_norm": False})
            for name in ("weight", "bias"):
                account.weights.pop(f"backbone.norm.{name}", None)
            account.unused.setdefault("SETR's decoders have norms of their own", []).append("the final norm")
    pixels = read_pixels(account, options, settings, backbone.family, backbone.mean, backbone.std)
    mode = settings.choose("mode", option=("--mode", options.mode), assumed=("the image is resized", "whole"))
    height, width = backbone.image_size
    stride = settings.choose(
        "stride",
        option=("--stride", options.stride),
        assumed=("two thirds of the window", (height * 2 // 3, width * 2 // 3)),
    )
    decisions = options.new_heads(path, config.depth)
    model_config = ModelConfig(
        image_size=backbone.image_size,
        classes=classes,
        backbone=config,
        decoder=decoder,
        decisions=decisions,
        thresholds=options.thresholds_for(len(decisions)),
        mean=pixels.mean,
        std=pixels.std,
        slide_stride=stride,
        mode=mode,
        class_names=class_names if class_names and len(class_names) == classes else None,
    )
    notes = account.notes()
    if head is None:
        notes.append(NEW_DECODER)
    return account.model(model_config, untrained), notes


@dataclass(frozen=True)
class Pixels:
    """Mean and deviation of the channels, RGB from 0 to 255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_pixels(
    account: Account,
    options: ReadOptions,
    settings: Settings,
    family: str,
    mean: tuple[str, Any] | None,
    std: tuple[str, Any] | None,
) -> Pixels:
    """How pixels are normalised; weights for BGR become weights for RGB. `mean` and `std`: (place, values) in the files."""
    place = f"as {family} is trained"
    chosen = Pixels(
        settings.choose("mean", option=("--mean", options.mean), file=mean, assumed=(place, IMAGENET["mean"])),
        settings.choose("std", option=("--std", options.std), file=std, assumed=(place, IMAGENET["std"])),
    )
    if settings.choose("BGR weights", option=("--bgr", options.bgr), assumed=(f"{family} reads RGB", False)):
        account.bgr_to_rgb()
    return chosen


def refuse_configuration(account: Account, options: ReadOptions, family: str, said_by: str) -> None:
    """Raises UsageError for --config and --set (but of a head) with a family's own files, which have no configuration. `said_by`:
    the options that say the same."""
    if options.config is not None or any(not change.startswith("head.") for change in options.changes):
        raise UsageError(
            f"{account.path}: {family}'s own files have no configuration that dovit reads; {said_by} set what they do not say"
        )


def new_decoder(arch: str, backbone: BackboneConfig, layers: tuple[int, ...] | None = None) -> DecoderConfig:
    """The configuration of a decoder to train on a backbone. `layers`, from 1: those whose outputs it reads, where not the
    architecture's own. UsageError for one that it cannot have."""
    dim, depth = backbone.embed_dim, backbone.depth
    if layers is not None:
        given = f"--decoder-layers {','.join(map(str, layers))}"
        if arch not in ("segmenter-linear", "setr-mla"):
            raise UsageError(
                f"{given}: --arch {arch} reads the last layer alone; segmenter-linear and setr-mla read several"
            )
        if list(layers) != sorted(set(layers)):
            raise UsageError(f"{given}: the layers do not ascend; give each once, in their order")
        if layers[0] < 1 or layers[-1] > depth:
            raise UsageError(f"{given}: the backbone has the layers 1 to {depth}; give some of them")
        if layers[-1] != depth:
            raise UsageError(f"{given}: a decoder also reads the last layer, {depth}: give it as the last")
        if len(layers) > MAX_TAPS:
            raise UsageError(f"{given}: {len(layers)} layers, and a decoder reads {MAX_TAPS} at most")
    choices: dict[str, DecoderConfig] = {
        "setr-naive": SetrUpDecoder(kind="setr-naive"),
        "setr-pup": SetrUpDecoder(kind="setr-pup", num_convs=4, kernel=3, up_scale=2),
        "setr-mla": SetrMlaDecoder(
            taps=layers if layers and arch == "setr-mla" else tuple(max(depth * k // 4, 1) for k in (1, 2, 3, 4))
        ),
        "segmenter-linear": SegmenterLinearDecoder(taps=layers if layers and len(layers) > 1 else ()),
        "segmenter-mask": SegmenterMaskDecoder(embed_dim=dim, heads=max(dim // 64, 1), mlp_dim=4 * dim),
    }
    if arch == "setr-mla" and layers is None and depth < 4:
        raise UsageError(
            f"--arch setr-mla: it takes the outputs of four layers, and this backbone has {depth}: give --decoder-layers"
        )
    if arch not in choices:
        raise UsageError(f"unknown architecture {arch!r}: choose one of {', '.join(choices)}")
    return choices[arch]
