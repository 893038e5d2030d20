"""The models that are timed without a checkpoint: SETR-Naive on ViT-T, -S, -B and -L, with the paper's decisions."""

from __future__ import annotations

import torch

from dovit.export.model import BackboneConfig, DoViT, HeadConfig, ModelConfig
from dovit.export.model.config import SetrUpDecoder, paper_decision_layers
from dovit.export.model.dovit import is_of_token_pass

MODELS = {"vit-t": "tiny", "vit-s": "small", "vit-b": "base", "vit-l": "large"}
CLASSES = 19  # Cityscapes


def random_model(name: str, image_size: tuple[int, int]) -> DoViT:
    """With the same random weights every time, which take as much computation as trained ones."""
    backbone = BackboneConfig.of_size(MODELS[name])
    layers = paper_decision_layers(backbone.depth)
    config = ModelConfig(
        image_size=image_size,
        classes=CLASSES,
        backbone=backbone,
        decoder=SetrUpDecoder(kind="setr-naive"),
        decisions=tuple(HeadConfig(layer=layer) for layer in layers),
        thresholds=(0.98,) * len(layers),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DoViT(config).eval().requires_grad_(False)


def dense_of(model: DoViT) -> DoViT:
    """The same without decisions; the weights are shared."""
    config = model.config.without_token_pass
    with torch.device("meta"):
        dense = DoViT(config)
    dense.load_state_dict({k: v for k, v in model.state_dict().items() if not is_of_token_pass(k)}, assign=True)
    for name, buffer in model.named_buffers():  # those that no state holds
        if "." not in name:
            setattr(dense, name, buffer)
    return dense.eval().requires_grad_(False)
