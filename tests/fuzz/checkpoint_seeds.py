"""A small checkpoint of every format, and the information that a driver needs to alter it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from models import randomised, small_config
from torch import Tensor

from dovit.export.checkpoints import ReadOptions, save_model
from dovit.export.model import DoViT

VARIANT = """\
net_kwargs:
  backbone: vit_tiny_patch16_384
  n_heads: 2
  patch_size: 16
  normalization: vit
dataset_kwargs:
  normalization: deit
inference_kwargs:
  window_size: 32
  window_stride: 24
"""
META = {
    "CLASSES": ("road", "sky", "tree"),
    "PALETTE": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    "iter": 5,
    "cfg": """
norm = dict(type='SyncBN')
backbone = dict(type='VisionTransformer', img_size=(32, 32), num_heads=2, out_indices=(0, 2, 4))
head = dict(type='SETRUPHead', num_convs=1, kernel_size=1, up_scale=4, norm_cfg=norm)
model = dict(backbone=backbone, decode_head=head, auxiliary_head=[dict(head, in_index=0), dict(head, in_index=1)])
""",
}


@dataclass
class Seed:
    """`container`: zip, legacy or safetensors. `rest`: what lies beside the weights."""

    path: Path
    container: str
    state: dict[str, Tensor]
    rest: dict[str, Any]
    options: ReadOptions
    variant: str | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)

    def content(self) -> tuple[dict[str, Any], dict[Any, Any]]:
        """The file's content, and the dictionary of weights in it: copies, the tensors apart."""
        state: dict[Any, Any] = dict(self.state)
        return {**self.rest, "state_dict": state}, state

    def write(self) -> Seed:
        """Write the file and return the seed."""
        torch.save(self.content()[0], self.path, _use_new_zipfile_serialization=self.container == "zip")
        return self


def seeds(folder: Path) -> list[Seed]:
    """In subfolders of `folder`."""
    made: list[Seed] = []

    def place(name: str, suffix: str = ".pth") -> Path:
        inside = folder / name
        inside.mkdir()
        return inside / f"model{suffix}"

    for kind, head in (
        ("setr-mla", "setr-k3"),
        ("segmenter-mask", "conv"),
        ("setr-pup", "fcn"),
        ("setr-naive", "neighbours"),
    ):
        model = _small(kind, head)
        config = {"dovit": model.config.model_dump(mode="json")}
        for container in ("zip", "legacy", "safetensors"):
            path = place(f"own-{kind}-{container}", ".safetensors" if container == "safetensors" else ".pth")
            seed = Seed(path, container, model.state_dict(), config, ReadOptions())
            if container == "safetensors":
                save_model(model, path)
                made.append(seed)
            else:
                made.append(seed.write())
    for kind in ("setr-naive", "setr-mla", "segmenter-mask", "segmenter-linear"):
        state = _as_mmseg(_small(kind, "setr-k1"), heads=kind == "setr-naive")
        options = ReadOptions(dense=kind != "setr-naive")
        for container in ("zip", "legacy"):
            meta = {name: META[name] for name in META if kind == "setr-naive" or name != "cfg"}
            made.append(Seed(place(f"mmseg-{kind}-{container}"), container, state, {"meta": meta}, options).write())
    state = _as_rstrudel(_small("segmenter-mask", "conv"))
    seed = Seed(place("rstrudel"), "zip", state, {}, ReadOptions(dense=True), VARIANT).write()
    seed.path.with_name("variant.yml").write_text(VARIANT)
    made.append(seed)
    backbone = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    options = ReadOptions(arch="segmenter-linear", classes=3, untrained=True)
    made.append(Seed(place("timm"), "zip", backbone, {}, options).write())
    return made


def _small(kind: str, head: str) -> DoViT:
    return randomised(small_config(kind, head=head, layers=(1, 3), depth=5, image_size=(32, 32), classes=3))


def _renamed(state: dict[str, Tensor], rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    for pattern, name in rules:
        state = {re.sub(pattern, name, key): tensor for key, tensor in state.items()}
    return state


def _as_mmseg(model: DoViT, *, heads: bool) -> dict[str, Tensor]:
    """The weights under mmsegmentation's names."""
    state = {k: v for k, v in model.state_dict().items() if heads or not k.startswith("heads.")}
    layer = r"^(backbone|decoder)\.layers\.(\d+)\."
    state = _renamed(
        state,
        [
            (layer + r"norm(\d)\.", r"\1.layers.\2.ln\3."),
            (layer + r"attn\.qkv\.", r"\1.layers.\2.attn.attn.in_proj_"),
            (layer + r"attn\.proj\.", r"\1.layers.\2.attn.attn.out_proj."),
            (layer + r"mlp\.fc1\.", r"\1.layers.\2.ffn.layers.0.0."),
            (layer + r"mlp\.fc2\.", r"\1.layers.\2.ffn.layers.1."),
            (r"^backbone\.patch_embed\.", "backbone.patch_embed.projection."),
            (r"^backbone\.norm\.", "backbone.ln1."),
            (r"^heads\.(\d+)\.classify", r"auxiliary_head.\1.conv_seg"),
            (r"^heads\.(\d+)\.convs\.(\d+)\.0\.", r"auxiliary_head.\1.up_convs.\2.0.conv."),
            (r"^heads\.(\d+)\.convs\.(\d+)\.1\.", r"auxiliary_head.\1.up_convs.\2.0.bn."),
            (r"^heads\.", "auxiliary_head."),
            (r"^decoder\.convs\.(\d+)\.0\.", r"decode_head.up_convs.\1.0.conv."),
            (r"^decoder\.convs\.(\d+)\.1\.", r"decode_head.up_convs.\1.0.bn."),
            (r"^decoder\.norms\.", "neck.norm."),
            (r"^decoder\.project\.(\d+)\.0\.", r"neck.mla.channel_proj.\1.conv."),
            (r"^decoder\.project\.(\d+)\.1\.", r"neck.mla.channel_proj.\1.bn."),
            (r"^decoder\.extract\.(\d+)\.0\.", r"neck.mla.feat_extract.\1.conv."),
            (r"^decoder\.extract\.(\d+)\.1\.", r"neck.mla.feat_extract.\1.bn."),
            (r"^decoder\.heads\.(\d+)\.(\d+)\.0\.", r"decode_head.up_convs.\1.\2.conv."),
            (r"^decoder\.heads\.(\d+)\.(\d+)\.1\.", r"decode_head.up_convs.\1.\2.bn."),
            (r"^decoder\.classify", "decode_head.conv_seg"),
            (r"^decoder\.class_embed", "decode_head.cls_emb"),
            (r"^decoder\.project_patches", "decode_head.patch_proj"),
            (r"^decoder\.project_classes", "decode_head.classes_proj"),
            (r"^decoder\.project\.", "decode_head.dec_proj."),
            (
                r"^decoder\.norm\.",
                "decode_head.decoder_norm." if "decoder.class_embed" in state else "decode_head.norm.",
            ),
            (r"^decoder\.", "decode_head."),
        ],
    )
    if "decode_head.cls_emb" in state:
        state["decode_head.cls_emb"] = state["decode_head.cls_emb"][None]
    token = state.pop("backbone.prefix")[:1] if "backbone.prefix" in state else torch.zeros(1, 64)
    token = token if len(token) else torch.zeros(1, 64)
    state["backbone.cls_token"] = token[None]
    state["backbone.pos_embed"] = torch.cat([torch.zeros_like(token), state["backbone.pos_embed"]])[None]
    return state


def _as_rstrudel(model: DoViT) -> dict[str, Tensor]:
    """The weights under the names of rstrudel/segmenter."""
    state = _renamed(
        model.state_dict(),
        [
            (r"^backbone\.layers\.", "encoder.blocks."),
            (r"^backbone\.patch_embed\.", "encoder.patch_embed.proj."),
            (r"^backbone\.", "encoder."),
            (r"^decoder\.layers\.", "decoder.blocks."),
            (r"^decoder\.class_embed", "decoder.cls_emb"),
            (r"^decoder\.project\.", "decoder.proj_dec."),
            (r"^decoder\.project_patches\.weight", "decoder.proj_patch"),
            (r"^decoder\.project_classes\.weight", "decoder.proj_classes"),
            (r"^decoder\.norm\.", "decoder.decoder_norm."),
        ],
    )
    state = {k: v for k, v in state.items() if not k.startswith("heads.")}
    token = state.pop("encoder.prefix")[:1]
    state["encoder.cls_token"] = token[None]
    state["encoder.pos_embed"] = torch.cat([torch.zeros_like(token), state["encoder.pos_embed"]])[None]
    state["decoder.cls_emb"] = state["decoder.cls_emb"][None]
    return state
