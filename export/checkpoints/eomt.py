"""EoMT: Hugging Face folders (eomt, eomt_dinov3) and tue-mps/eomt's own files, on DINOv2's and DINOv3's layers.

    Hugging Face   layers.N.*, query, upscale_block, mask_head, class_predictor; one layout for each of the two backbones
    tue-mps        network.encoder.backbone.* (timm's DINOv2, or transformers' DINOv3 with `blocks`), network.q, …

Masks limit attention in training alone: their probabilities (`attn_mask_probs`) have to be 0 at its end. Published files on
DINOv3 hold differences to Meta's weights, which are no model by themselves.
"""

from __future__ import annotations

from torch import Tensor

from dovit.export.checkpoints.eomt_keys import BACKBONE_RULES, DECODER_RULES, LAYER, OWN_TRAINING_KEYS
from dovit.export.checkpoints.family import Checkpoint, Family
from dovit.export.checkpoints.huggingface import (
    Preprocessor,
    class_names,
    pick_size,
    read_activation,
    read_model_type,
    read_preprocessor,
    read_section,
)
from dovit.export.checkpoints.keys import Account, check_classes
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.pos_embed import Interpolation, image_size_for, resize_positions, trained_grid
from dovit.export.checkpoints.section import Section
from dovit.export.checkpoints.segmenters import read_pixels, refuse_configuration
from dovit.export.checkpoints.settings import Settings
from dovit.export.checkpoints.transformers_vit import (
    ROTARY_AUGMENTATIONS,
    TRAINING_KEYS,
    check_biases,
    check_mlp_ratio,
    read_attention_heads,
    read_gated,
    read_rope_theta,
)
from dovit.export.checkpoints.vit_layers import backbone_config, complete_layers, place_prefix
from dovit.export.model import BackboneConfig, DoViT, ModelConfig
from dovit.export.model.config import Activation, EomtDecoder
from dovit.runtime.errors import DovitError, UsageError

MODEL_TYPES = ("eomt", "eomt_dinov3")
POSITIONS = Interpolation("bicubic", antialias=True)  # timm's, whose ViT the project takes; transformers resizes none
DIFFERENCES = (
    "{path}: holds differences to the weights of DINOv3 and not a model (EoMT's delta weights): add them to Meta's weights as "
    "tue-mps/eomt does (delta_weights), or convert them with transformers, and give the result"
)


def is_eomt(checkpoint: Checkpoint) -> bool:
    """Whether config.json says so, or these are the keys of tue-mps/eomt."""
    keys = {key.removeprefix("network.") for key in checkpoint.state}
    if {"query.weight", "class_predictor.weight", "layernorm.weight"} <= keys:
        return read_model_type(checkpoint) in MODEL_TYPES
    return {"q.weight", "class_head.weight", "encoder.backbone.norm.weight"} <= keys


def read_eomt(checkpoint: Checkpoint, options: ReadOptions, settings: Settings) -> tuple[DoViT, list[str]]:
    """As Family.read has it."""
    if options.arch not in (None, "eomt"):
        raise UsageError(f"--arch {options.arch}: {checkpoint.path} is an EoMT, whose decoder is its own")
    account = Account(checkpoint.path, dict(checkpoint.state))
    if account.has(r"layernorm\.weight"):
        return _read_huggingface(checkpoint, account, options, settings)
    return _read_official(account, options, settings)


def _read_huggingface(
    checkpoint: Checkpoint, account: Account, options: ReadOptions, settings: Settings
) -> tuple[DoViT, list[str]]:
    section = read_section(checkpoint, options, settings)
    section.ignore(*OWN_TRAINING_KEYS, *TRAINING_KEYS, *ROTARY_AUGMENTATIONS)
    rotary = section.get("model_type") == "eomt_dinov3"
    if rotary:
        check_biases(section, account, LAYER)
    found = account.has(LAYER + r"mlp\.(gate_proj|weights_in)\.weight")
    gated = read_gated(section, "use_gated_mlp" if rotary else "use_swiglu_ffn", found)
    depth = _rename(account)
    activation = read_activation(section, "hidden_act", "gelu")
    config = backbone_config(
        account,
        depth,
        heads=read_attention_heads(section, options, 16),
        norm_eps=section.choose("layer_norm_eps", 1e-6, option=("--norm-eps", options.norm_eps)),
        gated=gated,
        activation=Activation(kind="silu") if gated and not rotary else activation,
        prefix=place_prefix(account, "embeddings.cls_token", "embeddings.register_tokens"),
        rope_theta=_read_theta(section) if rotary else None,
    )
    if rotary:
        section.same("intermediate_size", config.mlp_dim, 4096)
    else:
        check_mlp_ratio(section, config)
    decoder = EomtDecoder(
        queries=account.weights["decoder.query"].shape[0],
        blocks=section.choose("num_blocks", 4),
        upscale=section.whole("num_upscale_blocks", 2, least=0),
        activation=activation,
    )
    for name, size_found, size_default in (
        ("hidden_size", config.embed_dim, 1024),
        ("num_hidden_layers", depth, 24),
        ("num_channels", 3, 3),
        ("num_register_tokens", config.prefix - 1, 4),
        ("num_queries", decoder.queries, 200),
        ("num_upscale_blocks", _upscale(account), 2),
    ):
        section.same(name, size_found, size_default)
    if section.pair("patch_size", 16) != (config.patch,) * 2:
        raise section.refusal("patch_size", f"the weights are of patches of {config.patch}")
    preprocessor = read_preprocessor(checkpoint, splits=True)
    stated = section.pair("image_size", 640)
    assert stated is not None
    size = pick_size(options, preprocessor, ("config.json: image_size", stated), settings, config.patch)
    if not rotary:
        positions = account.take("embeddings.position_embeddings.weight").float()
        _place_positions(account, positions, size, config.patch, settings, (stated[0], stated[1]))
    names = class_names(section, account.weights["decoder.class_head.weight"].shape[0] - 1)
    section.finish()
    return _build(account, config, decoder, size, preprocessor, options, settings, names)


def _read_official(account: Account, options: ReadOptions, settings: Settings) -> tuple[DoViT, list[str]]:
    refuse_configuration(account, options, "EoMT", "--heads, --norm-eps, --mean, --std and --image-size")
    network = "network." if account.has(r"network\.q\.weight") else ""
    at = f"{network}encoder.backbone."
    rotary = account.has(rf"{network}encoder\.backbone\.patch_embed\.patch_embeddings\.weight")
    preprocessor = _pixels(account, f"{network}encoder.")
    depth = _rename(account)
    hidden, mlp = (account.weights[f"backbone.layers.0.mlp.{name}.weight"] for name in ("fc1", "fc2"))
    gated = hidden.shape[0] == 2 * mlp.shape[1]
    dim = mlp.shape[0]
    tokens = ("patch_embed.cls_token", "patch_embed.register_tokens") if rotary else ("cls_token", "reg_token")
    registers = f"{at}{tokens[1]}" in account.state
    config = backbone_config(
        account,
        depth,
        heads=settings.choose(
            "heads", option=("--heads", options.heads), assumed=("64 channels each", max(dim // 64, 1))
        ),
        norm_eps=settings.choose(
            "norm_eps",
            option=("--norm-eps", options.norm_eps),
            assumed=("DINOv3's models", 1e-5) if rotary else ("timm's DINOv2", 1e-6),
        ),
        gated=gated,
        activation=Activation(kind="silu" if gated else "gelu"),
        prefix=place_prefix(account, f"{at}{tokens[0]}", f"{at}{tokens[1]}"),
        rope_theta=settings.choose("rope_theta", assumed=("DINOv3's models", 100.0)) if rotary else None,
    )
    if rotary:
        size = settings.choose("image_size", option=("--image-size", options.image_size), remedy="say --image-size")
        image_size_for(0, config.patch, size)
    else:
        embed = account.take(f"{at}pos_embed")[0].float()
        positions = embed if registers else embed[1:]  # timm's models with registers have none for the class token
        if not registers:
            account.weights["backbone.prefix"] = account.weights["backbone.prefix"] + embed[:1]
        size = image_size_for(len(positions), config.patch, options.image_size)
        settings.choose("image_size", option=("--image-size", options.image_size), file=("its positions", size))
        _place_positions(account, positions, size, config.patch, settings, None)
    blocks = settings.choose("num_blocks", file=("its attn_mask_probs", _blocks(account)), assumed=("EoMT's code", 4))
    decoder = EomtDecoder(queries=account.weights["decoder.query"].shape[0], blocks=blocks, upscale=_upscale(account))
    return _build(account, config, decoder, size, preprocessor, options, settings, None)


def _rename(account: Account) -> int:
    """All keys but those of prefix tokens and positions become ours; how many layers there are. DovitError where the file is
    no finished model."""
    depth = account.count(LAYER + r".+")
    account.leave(r"criterion\.empty_weight", "weights of the loss")
    account.rename(BACKBONE_RULES + DECODER_RULES)
    complete_layers(account, depth)
    norm = account.weights["backbone.norm.weight"]
    if float(norm.float().abs().median()) < 0.02:  # a trained norm's lie around 1
        raise DovitError(DIFFERENCES.format(path=account.path))
    probabilities = next((value for key, value in account.state.items() if key.endswith("attn_mask_probs")), None)
    if probabilities is not None and not bool((probabilities == 0).all()):
        raise DovitError(
            f"{account.path}: attn_mask_probs is {[round(v, 4) for v in probabilities.flatten().tolist()[:8]]}: masks still "
            f"limit the attention of this EoMT, whose training is not finished; train it until all are 0"
        )
    account.leave(r"(?:network\.)?attn_mask_probs", "mask annealing is finished: all are 0")
    return depth


def _blocks(account: Account) -> int | None:
    """In how many layers there are queries: one probability each."""
    found = next((value for key, value in account.state.items() if key.endswith("attn_mask_probs")), None)
    return None if found is None else len(found)


def _upscale(account: Account) -> int:
    return sum(name.startswith("decoder.upscale.") and name.endswith("conv1.weight") for name in account.weights)


def _place_positions(
    account: Account,
    positions: Tensor,
    size: tuple[int, int],
    patch: int,
    settings: Settings,
    trained: tuple[int, int] | None,
) -> None:
    """`positions` [N0, E] of images of `trained` pixels, or a square, for `size`."""
    settings.choose("resizing of positions", assumed=("timm's code, which EoMT is built on", str(POSITIONS)))
    grid = trained_grid(len(positions), patch, size, trained)
    account.weights["backbone.pos_embed"] = resize_positions(
        positions, (size[0] // patch, size[1] // patch), POSITIONS, trained=grid
    )


def _read_theta(section: Section) -> float:
    """The base of the rotary periods, which transformers 5 has in `rope_parameters` for this model."""
    inner = section.section("rope_parameters")
    inner.only("rope_type", "default", default="default", reason="dovit has DINOv3's rotary positions only")
    theta = read_rope_theta(inner if "rope_theta" in inner else section)
    inner.finish()
    return theta


def _pixels(account: Account, at: str) -> Preprocessor:
    """mean and std, which tue-mps/eomt stores for values from 0 to 1. DovitError where they are those of a difference."""
    said: dict[str, tuple[str, tuple[float, ...]] | None] = {"pixel_mean": None, "pixel_std": None}
    for name in said:
        if f"{at}{name}" in account.state:
            values = account.take(f"{at}{name}").double().flatten().tolist()
            if name == "pixel_std" and not any(values):
                raise DovitError(DIFFERENCES.format(path=account.path))
            said[name] = (f"its {name}", tuple(round(255 * value, 4) for value in values))
    return Preprocessor(
        mean=said["pixel_mean"],
        std=said["pixel_std"],
        split=("EoMT's semantic inference", True),
        notes=("nothing says what it was trained for: its queries are added up to semantic labels",),
    )


def _build(
    account: Account,
    config: BackboneConfig,
    decoder: EomtDecoder,
    size: tuple[int, int],
    preprocessor: Preprocessor,
    options: ReadOptions,
    settings: Settings,
    names: tuple[str, ...] | None,
) -> tuple[DoViT, list[str]]:
    classes = check_classes(account.weights["decoder.class_head.weight"].shape[0] - 1, options.classes)
    pixels = read_pixels(account, options, settings, "EoMT", preprocessor.mean, preprocessor.std)
    where, split = preprocessor.split or ("the processor's default for do_split_image", False)
    mode = settings.choose("mode", option=("--mode", options.mode), file=(where, "slide" if split else "whole"))
    stride = settings.choose("stride", option=("--stride", options.stride), assumed=("the window's size", size))
    decisions = options.new_heads(account.path, config.depth, config.depth - decoder.blocks)
    model_config = ModelConfig(
        image_size=size,
        classes=classes,
        backbone=config,
        decoder=decoder,
        decisions=decisions,
        thresholds=options.thresholds_for(len(decisions)),
        mean=pixels.mean,
        std=pixels.std,
        slide_stride=stride,
        mode=mode,
        keep_ratio=preprocessor.pad,
        class_names=names,
    )
    model = account.model(model_config, ("heads.",) if options.untrained else ())
    return model, [*account.notes(), *preprocessor.notes]


FAMILY = Family("EoMT", is_eomt, read_eomt)
