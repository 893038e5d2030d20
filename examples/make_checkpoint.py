"""Make the demo's checkpoint: a small SETR-Naive with two decision heads, fitted to simple street scenes in a minute.

No more than what the demo needs to show something: cross-entropy of decoder and heads, no augmentation, no
self-distillation.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from scenes import NAMES, PALETTE, scene

from dovit.export.checkpoints import save_model
from dovit.export.model import BackboneConfig, DoViT, HeadConfig, ModelConfig
from dovit.export.model.config import SetrUpDecoder
from dovit.export.model.token_pass import TokenState

HEIGHT, WIDTH = 256, 512


def make_model() -> DoViT:
    """A ViT of 6 layers of 128 channels with decisions after layers 2 and 4, freshly initialised."""
    config = ModelConfig(
        image_size=(HEIGHT, WIDTH),
        classes=len(NAMES),
        backbone=BackboneConfig(embed_dim=128, depth=6, heads=2, mlp_dim=512, patch=16),
        decoder=SetrUpDecoder(kind="setr-naive", channels=64),
        decisions=(HeadConfig(layer=2), HeadConfig(layer=4)),
        thresholds=(0.96, 0.96),
        class_names=NAMES,
        palette=PALETTE,
    )
    model = DoViT(config)
    for parameter in (model.backbone.pos_embed, model.backbone.prefix):
        torch.nn.init.trunc_normal_(parameter, std=0.02)
    return model


def loss(model: DoViT, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the decoder at its resolution and of each head at token resolution, all tokens kept."""
    tokens, total = model.embed(images), torch.zeros(())
    prefix, heads = model.config.backbone.prefix, iter(model.heads)
    layers = {head.layer for head in model.config.decisions}
    for number, layer in enumerate(model.backbone.layers, start=1):
        tokens = layer(tokens)
        if number in layers:
            logits = next(heads)(tokens[:, prefix:].transpose(1, 2).unflatten(2, model.config.grid))
            total = total + F.cross_entropy(F.interpolate(logits, scale_factor=4, mode="bilinear"), labels)
    logits = model.decode(TokenState.start(tokens, prefix).full, [])
    return total + F.cross_entropy(logits, labels)


def main() -> None:
    """Fit and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=240)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    start = time.perf_counter()
    model = make_model()
    scenes = [scene(seed) for seed in range(160)]
    images = torch.from_numpy(np.stack([image for image, _ in scenes]))
    labels = torch.from_numpy(
        np.stack([label[2::4, 2::4] for _, label in scenes])
    ).long()  # at the decoder's resolution
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=arguments.steps)
    for _ in track(range(arguments.steps), "fitting a small model"):
        batch = torch.randint(0, len(images), (8,))
        value = loss(model, images[batch], labels[batch])
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_model(model.eval(), arguments.out)
    print(
        f"{arguments.out}: loss {value.item():.3f} after {arguments.steps} steps, {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
