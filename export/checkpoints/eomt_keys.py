"""EoMT's keys in the four layouts of its files, and the keys of its configuration that change nothing after training."""

from __future__ import annotations

from dovit.export.checkpoints.keys import Rule

# layers.N of Hugging Face's, blocks.N of tue-mps/eomt's
LAYER = r"(?:layers|(?:network\.)?encoder\.backbone\.blocks)\.(\d+)\."
_AT = r"(?:network\.)?encoder\.backbone\."
_TO = r"backbone.layers.\1."
BACKBONE_RULES: list[Rule] = [
    (LAYER + r"(norm[12])\.(weight|bias)", _TO + r"\2.\3"),
    # timm's
    (LAYER + r"(attn\.qkv|attn\.proj)\.(weight|bias)", _TO + r"\2.\3"),
    (LAYER + r"ls([12])\.gamma", _TO + r"scale\2"),
    # transformers'
    (LAYER + r"attention\.([qkv])_proj\.(weight|bias)", _TO + r"attn.\2.\3"),
    (LAYER + r"attention\.(?:o|out)_proj\.(weight|bias)", _TO + r"attn.proj.\2"),
    (LAYER + r"layer_scale([12])\.lambda1", _TO + r"scale\2"),
    (LAYER + r"mlp\.(fc[12])\.(weight|bias)", _TO + r"mlp.\2.\3"),
    (LAYER + r"mlp\.(gate|up)_proj\.(weight|bias)", _TO + r"mlp.\2.\3"),
    (LAYER + r"mlp\.weights_in\.(weight|bias)", _TO + r"mlp.fc1.\2"),  # SwiGLU before transformers 5
    (LAYER + r"mlp\.(?:down_proj|weights_out)\.(weight|bias)", _TO + r"mlp.fc2.\2"),
    (rf"(?:layernorm|{_AT}norm)\.(weight|bias)", r"backbone.norm.\1"),
    (
        rf"(?:embeddings|{_AT}patch_embed)\.(?:patch_embeddings\.projection|patch_embeddings|proj)\.(weight|bias)",
        r"backbone.patch_embed.\1",
    ),
]
DECODER_RULES: list[Rule] = [
    (r"(?:query|(?:network\.)?q)\.weight", "decoder.query"),
    (r"(?:class_predictor|(?:network\.)?class_head)\.(weight|bias)", r"decoder.class_head.\1"),
    *(
        (rf"(?:network\.)?mask_head\.(?:fc{n + 1}|{2 * n})\.(weight|bias)", rf"decoder.mask_head.{n}.\1")
        for n in range(3)
    ),
    (
        r"(?:upscale_block\.block|(?:network\.)?upscale)\.(\d+)\.(conv[12])\.(weight|bias)",
        r"decoder.upscale.\1.\2.\3",
    ),
    (
        r"(?:upscale_block\.block|(?:network\.)?upscale)\.(\d+)\.(?:layernorm2d|norm)\.(weight|bias)",
        r"decoder.upscale.\1.norm.\2",
    ),
]
OWN_TRAINING_KEYS = (
    "hidden_dropout_prob",
    "attention_dropout",
    # the loss
    "no_object_weight",
    "class_weight",
    "mask_weight",
    "dice_weight",
    "train_num_points",
    "oversample_ratio",
    "importance_sample_ratio",
)
