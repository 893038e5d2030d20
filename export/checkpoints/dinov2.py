"""DINOv2: Hugging Face folders (dinov2, dinov2_with_registers) and facebookresearch/dinov2's own files.

The layers are ViT's with LayerScale, which is multiplied into the projections, and SwiGLU in ViT-g; `register` tokens follow
the class token and have no positions. Both code bases apply the final norm to each layer's output that a head takes.
"""

from __future__ import annotations

import torch

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
from dovit.export.checkpoints.pos_embed import Interpolation, image_size_for, resize_positions
from dovit.export.checkpoints.segmenters import ReadBackbone, build_segmenter, refuse_configuration
from dovit.export.checkpoints.settings import Settings
from dovit.export.checkpoints.transformers_vit import (
    BACKBONE_OUTPUTS,
    TRAINING_KEYS,
    check_mlp_ratio,
    read_attention_heads,
)
from dovit.export.checkpoints.vit_layers import backbone_config, complete_layers
from dovit.export.model import DoViT
from dovit.export.model.config import Activation

MODEL_TYPES = ("dinov2", "dinov2_with_registers")
# Dinov2Embeddings.interpolate_pos_encoding; Dinov2WithRegistersEmbeddings' antialiases
HUGGINGFACE_POSITIONS = {
    "dinov2": Interpolation("bicubic"),
    "dinov2_with_registers": Interpolation("bicubic", antialias=True),
}
# DinoVisionTransformer.interpolate_pos_encoding, with what dinov2/hub/backbones.py gives: models with registers are other
OFFICIAL_POSITIONS = Interpolation("bicubic", offset=0.1)
OFFICIAL_REGISTER_POSITIONS = Interpolation("bicubic", antialias=True)

_AT = r"(?:dinov2(?:_with_registers)?\.)?"
_LAYER = _AT + r"encoder\.layer\.(\d+)\."
HUGGINGFACE_RULES: list[Rule] = [
    (_LAYER + r"(norm[12])\.(weight|bias)", r"backbone.layers.\1.\2.\3"),
    (_LAYER + r"attention\.attention\.([qkv])(?:uery|ey|alue)\.(weight|bias)", r"backbone.layers.\1.attn.\2.\3"),
    (_LAYER + r"attention\.output\.dense\.(weight|bias)", r"backbone.layers.\1.attn.proj.\2"),
    (
        _LAYER + r"attention\.([qkv])_proj\.(weight|bias)",
        r"backbone.layers.\1.attn.\2.\3",
    ),  # as transformers 5 names them
    (_LAYER + r"attention\.o_proj\.(weight|bias)", r"backbone.layers.\1.attn.proj.\2"),
    (_LAYER + r"layer_scale([12])\.lambda1", r"backbone.layers.\1.scale\2"),
    (_LAYER + r"mlp\.(fc[12])\.(weight|bias)", r"backbone.layers.\1.mlp.\2.\3"),
    (_LAYER + r"mlp\.weights_in\.(weight|bias)", r"backbone.layers.\1.mlp.fc1.\2"),
    (_LAYER + r"mlp\.(gate|up)_proj\.(weight|bias)", r"backbone.layers.\1.mlp.\2.\3"),
    (_LAYER + r"mlp\.(?:weights_out|down_proj)\.(weight|bias)", r"backbone.layers.\1.mlp.fc2.\2"),
    (_AT + r"layernorm\.(weight|bias)", r"backbone.norm.\1"),
    (_AT + r"embeddings\.patch_embeddings\.projection\.(weight|bias)", r"backbone.patch_embed.\1"),
]
# blocks.N, or blocks.CHUNK.N as its training saves them
_BLOCK = r"(?:backbone\.)?blocks\.(?:\d+\.)?(\d+)\."
OFFICIAL_RULES: list[Rule] = [
    (_BLOCK + r"(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(weight|bias)", r"backbone.layers.\1.\2.\3"),
    (_BLOCK + r"mlp\.w12\.(weight|bias)", r"backbone.layers.\1.mlp.fc1.\2"),
    (_BLOCK + r"mlp\.w3\.(weight|bias)", r"backbone.layers.\1.mlp.fc2.\2"),
    (_BLOCK + r"ls([12])\.gamma", r"backbone.layers.\1.scale\2"),
    (r"(?:backbone\.)?norm\.(weight|bias)", r"backbone.norm.\1"),
    (r"(?:backbone\.)?patch_embed\.proj\.(weight|bias)", r"backbone.patch_embed.\1"),
]
OWN_TRAINING_KEYS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "use_mask_token",
)


def is_dinov2(checkpoint: Checkpoint) -> bool:
    """Whether config.json says so, or these are the keys of facebookresearch/dinov2 (timm's lack the mask token)."""
    keys = {key.removeprefix("backbone.") for key in checkpoint.state}
    if any(key.endswith("embeddings.position_embeddings") for key in keys):
        return read_model_type(checkpoint) in MODEL_TYPES
    return {"cls_token", "pos_embed", "mask_token", "patch_embed.proj.weight"} <= keys and any(
        key.endswith(".ls1.gamma") for key in keys
    )


def read_dinov2(checkpoint: Checkpoint, options: ReadOptions, settings: Settings) -> tuple[DoViT, list[str]]:
    """As Family.read has it."""
    state = checkpoint.state if options.head is None else add_head_file(checkpoint.state, options.head)
    account = Account(checkpoint.path, dict(state))
    if any(key.endswith("embeddings.position_embeddings") for key in state):
        return _read_huggingface(checkpoint, account, options, settings)
    return _read_official(account, options, settings)


def _read_huggingface(
    checkpoint: Checkpoint, account: Account, options: ReadOptions, settings: Settings
) -> tuple[DoViT, list[str]]:
    section = read_section(checkpoint, options, settings)
    registers = section.content.get("model_type") == "dinov2_with_registers"
    section.ignore(*OWN_TRAINING_KEYS, *TRAINING_KEYS, *BACKBONE_OUTPUTS)
    at = next((f"{name}." for name in MODEL_TYPES if account.has(rf"{name}\.embeddings\..+")), "")
    depth = account.count(_LAYER + r".+")
    account.rename(HUGGINGFACE_RULES)
    complete_layers(account, depth)
    gated = section.flag("use_swiglu_ffn", False)
    if gated:
        section.ignore("hidden_act")  # SwiGLU has SiLU, whatever it says
    config = backbone_config(
        account,
        depth,
        heads=read_attention_heads(section, options, 12),
        norm_eps=section.choose("layer_norm_eps", 1e-6, option=("--norm-eps", options.norm_eps)),
        gated=gated,
        activation=Activation(kind="silu") if gated else read_activation(section, "hidden_act", "gelu"),
        prefix=1 + (account.tensor(f"{at}embeddings.register_tokens").shape[1] if registers else 0),
    )
    for key, found, default in (
        ("hidden_size", config.embed_dim, 768),
        ("num_hidden_layers", depth, 12),
        ("num_channels", 3, 3),
        ("num_register_tokens", config.prefix - 1, 4 if registers else 0),
        ("head_dim", config.head_dim, None),
    ):
        section.same(key, found, default)
    check_mlp_ratio(section, config)
    if section.pair("patch_size", 16 if registers else 14) != (config.patch,) * 2:
        raise section.refusal("patch_size", f"the weights are of patches of {config.patch}")
    section.same("qkv_bias", account.has(_LAYER + r"attention\..*(query|q_proj)\.bias"), True)

    preprocessor = read_preprocessor(checkpoint)
    stated = section.pair("image_size", 224)
    size = pick_size(options, preprocessor, ("config.json: image_size", stated), settings, config.patch)
    how = HUGGINGFACE_POSITIONS["dinov2_with_registers" if registers else "dinov2"]
    tokens = [f"{at}embeddings.cls_token"] + [f"{at}embeddings.register_tokens"] * registers
    _place_tokens(account, f"{at}embeddings.position_embeddings", tokens, size, config.patch, how, settings)
    account.leave(rf"{_AT}embeddings\.mask_token", "stands for masked patches in training")
    head = read_linear_head(account, config.embed_dim, depth, options, settings)
    account.leave(r"classifier\.(weight|bias)", "the image classifier")
    names = class_names(section, head.classes) if head else None
    section.finish()
    backbone = ReadBackbone("DINOv2", config, size, preprocessor.mean, preprocessor.std)
    model, notes = build_segmenter(account, backbone, head, options, settings, names)
    return model, [*notes, *preprocessor.notes]


def _read_official(account: Account, options: ReadOptions, settings: Settings) -> tuple[DoViT, list[str]]:
    refuse_configuration(account, options, "DINOv2", "--heads, --norm-eps, --mean, --std and --image-size")
    at = "backbone." if account.has(r"backbone\.pos_embed") else ""
    depth = account.count(_BLOCK + r".+")
    gated = account.has(_BLOCK + r"mlp\.w12\.weight")
    account.rename(OFFICIAL_RULES)
    complete_layers(account, depth)
    registers = account.has(rf"{at}register_tokens")
    dim = account.rows("patch_embed.proj.weight" if not at else f"{at}patch_embed.proj.weight")
    config = backbone_config(
        account,
        depth,
        heads=settings.choose(
            "heads", option=("--heads", options.heads), assumed=("64 channels each", max(dim // 64, 1))
        ),
        norm_eps=settings.choose("norm_eps", option=("--norm-eps", options.norm_eps), assumed=("DINOv2's code", 1e-6)),
        gated=gated,
        activation=Activation(kind="silu" if gated else "gelu"),
        prefix=1 + (account.tensor(f"{at}register_tokens").shape[1] if registers else 0),
    )
    rows = account.tensor(f"{at}pos_embed").shape[1] - 1
    size = image_size_for(rows, config.patch, options.image_size)
    settings.choose("image_size", option=("--image-size", options.image_size), file=("its positions", size))
    how = OFFICIAL_REGISTER_POSITIONS if registers else OFFICIAL_POSITIONS
    tokens = [f"{at}cls_token"] + [f"{at}register_tokens"] * registers
    _place_tokens(account, f"{at}pos_embed", tokens, size, config.patch, how, settings)
    account.leave(rf"{at}mask_token", "stands for masked patches in training")
    account.leave(r"(dino_head|ibot_head)\..+", "heads of the pre-training")
    head = read_linear_head(account, config.embed_dim, depth, options, settings)
    return build_segmenter(account, ReadBackbone("DINOv2", config, size), head, options, settings)


def _place_tokens(
    account: Account,
    positions: str,
    tokens: list[str],
    size: tuple[int, int],
    patch: int,
    how: Interpolation,
    settings: Settings,
) -> None:
    """Prefix tokens and positions for `size`. The first of `positions` is the class token's; registers have none."""
    embed = account.take(positions)[0].float()  # [1+N0, E]
    settings.choose("resizing of positions", assumed=("DINOv2's code", str(how)))
    account.weights["backbone.pos_embed"] = resize_positions(embed[1:], (size[0] // patch, size[1] // patch), how)
    class_token, *registers = (account.take(key)[0].float() for key in tokens)
    account.weights["backbone.prefix"] = torch.cat([class_token + embed[:1], *registers])


FAMILY = Family("DINOv2", is_dinov2, read_dinov2, takes_head=True)
