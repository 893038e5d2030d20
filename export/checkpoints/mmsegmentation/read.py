"""A mmsegmentation checkpoint as a model."""

from __future__ import annotations

import re

from dovit.export.checkpoints.family import Checkpoint, Family
from dovit.export.checkpoints.keys import Account, check_classes
from dovit.export.checkpoints.mmsegmentation.backbone import place_tokens, read_backbone
from dovit.export.checkpoints.mmsegmentation.configuration import check_changes, labels_of, read_configuration
from dovit.export.checkpoints.mmsegmentation.decoders import decoder_kind, read_decoder, read_heads
from dovit.export.checkpoints.mmsegmentation.images import read_pipeline, read_pixels, read_testing
from dovit.export.checkpoints.mmsegmentation.rules import BACKBONE_RULES, DECODER_RULES, head_rules
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.settings import Settings
from dovit.export.model import DoViT, ModelConfig

MODEL_TRAINING_KEYS = ("pretrained", "train_cfg", "init_cfg", "asymetric_input", "encoder_resolution")


def is_mmseg(checkpoint: Checkpoint) -> bool:
    """Whether these are the keys of a mmsegmentation ViT segmenter."""
    keys = checkpoint.state
    return "backbone.layers.0.ln1.weight" in keys and any(key.startswith("decode_head.") for key in keys)


def read_mmseg(checkpoint: Checkpoint, options: ReadOptions, settings: Settings) -> tuple[DoViT, list[str]]:
    """As Family.read has it."""
    path, content = checkpoint.path, checkpoint.content
    # a single auxiliary head has no number
    state = {
        re.sub(r"^auxiliary_head\.(?!\d)", "auxiliary_head.0.", key): tensor for key, tensor in checkpoint.state.items()
    }
    account = Account(path, state)
    root = read_configuration(path, content, options, settings)
    model = root.section("model")
    if model.type("EncoderDecoder") != "EncoderDecoder":
        raise model.refusal("type", "dovit reads mmsegmentation's EncoderDecoder")
    model.ignore(*MODEL_TRAINING_KEYS)

    kind = decoder_kind(account, model.section("decode_head"), options)
    family = kind.split("-")[0]
    backbone = read_backbone(account, model.section("backbone"), options, kind)
    decoder = read_decoder(account, kind, model, backbone)
    heads = read_heads(account, kind, model, backbone, decoder.layer, options)
    decisions = heads.configs
    if not options.dense and not decisions:
        decisions = options.new_heads(path, decoder.layer)
    pipeline = read_pipeline(root)
    pixels = read_pixels(root, model, pipeline, family, options)
    patch = backbone.config.patch
    testing = read_testing(root, model, pipeline, (backbone.grid[0] * patch, backbone.grid[1] * patch), family, options)
    model.finish()
    check_changes(root)

    place_tokens(account, backbone, testing.image_size, asked=options.image_size is not None)
    whole = decoder.layer == backbone.config.depth
    if not whole:
        unneeded = "|".join(str(layer) for layer in range(decoder.layer, backbone.config.depth))
        account.leave(
            rf"backbone\.(layers\.({unneeded})|ln1)\..+", f"decode_head takes the output of layer {decoder.layer}"
        )
    rules = [*BACKBONE_RULES, *DECODER_RULES[kind]]
    for number, key in enumerate(heads.keys):
        rules += head_rules(key, number)
    account.rename(rules)
    if pixels.bgr:
        account.bgr_to_rgb()
    names, palette = labels_of(content, decoder.classes)
    config = ModelConfig(
        image_size=testing.image_size,
        classes=check_classes(decoder.classes, options.classes),
        backbone=backbone.config.model_copy(
            update={"depth": decoder.layer, "final_norm": backbone.config.final_norm and whole}
        ),
        decoder=decoder.config,
        decisions=decisions,
        thresholds=options.thresholds_for(len(decisions)),
        slide_stride=testing.stride,
        mode=testing.mode,
        keep_ratio=testing.keep_ratio,
        class_names=names,
        palette=palette,
        mean=pixels.mean,
        std=pixels.std,
    )
    notes = [*account.notes(), *pipeline.notes]
    return account.model(config, ("heads.",) if options.untrained else ()), notes


FAMILY = Family("mmsegmentation", is_mmseg, read_mmseg)
