"""Small EoMTs of the real transformers with random weights, how its image processor makes labels, and tue-mps/eomt's layout."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    EomtConfig,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
    EomtImageProcessor,
)

from oracle.huggingface import MEAN, STD, pixel_values, randomise

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "image_size": 80,
    "num_queries": 9,
    "num_blocks": 2,
    "num_register_tokens": 3,
    "num_labels": 5,
}
KINDS = ("eomt", "eomt_dinov3")


def small(kind: str, **changes: Any) -> Any:
    """A model in evaluation mode, whose mask annealing is finished."""
    own = {"mlp_ratio": 2} if kind == "eomt" else {"intermediate_size": 96}
    config, model = {
        "eomt": (EomtConfig, EomtForUniversalSegmentation),
        "eomt_dinov3": (EomtDinov3Config, EomtDinov3ForUniversalSegmentation),
    }[kind]
    torch.manual_seed(0)
    made: Any = model(config(**SMALL | own | changes))
    randomise(made)
    with torch.no_grad():
        made.class_predictor.weight.mul_(4)  # classes that differ from one query to the next
    made.attn_mask_probs.zero_()
    return made


def save(model: Any, folder: Path, **about: Any) -> Path:
    """As save_pretrained writes it, with the image processor's configuration."""
    model.save_pretrained(folder)
    side = model.config.image_size
    settings = {"image_mean": MEAN, "image_std": STD, "size": {"shortest_edge": side, "longest_edge": side}}
    processor = EomtImageProcessor(**settings | about)
    (folder / "preprocessor_config.json").write_text(processor.to_json_string())
    return folder


@torch.no_grad()
def scores(model: Any, image: Tensor) -> Tensor:
    """[B, H, W, 3] uint8 of the model's size → semantic scores [B, C, H, W] of post_process_semantic_segmentation."""
    height, width = image.shape[1:3]
    outputs = model(pixel_values(image))
    size = {"shortest_edge": height, "longest_edge": width}
    found = EomtImageProcessor().post_process_semantic_segmentation(
        SimpleNamespace(
            masks_queries_logits=outputs.masks_queries_logits,
            class_queries_logits=outputs.class_queries_logits,
            patch_offsets=None,
        ),
        target_sizes=[(height, width)] * len(image),
        size=size,
        return_segmentation_scores=True,
    )
    return torch.stack([one.segmentation_scores for one in found])


# --- tue-mps/eomt's own layout ---

_NETWORK = [
    (r"query\.(.+)", r"network.q.\1"),
    (r"class_predictor\.(.+)", r"network.class_head.\1"),
    (r"mask_head\.fc1\.(.+)", r"network.mask_head.0.\1"),
    (r"mask_head\.fc2\.(.+)", r"network.mask_head.2.\1"),
    (r"mask_head\.fc3\.(.+)", r"network.mask_head.4.\1"),
    (r"upscale_block\.block\.(\d+)\.layernorm2d\.(.+)", r"network.upscale.\1.norm.\2"),
    (r"upscale_block\.block\.(\d+)\.(conv.+)", r"network.upscale.\1.\2"),
    (r"(attn_mask_probs)", r"network.\1"),
    (r"(criterion\.empty_weight)", r"\1"),
    (r"layernorm\.(.+)", r"network.encoder.backbone.norm.\1"),
]
_TIMM = [
    (r"embeddings\.cls_token", r"network.encoder.backbone.cls_token"),
    (r"embeddings\.register_tokens", r"network.encoder.backbone.reg_token"),
    (r"embeddings\.patch_embeddings\.projection\.(.+)", r"network.encoder.backbone.patch_embed.proj.\1"),
    (r"layers\.(\d+)\.(norm\d|mlp\.fc\d)\.(.+)", r"network.encoder.backbone.blocks.\1.\2.\3"),
    (r"layers\.(\d+)\.attention\.out_proj\.(.+)", r"network.encoder.backbone.blocks.\1.attn.proj.\2"),
    (r"layers\.(\d+)\.layer_scale(\d)\.lambda1", r"network.encoder.backbone.blocks.\1.ls\2.gamma"),
    (r"layers\.(\d+)\.mlp\.down_proj\.(.+)", r"network.encoder.backbone.blocks.\1.mlp.fc2.\2"),
]
_DINOV3 = [
    (r"embeddings\.(.+)", r"network.encoder.backbone.patch_embed.\1"),
    (r"layers\.(.+)", r"network.encoder.backbone.blocks.\1"),
]


def official(model: Any, folder: Path) -> dict[str, Tensor]:
    """The weights saved in `folder` under tue-mps/eomt's names: timm's in the layers, or transformers' on DINOv3."""
    state = load_file(folder / "model.safetensors")
    rotary = model.config.model_type == "eomt_dinov3"
    made: dict[str, Tensor] = {
        "network.encoder.pixel_mean": torch.tensor(MEAN).reshape(1, 3, 1, 1),
        "network.encoder.pixel_std": torch.tensor(STD).reshape(1, 3, 1, 1),
    }
    for key, value in state.items():
        for pattern, name in [*_NETWORK, *(_DINOV3 if rotary else _TIMM)]:
            match = re.fullmatch(pattern, key)
            if match:
                made[match.expand(name)] = value
        if rotary:
            continue
        at = re.match(r"layers\.(\d+)\.", key)
        if key == "embeddings.position_embeddings.weight":
            made["network.encoder.backbone.pos_embed"] = value[None]
        elif at and ".q_proj." in key:
            parts = [state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            made[f"network.encoder.backbone.blocks.{at[1]}.attn.qkv.{key.rsplit('.', 1)[1]}"] = torch.cat(parts)
        elif at and ".gate_proj." in key:
            parts = [value, state[key.replace("gate_proj", "up_proj")]]
            made[f"network.encoder.backbone.blocks.{at[1]}.mlp.fc1.{key.rsplit('.', 1)[1]}"] = torch.cat(parts)
    return made


def change(folder: Path, name: str, **changes: Any) -> None:
    """Other values in a JSON file of `folder`."""
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
