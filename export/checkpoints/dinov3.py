"""DINOv3: Hugging Face folders (dinov3_vit) and facebookresearch/dinov3's own files.

The layers are DINOv2's with rotary positions in the place of learned ones, keys without a bias, and in some sizes SwiGLU.
Register tokens follow the class token.
"""

from __future__ import annotations

from dovit.export.checkpoints.family import Checkpoint, Family
from dovit.export.checkpoints.huggingface import (
    class_names,
    pick_size,
    read_activation,
    read_model_type,
    read_preprocessor,
    read_section,
)
from dovit.export.checkpoints.keys import Account, Rule
from dovit.export.checkpoints.linear_heads import add_head_file, read_linear_head
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.pos_embed import image_size_for
from dovit.export.checkpoints.segmenters import ReadBackbone, build_segmenter, refuse_configuration
from dovit.export.checkpoints.settings import Settings
from dovit.export.checkpoints.transformers_vit import (
    BACKBONE_OUTPUTS,
    ROTARY_AUGMENTATIONS,
    TRAINING_KEYS,
    check_biases,
    read_attention_heads,
    read_gated,
    read_rope_theta,
)
from dovit.export.checkpoints.vit_layers import backbone_config, complete_layers, place_prefix, with_rotary
from dovit.export.model import DoViT
from dovit.export.model.config import Activation
from dovit.runtime.errors import DovitError

MODEL_TYPE = "dinov3_vit"
_LAYER = r"(?:model\.)?layer\.(\d+)\."
HUGGINGFACE_RULES: list[Rule] = [
    (_LAYER + r"(norm[12])\.(weight|bias)", r"backbone.layers.\1.\2.\3"),
    (_LAYER + r"attention\.([qkv])_proj\.(weight|bias)", r"backbone.layers.\1.attn.\2.\3"),
    (_LAYER + r"attention\.o_proj\.(weight|bias)", r"backbone.layers.\1.attn.proj.\2"),
    (_LAYER + r"layer_scale([12])\.lambda1", r"backbone.layers.\1.scale\2"),
    (_LAYER + r"mlp\.(gate|up)_proj\.(weight|bias)", r"backbone.layers.\1.mlp.\2.\3"),
    (_LAYER + r"mlp\.down_proj\.(weight|bias)", r"backbone.layers.\1.mlp.fc2.\2"),
    (r"norm\.(weight|bias)", r"backbone.norm.\1"),
    (r"embeddings\.patch_embeddings\.(weight|bias)", r"backbone.patch_embed.\1"),
]
_AT = r"(?:backbone\.)?"
_BLOCK = _AT + r"blocks\.(\d+)\."
OFFICIAL_RULES: list[Rule] = [
    (_BLOCK + r"(norm[12]|attn\.proj|mlp\.fc[12])\.(weight|bias)", r"backbone.layers.\1.\2.\3"),
    (_BLOCK + r"attn\.qkv\.(weight|bias|bias_mask)", r"backbone.layers.\1.attn.qkv.\2"),
    (_BLOCK + r"ls([12])\.gamma", r"backbone.layers.\1.scale\2"),
    (_BLOCK + r"mlp\.w1\.(weight|bias)", r"backbone.layers.\1.mlp.gate.\2"),
    (_BLOCK + r"mlp\.w2\.(weight|bias)", r"backbone.layers.\1.mlp.up.\2"),
    (_BLOCK + r"mlp\.w3\.(weight|bias)", r"backbone.layers.\1.mlp.fc2.\2"),
    (_AT + r"norm\.(weight|bias)", r"backbone.norm.\1"),
    (_AT + r"patch_embed\.proj\.(weight|bias)", r"backbone.patch_embed.\1"),
]
OWN_TRAINING_KEYS = ("attention_dropout", "return_class_token")
SIZE = 512, 512  # of dinov3's segmentation configurations


def is_dinov3(checkpoint: Checkpoint) -> bool:
    """Whether config.json says so, or these are the keys of facebookresearch/dinov3."""
    keys = {key.removeprefix("backbone.") for key in checkpoint.state}
    if "embeddings.patch_embeddings.weight" in keys:
        return read_model_type(checkpoint) == MODEL_TYPE
    return {"cls_token", "rope_embed.periods", "patch_embed.proj.weight"} <= keys


def read_dinov3(checkpoint: Checkpoint, options: ReadOptions, settings: Settings) -> tuple[DoViT, list[str]]:
    """As Family.read has it."""
    state = checkpoint.state if options.head is None else add_head_file(checkpoint.state, options.head)
    account = Account(checkpoint.path, dict(state))
    if account.has(r"embeddings\.patch_embeddings\.weight"):
        return _read_huggingface(checkpoint, account, options, settings)
    return _read_official(account, options, settings)


def _read_huggingface(
    checkpoint: Checkpoint, account: Account, options: ReadOptions, settings: Settings
) -> tuple[DoViT, list[str]]:
    section = read_section(checkpoint, options, settings)
    section.ignore(*OWN_TRAINING_KEYS, *TRAINING_KEYS, *ROTARY_AUGMENTATIONS, *BACKBONE_OUTPUTS)
    depth = account.count(_LAYER + r".+")
    account.rename(HUGGINGFACE_RULES)
    check_biases(section, account, _LAYER)
    complete_layers(account, depth)
    gated = read_gated(section, "use_gated_mlp", account.has(_LAYER + r"mlp\.gate_proj\.weight"))
    config = backbone_config(
        account,
        depth,
        heads=read_attention_heads(section, options, 6),
        norm_eps=section.choose("layer_norm_eps", 1e-5, option=("--norm-eps", options.norm_eps)),
        gated=gated,
        activation=read_activation(section, "hidden_act", "gelu"),
        prefix=place_prefix(account, "embeddings.cls_token", "embeddings.register_tokens"),
        rope_theta=read_rope_theta(section),
    )
    for name, found, standard in (
        ("hidden_size", config.embed_dim, 384),
        ("intermediate_size", config.mlp_dim, 1536),
        ("num_hidden_layers", depth, 12),
        ("num_channels", 3, 3),
        ("num_register_tokens", config.prefix - 1, 0),
        ("head_dim", config.head_dim, None),
    ):
        section.same(name, found, standard)
    if section.pair("patch_size", 16) != (config.patch,) * 2:
        raise section.refusal("patch_size", f"the weights are of patches of {config.patch}")
    preprocessor = read_preprocessor(checkpoint)
    stated = section.pair("image_size", 224)
    size = pick_size(options, preprocessor, ("config.json: image_size", stated), settings, config.patch)
    account.leave(r"embeddings\.mask_token", "stands for masked patches in training")
    head = read_linear_head(account, config.embed_dim, depth, options, settings)
    names = class_names(section, head.classes) if head else None
    section.finish()
    backbone = ReadBackbone("DINOv3", config, size, preprocessor.mean, preprocessor.std)
    model, notes = build_segmenter(account, backbone, head, options, settings, names)
    return model, [*notes, *preprocessor.notes]


def _read_official(account: Account, options: ReadOptions, settings: Settings) -> tuple[DoViT, list[str]]:
    refuse_configuration(account, options, "DINOv3", "--norm-eps, --mean, --std and --image-size")
    at = "backbone." if account.has(r"backbone\.rope_embed\.periods") else ""
    depth = account.count(_BLOCK + r".+")
    account.rename(OFFICIAL_RULES)
    complete_layers(account, depth)
    periods = tuple(account.take(f"{at}rope_embed.periods").double().flatten().tolist())
    dim = account.rows(f"{at}patch_embed.proj.weight")
    found = dim // (4 * len(periods))  # a head has four channels for each period
    if options.heads not in (None, found) or found * 4 * len(periods) != dim:
        raise DovitError(
            f"{account.path}: {len(periods)} rotary periods belong to {found} attention heads of {4 * len(periods)} channels"
        )
    settings.choose("heads", file=("its rotary periods", found))
    settings.choose("rotary positions", assumed=("DINOv3's code", "height and width from -1 to 1, each by itself"))
    gated = account.has(_BLOCK + r"mlp\.w1\.weight")
    config = backbone_config(
        account,
        depth,
        heads=found,
        norm_eps=settings.choose(
            "norm_eps", option=("--norm-eps", options.norm_eps), assumed=("DINOv3's models", 1e-5)
        ),
        gated=gated,
        activation=Activation(kind="silu" if gated else "gelu"),
        prefix=place_prefix(account, f"{at}cls_token", f"{at}storage_tokens"),
    )
    config = with_rotary(config, periods)
    size = settings.choose(
        "image_size",
        option=("--image-size", options.image_size),
        assumed=("DINOv3's segmentation", SIZE),
    )
    image_size_for(0, config.patch, size)  # refuses one that is no multiple of the patch
    account.leave(rf"{at}mask_token", "stands for masked patches in training")
    account.leave(rf"{at}(local_)?cls_norm\.(weight|bias)", "a norm of the class token alone")
    head = read_linear_head(account, config.embed_dim, depth, options, settings)
    return build_segmenter(account, ReadBackbone("DINOv3", config, size), head, options, settings)


FAMILY = Family("DINOv3", is_dinov3, read_dinov3, takes_head=True)
