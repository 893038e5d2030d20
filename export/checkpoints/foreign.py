"""Files that cannot become a bundle: what they are, and what to do instead. The table in docs/checkpoints.md lists them."""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from dovit.runtime.bundle.manifest import MANIFEST_NAME

DYNAMIC_VIT = "dynamicvit"  # the metadata of a DynamicViT's file, see dovit.training.policies.checkpoint
RUN_STATE = {"step", "settings", "model", "optimiser"}  # the keys of a run's state, see dovit.training.resume
# modules whose classes a file of weights never names
MODULES = (
    "torch.nn.modules.",
    "torch.fx.",
    "timm.",
    "mmseg.",
    "mmengine.model",
    "mmcv.cnn",
    "segm.",
    "transformers.",
    "__main__.",
)
SAVE_WEIGHTS = (
    'python -c \'import torch; model = torch.load("{name}", map_location="cpu", weights_only=False); '
    'torch.save({{"state_dict": model.state_dict()}}, "weights.pth")\''
)

# pattern of a key → what such a file is; the first that matches
LAYERS = [
    (r"(backbone\.)?blocks\.\d+\.attn\.[qk]_norm\..+", "normalises queries and keys (timm's qk_norm)"),
    (r"norm_pre\..+", "has a norm before its first layer (timm's pre_norm, CLIP)"),
    (
        r"(backbone\.)?blocks\.\d+\.(attn\.(q_bias|v_bias|rope.*|[qkv]_proj\..+)|mlp\.(w[123]|fc1_[gx])\..+)",
        "is an EVA, BEiT or SwiGLU transformer, with other layers than ViT's",
    ),
    (r".*relative_position_bias_table", "has relative position biases (Swin, BEiT), which plain ViT has not"),
]
MODELS = [
    (r"(backbone|encoder)\.(stages|layers)\.\d+\.blocks\..+", "is a Swin or another transformer of stages"),
    (
        r"backbone\.layers\.\d+\.\d+\..+|(segformer\.)?encoder\.patch_embeddings\..+",
        "is a SegFormer (MiT), whose tokens change in number",
    ),
    (r"(backbone\.|module\.)?(layer[1-4]\.\d+\.conv1|stem\.\d+|features\.\d+)\..+", "is a convolutional network"),
    (r"(visual|image_encoder)\..+", "is a CLIP or SAM model"),
    (r"((vit|dinov2|model)\.)?(encoder\.layer|embeddings)\..+", "has the keys of Hugging Face transformers"),
    (r"(model\.)?pixel_decoder\..+|.*transformer_module\..+", "is a Mask2Former or MaskFormer"),
    (
        r"backbone\.blocks\.\d+\..+",
        "has a ViT of mmpretrain or timm as its backbone, not mmsegmentation's VisionTransformer",
    ),
]
READS = "dovit reads plain ViTs with SETR's and Segmenter's decoders, DINOv2 and DINOv3 with linear heads, and EoMT"


def unlike_vit(keys: Iterable[str]) -> str | None:
    """Why layers of these keys are no plain ViT's, as the end of a sentence; None where nothing is known against them."""
    return _first(LAYERS, keys)


def explain_content(content: dict[str, Any], keys: Iterable[str]) -> str | None:
    """What a file of this content and these keys is, where that is known and no bundle can be made of it."""
    metadata = content.get("metadata")
    if isinstance(metadata, dict) and DYNAMIC_VIT in metadata:
        return (
            "a DynamicViT of dovit-train --policy dynamicvit, whose prediction modules decide which tokens stay: dovit-eval "
            "--ckpt evaluates it; bundles have token pass by confidence only, which dovit-train trains without --policy"
        )
    if content.keys() >= RUN_STATE:
        return (
            "the state of a run of dovit-train, not a model: go on with that run by --resume, at whose end it writes "
            "model.safetensors, and give that"
        )
    keys = list(keys)
    found = _first(LAYERS, keys) or _first(MODELS, keys)
    return f"{found}; {READS}" if found else None


def explain_file(path: Path) -> str | None:
    """What the file or folder `path` is, where it is no file of weights; None where that is not known. Runs nothing in it."""
    with contextlib.suppress(OSError, ValueError):
        if path.is_dir():
            return _folder(path)
        if not path.is_file():  # reading a pipe would wait for a writer
            return None
        if path.name == MANIFEST_NAME:
            return f"a bundle's manifest, not a checkpoint: dovit-run and dovit-export take its folder as --engine {path.parent}"
        with path.open("rb") as stream:
            head = stream.read(64)
        if path.suffix == ".onnx" or (head[:1] == b"\x08" and re.search(rb"pytorch|onnx|tf2onnx", head)):
            return "an ONNX model, whose weights have lost their names: give the PyTorch checkpoint that it was made of"
        if head[:4] in (b"ftrt", b"ptrt") or path.suffix in (".plan", ".engine", ".trt"):
            return "a TensorRT plan, which holds no weights to read: give the PyTorch checkpoint that it was made of"
        if head[:8] == b"\x89HDF\r\n\x1a\n" or path.suffix in (".h5", ".keras", ".npz"):
            return "weights of Keras or JAX: convert them with timm or transformers, and save a PyTorch state_dict"
        return _archive(path) if head[:2] == b"PK" else None
    return None


def _folder(path: Path) -> str | None:
    if (path / MANIFEST_NAME).is_file():
        return f"a bundle, not a checkpoint: dovit-run and dovit-export take it as --engine {path}"
    weights = [f for name in ("*.safetensors", "pytorch_model*.bin", "*.pth") for f in sorted(path.glob(name))]
    if (path / "config.json").is_file():  # read as Hugging Face's: the reader reports errors
        return None
    return f"a folder; --ckpt takes the checkpoint file in it, such as {weights[0]}" if weights else None


def _archive(path: Path) -> str | None:
    names: list[str] = []
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:  # damaged: the reader reports it
        inside = [name.partition("/")[2] for name in archive.namelist()]
        if any(name.startswith("code/") for name in inside) and "constants.pkl" in inside:
            return (
                f'a TorchScript program, not a checkpoint: python -c \'import torch; model = torch.jit.load("{path.name}", '
                f'map_location="cpu"); torch.save({{"state_dict": model.state_dict()}}, "weights.pth")\' saves its weights'
            )
        if any(
            re.fullmatch(r"(models/.+\.json|serialized_exported_program\.json)", name)
            for name in (*archive.namelist(), *inside)
        ):
            return (
                f'a program of torch.export: python -c \'import torch; program = torch.export.load("{path.name}"); '
                f'torch.save({{"state_dict": dict(program.state_dict)}}, "weights.pth")\' saves its weights'
            )
        if all(
            entry.compress_size == entry.file_size for entry in archive.infolist()
        ):  # compressed records are not read: they could be large
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    module = next((name for name in names if name.startswith(MODULES)), None)
    if module:
        return (
            f"a whole pickled model ({module}), which runs code when it is read; nothing of it was run. Where you "
            f"trust it and have its classes, {SAVE_WEIGHTS.format(name=path.name)} saves its weights"
        )
    return None


def _first(table: list[tuple[str, str]], keys: Iterable[str]) -> str | None:
    keys = list(keys)
    for pattern, sentence in table:
        found = next((key for key in keys if re.fullmatch(pattern, key)), None)
        if found:
            return f"{sentence}: {found}"
    return None
