"""Real mmsegmentation 1.2 models with random weights on a CPU: the independent reference for our own models.

    model = mmseg.build("setr-pup", image_size=(64, 96), classes=19, embed_dim=192, depth=8, heads=3)
    logits = mmseg.encode_decode(model, image)  # [C, H, W] for a uint8 HWC RGB image
    mmseg.save_checkpoint(model, "model.pth")

Needs mmsegmentation 1.2.2, mmcv-lite 2.1.0, mmengine, ftfy and regex; `require()` skips a test where they are missing. This
file has the name of the package it wraps: import it as `oracle.mmseg`, and never put this folder itself on the path.
"""

import copy
import functools
import importlib.util
import io
import pickle
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from shared import COMPILED, locked
from torch import Tensor, nn

VARIANTS = ("setr-naive", "setr-pup", "setr-mla", "segmenter-mask", "segmenter-linear")

_SETR_CONFIGS = {
    ("setr-naive", "ade20k"): "setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py",
    ("setr-naive", "cityscapes"): "setr/setr_vit-l_naive_8xb1-80k_cityscapes-768x768.py",
    ("setr-pup", "ade20k"): "setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py",
    ("setr-pup", "cityscapes"): "setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768.py",
    ("setr-mla", "ade20k"): "setr/setr_vit-l_mla_8xb2-160k_ade20k-512x512.py",
    ("setr-mla", "cityscapes"): "setr/setr_vit-l_mla_8xb1-80k_cityscapes-768x768.py",
}
# Segmenter's configs differ in more than the width (ViT-L: crop 640, stride 608). Other widths take ViT-S's.
_SEGMENTER_SIZES = {192: "t", 384: "s", 768: "b", 1024: "l"}


# --- import


class _NoOperators(types.ModuleType):
    """For mmcv's compiled operators, which mmcv-lite lacks and mmseg imports; none of our models calls one."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*args, **kwargs):
            raise RuntimeError(f"mmcv-lite has no compiled operator {name}")

        return refuse


def require() -> None:
    """Import mmsegmentation. Skips the test where it is not installed; fails where it is and cannot be imported."""
    for package in ("mmcv", "mmengine", "mmseg", "ftfy", "regex"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"not installed: {package}")
    _import_mmseg()


@functools.cache
def _import_mmseg() -> None:
    # One process at a time: yapf, which mmengine imports, caches its grammar in a file, which it renames before it flushes it.
    with locked(COMPILED / ".mmseg.lock"):
        _import()


def _import() -> None:
    import mmcv  # noqa: F401

    if importlib.util.find_spec("mmcv._ext") is None:
        stub = _NoOperators("mmcv._ext")
        # mmengine looks for operators by pkgutil: without a spec that raises; with a spec without a loader it finds none
        stub.__spec__ = importlib.util.spec_from_loader("mmcv._ext", loader=None)
        sys.modules["mmcv._ext"] = stub
    from mmseg.utils import register_all_modules

    register_all_modules()


# --- build


def build(
    variant: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    classes: int | None = None,
    embed_dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    out_indices: Sequence[int] | None = None,
    decoder_channels: int | None = None,
    dataset: str = "ade20k",
    patch_bias: bool = False,
    seed: int = 0,
) -> nn.Module:
    """An mmseg EncoderDecoder in eval mode from a packaged config, scaled by the arguments, every weight random.

    None keeps the config's value, so that `build("setr-pup")` is the full ViT-L. `image_size` is (height, width).
    `dataset` chooses among SETR's configs, whose auxiliary heads differ; Segmenter has ADE20K's only. SETR's 256 are
    `decoder_channels`. `out_indices` follows the config's relative depths unless given. `patch_bias=True` is the layout
    of files made by mmsegmentation up to 1.1.2. The scaled config is kept as `model.cfg`.
    """
    config = scaled_config(
        variant,
        image_size=image_size,
        classes=classes,
        embed_dim=embed_dim,
        depth=depth,
        heads=heads,
        out_indices=out_indices,
        decoder_channels=decoder_channels,
        dataset=dataset,
    )
    config.model.backbone.patch_bias = patch_bias
    return build_config(config, seed)


def scaled_config(
    variant: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    classes: int | None = None,
    embed_dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    out_indices: Sequence[int] | None = None,
    decoder_channels: int | None = None,
    dataset: str = "ade20k",
):
    """The packaged config that `build` builds, scaled by the arguments."""
    _import_mmseg()
    config = _load_config(variant, dataset, embed_dim)
    _scale_backbone(config.model.backbone, embed_dim, depth, heads, out_indices)
    _scale_images(config.model, image_size)
    _scale_decoder(config.model, classes, decoder_channels)
    return config


def build_config(config, seed: int = 0) -> nn.Module:
    """The model of a config, in eval mode, with random weights; the config is kept as `model.cfg`."""
    _import_mmseg()
    from mmseg.registry import MODELS

    with torch.random.fork_rng(devices=[]):  # mmseg's own initialisation must not move the caller's random state
        model = MODELS.build(_for_inference_on_cpu(config.model)).eval().requires_grad_(False)
    randomise(model, seed)
    model.cfg = config
    return model


def _load_config(variant: str, dataset: str, embed_dim: int | None):
    from mmengine import Config

    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; one of {', '.join(VARIANTS)}")
    if variant.startswith("segmenter") and dataset != "ade20k":
        raise ValueError(f"mmsegmentation has no {variant} for {dataset!r}, only for 'ade20k'")
    if variant == "segmenter-mask":
        size = _SEGMENTER_SIZES.get(embed_dim, "s")
        name = f"segmenter/segmenter_vit-{size}_mask_8xb1-160k_ade20k-512x512.py"
    elif variant == "segmenter-linear":
        name = "segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py"
    else:
        name = _SETR_CONFIGS[variant, dataset]
    package = Path(importlib.util.find_spec("mmseg").origin).parent
    return Config.fromfile(package / ".mim" / "configs" / name)


def _scale_backbone(backbone, embed_dim, depth, heads, out_indices) -> None:
    old_depth = backbone.num_layers
    backbone.embed_dims = embed_dim or backbone.embed_dims
    backbone.num_layers = depth or old_depth
    backbone.num_heads = heads or backbone.num_heads
    taps = backbone.get("out_indices")  # Segmenter has none: the last layer only
    if out_indices is not None:
        backbone.out_indices = tuple(out_indices)
    elif taps is not None:
        backbone.out_indices = tuple((tap + 1) * backbone.num_layers // old_depth - 1 for tap in taps)
        if len({-1, *backbone.out_indices}) != len(taps) + 1:
            raise ValueError(f"{backbone.num_layers} layers are too few for {len(taps)} taps; pass out_indices")


def _scale_images(model, image_size) -> None:
    """The crop becomes the image size; the stride keeps its ratio to the crop."""
    if image_size is None:
        return
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    test = model.test_cfg
    test.stride = tuple(new * stride // old for new, stride, old in zip(size, test.stride, test.crop_size, strict=True))
    test.crop_size = model.backbone.img_size = model.data_preprocessor.size = size


def _scale_decoder(model, classes, channels) -> None:
    width = model.backbone.embed_dims
    neck = model.get("neck")
    channels = channels or (neck.out_channels if neck else model.decode_head.channels)
    if neck:
        neck.update(in_channels=[width] * len(neck.in_channels), out_channels=channels)
    for head in (model.decode_head, *model.get("auxiliary_head", ())):
        head.num_classes = classes or head.num_classes
        if head.type == "SETRUPHead":
            head.update(in_channels=width, channels=channels)
        elif head.type == "SETRMLAHead":
            inputs = len(head.in_channels)
            branch = channels // 2
            head.update(in_channels=(channels,) * inputs, mla_channels=branch, channels=branch * inputs)
        elif head.type == "FCNHead":
            inputs = channels if neck else width
            head.update(in_channels=inputs, channels=inputs)
        else:
            head.update(in_channels=width, channels=width, embed_dims=width, num_heads=model.backbone.num_heads)


def _for_inference_on_cpu(model_config):
    """A copy that downloads no weights and synchronises nothing."""
    model_config = copy.deepcopy(model_config)

    def visit(node) -> None:
        if isinstance(node, dict):
            node.pop("init_cfg", None)
            node.pop("pretrained", None)
            if node.get("type") == "SyncBN":
                node["type"] = "BN"
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, dict | list | tuple):
                visit(child)

    visit(model_config)
    return model_config


# --- weights


def randomise(model: nn.Module, seed: int) -> None:
    """Gives every parameter and running statistic a value of its own, such that activations stay of moderate size."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():  # the tensors share the model's memory
        tensor.copy_(_random_weight(name, tensor, generator))


def _random_weight(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    leaf = name.rpartition(".")[2]
    noise = torch.randn(tensor.shape, generator=generator)
    if leaf == "num_batches_tracked":
        return torch.tensor(1000)
    if leaf == "running_var":
        return 0.5 + torch.rand(tensor.shape, generator=generator)
    if leaf == "running_mean" or leaf.endswith("bias"):
        return 0.2 * noise
    if leaf in ("pos_embed", "cls_token", "cls_emb"):
        return 0.5 * noise
    if tensor.ndim == 1:  # the weight of a norm
        return 1 + 0.2 * noise
    return noise * _gain(name) / tensor[0].numel() ** 0.5


def _gain(name: str) -> float:
    if "in_proj" in name:
        return 1.5  # attention that is neither uniform nor one-hot
    if "conv_seg" in name:
        return 3.0  # confidences spread over (0, 1)
    return 2**0.5 if ".conv." in name else 1.0  # a ReLU follows, which halves the power


# --- run


def preprocess(model: nn.Module, image: np.ndarray) -> Tensor:
    """uint8 HWC RGB → normalised [1, 3, H, W], by the model's own preprocessor, which takes what OpenCV reads: BGR."""
    bgr = np.ascontiguousarray(np.asarray(image)[..., ::-1].transpose(2, 0, 1))
    return model.data_preprocessor({"inputs": [torch.from_numpy(bgr)]}, training=False)["inputs"]


@torch.no_grad()
def encode_decode(model: nn.Module, image: np.ndarray) -> Tensor:
    """Logits [C, H, W] at the image's size."""
    inputs = preprocess(model, image)
    return model.encode_decode(inputs, [{"img_shape": inputs.shape[2:]}])[0]


@torch.no_grad()
def decoder_logits(model: nn.Module, image: np.ndarray) -> Tensor:
    """Logits [C, h, w] at the decode head's own resolution."""
    return model.decode_head(model.extract_feat(preprocess(model, image)))[0]


@torch.no_grad()
def auxiliary_logits(model: nn.Module, image: np.ndarray, k: int) -> Tensor:
    """Logits [C, h, w] of auxiliary head k at its own resolution."""
    return model.auxiliary_head[k](model.extract_feat(preprocess(model, image)))[0]


@torch.no_grad()
def slide_inference(
    model: nn.Module,
    image: np.ndarray,
    crop_size: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
) -> Tensor:
    """Logits [C, H, W] averaged over windows; crop and stride are those of the scaled config unless given."""
    inputs = preprocess(model, image)
    configured = model.test_cfg
    model.test_cfg = copy.copy(configured)
    model.test_cfg.update(crop_size=crop_size or configured.crop_size, stride=stride or configured.stride)
    try:
        return model.slide_inference(inputs, [{}])[0]
    finally:
        model.test_cfg = configured


@torch.no_grad()
def backbone_features(model: nn.Module, image: np.ndarray) -> list[Tensor]:
    """What the neck or the heads get: [D, h, w] for each of out_indices."""
    return [feature[0] for feature in model.backbone(preprocess(model, image))]


@torch.no_grad()
def layer_tokens(model: nn.Module, image: np.ndarray) -> list[Tensor]:
    """Tokens [T, D] before layer 0 and after each layer, before any final norm; class token first, none in SETR-MLA."""
    states: list[Tensor] = []
    layers = model.backbone.layers
    hooks = [layers[0].register_forward_pre_hook(lambda layer, inputs: states.append(inputs[0][0]))]
    hooks += [layer.register_forward_hook(lambda layer, inputs, output: states.append(output[0])) for layer in layers]
    try:
        model.backbone(preprocess(model, image))
    finally:
        for hook in hooks:
            hook.remove()
    return states


# --- save


def save_checkpoint(
    model: nn.Module,
    path: str | Path,
    *,
    layout: str = "1.x",
    training_state: bool = False,
    numpy1: bool = False,
) -> None:
    """Writes what mmengine's runner (`layout="1.x"`) or mmcv 1's (`"0.x"`, mmsegmentation below 1.0) writes.

    `training_state` adds what a file keeps until someone publishes it: optimizer, and the message hub or hook messages
    with their HistoryBuffers and numpy scalars, which `torch.load(weights_only=True)` refuses. `numpy1` names numpy's
    functions as files written with numpy below 2 do.
    """
    if layout not in ("0.x", "1.x"):
        raise ValueError(f"unknown layout {layout!r}; one of 0.x, 1.x")
    meta = _meta_1x(model) if layout == "1.x" else _meta_0x(model)
    checkpoint = {"meta": meta, "state_dict": model.state_dict()}
    if training_state:
        checkpoint["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9).state_dict()
        if layout == "1.x":
            checkpoint |= {"message_hub": _message_hub(meta), "param_schedulers": [{"last_step": 160000, "power": 0.9}]}
        else:
            meta["hook_msgs"] = {"best_score": np.float64(0.4824), "last_ckpt": "iter_160000.pth"}
    torch.save(checkpoint, path, pickle_module=_NUMPY1_PICKLE if numpy1 else pickle)


def _meta_1x(model: nn.Module) -> dict:
    classes, palette = _classes_and_palette(model.num_classes)
    return {
        "epoch": 0,
        "iter": 160000,
        "cfg": model.cfg.pretty_text,
        "seed": 733032489,
        "experiment_name": "oracle_20231121_043354",
        "time": "20231121_043356",
        "mmengine_version": "0.10.7",
        "dataset_meta": {"classes": classes, "palette": palette, "label_map": None, "reduce_zero_label": False},
    }


def _meta_0x(model: nn.Module) -> dict:
    classes, palette = _classes_and_palette(model.num_classes)
    return {
        "env_info": "sys.platform: linux\nPython: 3.8.5\nPyTorch: 1.8.1\n",
        "mmseg_version": "0.30.0+a1b2c3d",
        "mmcv_version": "1.6.2",
        "config": model.cfg.pretty_text,
        "CLASSES": classes,
        "PALETTE": palette,
        "seed": None,
        "exp_name": "oracle.py",
        "epoch": 127,
        "iter": 160000,
        "time": "Tue Nov 21 04:33:56 2023",
        "hook_msgs": {},
    }


def _classes_and_palette(count: int) -> tuple[tuple[str, ...], list[list[int]]]:
    from mmseg.datasets import ADE20KDataset, CityscapesDataset

    for dataset in (ADE20KDataset, CityscapesDataset):
        if len(dataset.METAINFO["classes"]) == count:
            return dataset.METAINFO["classes"], dataset.METAINFO["palette"]
    return tuple(f"class {i}" for i in range(count)), [[i % 256, i * 7 % 256, i * 31 % 256] for i in range(count)]


def _message_hub(meta: dict) -> dict:
    """As a run of mmengine 0.10's Runner with validation and save_best leaves it."""
    from mmengine.logging import MessageHub

    hub = MessageHub("oracle")
    for scalar, value in (("train/loss", 0.7), ("train/lr", 0.01), ("val/mIoU", np.float32(48.2))):
        hub.update_scalar(scalar, value)
    hub.update_info_dict({key: meta[key] for key in ("cfg", "seed", "experiment_name", "dataset_meta")})
    hub.update_info_dict({"eta": np.float64(0.0), "best_score": np.float32(48.2), "keep_ckpt_ids": [160000]})
    return hub.state_dict()


class _Numpy1Pickler(pickle.Pickler):
    """numpy 2 renamed numpy.core to numpy._core. torch.save pickles by protocol 2, where names are lines of text."""

    def __init__(self, file, protocol: int):
        self._file, self._buffer = file, io.BytesIO()
        super().__init__(self._buffer, protocol)

    def dump(self, obj) -> None:
        super().dump(obj)
        self._file.write(self._buffer.getvalue().replace(b"cnumpy._core.", b"cnumpy.core."))


_NUMPY1_PICKLE = types.SimpleNamespace(__name__="pickle", Pickler=_Numpy1Pickler)
