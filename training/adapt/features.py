"""What a frozen model makes of some images, on disk: the outputs of the decision layers and of those that the decoder reads.

Beside them what decision heads learn of each patch, from the model or from labels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from dovit.export.model import DoViT, ModelConfig
from dovit.export.model.eomt import Eomt
from dovit.export.model.token_pass import TokenState, add_cells
from dovit.runtime.errors import DovitError
from dovit.runtime.files import check_free, unwritten
from dovit.runtime.progress import Progress
from dovit.training.adapt.images import Images, label_shares, window
from dovit.training.adapt.probabilities import log_probabilities, of_patches
from dovit.training.adapt.states import LESS, States


class Features:
    """Patch tokens after some layers, [N, E] an image, float16 in a file for each layer; float32: what heads learn, and what an
    EoMT's queries predict. Read from disk as they are asked for. `labelled`: whether heads learn labels."""

    def __init__(self, folder: Path, config: ModelConfig, images: int, *, labelled: bool) -> None:
        self.images, self.labelled = images, labelled
        self._taps, self._classes = config.taps, config.classes
        whole = (images, config.tokens, config.backbone.embed_dim)
        self._maps = {
            layer: np.memmap(_file(folder, layer), np.float16, "r", shape=whole) for layer in layers_of(config)
        }
        predicted = (images, config.queries, config.classes + config.backbone.embed_dim)
        self._predicted = np.memmap(_queries(folder), np.float32, "r", shape=predicted) if config.queries else None
        learnt = (images, config.tokens, config.classes)
        self._targets = np.memmap(_targets(folder), np.float32, "r", shape=learnt)

    def take(self, layer: int, images: Sequence[int]) -> Tensor:
        """[len(images), N, E] float32: patch tokens after `layer` (from 1)."""
        return torch.from_numpy(np.stack([self._maps[layer][k] for k in images]).astype(np.float32))

    def targets(self, image: int) -> Tensor:
        """[N, C] float32, what heads learn of each patch: the shares that labels have of its pixels, whose sum is below 1 where
        some are ignored; without labels the probabilities that the model without token pass gives it."""
        return torch.from_numpy(self._targets[image].copy())

    def beside(self, images: Sequence[int]) -> list[Tensor]:
        """What the decoder takes beside the last layer's tokens: those after the layers that it reads, or what an EoMT's queries
        predict, as `DoViT.leave` returns it."""
        if self._predicted is None:
            return [self.take(layer, images) for layer in self._taps]
        predicted = torch.from_numpy(np.stack([self._predicted[k] for k in images]))  # [B, Q, C+E]
        return [predicted[..., : self._classes].transpose(1, 2), predicted[..., self._classes :]]


def layers_of(config: ModelConfig) -> list[int]:
    """The layers (from 1) whose tokens a fit needs: those of the decisions, and those that the decoder reads."""
    return sorted({*(head.layer for head in config.decisions), *config.taps, config.backbone.depth})


def check_space_of_features(config: ModelConfig, images: Images, scratch: Path) -> None:
    """Raise DovitError where the features and states of `images` do not fit the disk of folder `scratch`. `config` has the
    decisions that are fitted."""
    # float16: the layers; in the states the tokens, the map, and the maps of earlier layers that the decoder reads
    maps = len(layers_of(config)) + 2 + len(config.taps)
    predicted = 4 * config.queries * (config.classes + config.backbone.embed_dim)
    learnt = 4 * config.tokens * config.classes
    needed = (2 * config.tokens * config.backbone.embed_dim * maps + predicted + learnt) * len(images)
    fix = "free space, lower --limit, or give --out on another disk"
    check_free(scratch, needed, f"features of {len(images)} images take", fix)


@torch.inference_mode()
def compute_features(
    model: DoViT,
    images: Images,
    folder: Path,
    progress: Progress,
    states: States | None = None,
) -> Features:
    """Run `model` on `images` without token pass, and write the tokens after its `layers_of`, what its queries predict, and what
    heads learn, into `folder`. `states` gets the tokens at the first decision, where nothing has stopped yet.

    Raises DovitError where an image cannot be read, the disk is full, or a value does not fit float16."""
    config, prefix, layers = model.config, model.config.backbone.prefix, layers_of(model.config)
    try:
        with ExitStack() as stack:
            written = {layer: stack.enter_context(_file(folder, layer).open("wb")) for layer in layers}
            queries = stack.enter_context(_queries(folder).open("wb"))
            targets = stack.enter_context(_targets(folder).open("wb"))
            for done in range(len(images)):
                progress(f"running the model on {len(images)} images", done / len(images))
                sample = window(images[done], config)
                tokens = model.embed(torch.tensor(sample.image)[None])
                context = list(model.backbone.context(torch.arange(config.tokens, dtype=torch.int32)[None]))
                taps: list[Tensor] = []
                for number, layer in enumerate(model.backbone.layers, start=1):
                    if number - 1 == config.joining_layer:
                        tokens, *context = cast(Eomt, model.decoder).join(tokens, *context)
                    tokens = layer(tokens, *context)
                    patches = tokens[:, -config.tokens :]
                    if number in written:
                        values = patches[0].half()
                        if not values.isfinite().all():
                            raise DovitError(
                                f"{sample.name}: the tokens after layer {number} are beyond float16 (65504) or not finite"
                            )
                        written[number].write(values.numpy().tobytes())
                    if number in config.taps:
                        taps.append(patches)
                    if states is not None and number == config.decisions[0].layer:
                        state = TokenState.start(tokens, prefix)
                        if config.cells is not None:
                            state = add_cells(state, prefix, config.cells)
                        states.put(done, state, taps)
                beside = taps
                if config.queries:
                    _, *beside = model.leave(tokens)
                    classes, masks = beside
                    queries.write(torch.cat([classes.transpose(1, 2), masks], dim=2)[0].numpy().tobytes())
                if images.labelled:
                    targets.write(label_shares(sample.labels, config).tobytes())
                else:
                    logits = model.decode(tokens[:, -config.tokens :], beside, resize_masks=False)
                    learnt = of_patches(log_probabilities(model, logits).exp(), config.grid)[0]
                    targets.write(learnt.contiguous().numpy().tobytes())
    except OSError as error:
        raise unwritten(folder, error, LESS) from None
    return Features(folder, config, len(images), labelled=images.labelled)


def _file(folder: Path, layer: int) -> Path:
    return folder / f"layer{layer}.f16"


def _queries(folder: Path) -> Path:
    return folder / "queries.f32"


def _targets(folder: Path) -> Path:
    return folder / "targets.f32"
