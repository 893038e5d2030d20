"""The manifest of a model, from its configuration; without its files it needs no ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from dovit.export.macs import evaluate, step_macs
from dovit.export.model import ModelConfig
from dovit.runtime.bundle.manifest import REFINEMENT, DecisionSpec, FileEntry, Manifest, State, Step


def without_cells(name: str) -> str:
    """The name of the stem's tokens `name` before the merged tokens of cells are added."""
    return f"without_cells_{name}"


def describe(
    config: ModelConfig, capacities: Sequence[int], steps: Sequence[Step], files: Mapping[str, FileEntry]
) -> Manifest:
    """What a runtime must know of a bundle with these steps and files."""
    dense = config.without_token_pass
    return Manifest(
        dovit_version=version("dovit"),
        architecture=_architecture(config),
        image_size=config.image_size,
        patch=config.backbone.patch,
        embed_dim=config.backbone.embed_dim,
        prefix=config.prefix,
        merge=config.merge,
        merge_cells=config.merge_cells if config.cells is not None else 0,
        classes=config.classes,
        class_names=config.class_names,
        palette=config.palette,
        mean=config.mean,
        std=config.std,
        slide_stride=config.slide_stride or config.image_size,
        mode=config.mode,
        keep_ratio=config.keep_ratio,
        precision="fp32",
        thresholds=config.thresholds,
        capacities=tuple(capacities),
        dense_macs=evaluate(step_macs(dense), [dense.backbone.prefix + dense.tokens]),
        steps=tuple(steps),
        decisions=tuple(
            DecisionSpec(
                layer=head.layer,
                state=state_after(number) if head.lens is None else lens_state(number),
                threshold=f"threshold{number + 1}",
                confidence=f"confidence{number + 1}",
                keep=f"keep{number + 1}",
                lens_kernel=1 if head.lens is None else head.lens.kernel,
            )
            for number, head in enumerate(config.decisions)
        ),
        final=state_after(len(config.decisions)),
        taps=tuple(f"tap{layer}" for layer in config.taps),
        files=dict(files),
    )


def _architecture(config: ModelConfig) -> str:
    named = f"{config.decoder.kind}, ViT {config.backbone.depth}×{config.backbone.embed_dim}"
    if config.refinement is None:
        return named
    kernel = config.refinement.kernel
    return f"{named}, {REFINEMENT} that sees {kernel}×{kernel} patches"


def lens_state(number: int) -> State:
    """The same before decision `number` (from 0), as the decoder reads it where all tokens stop: through the lens."""
    return State(tokens=f"lens{number + 1}", index=f"index{number}", full=f"full{number + 1}")


def state_after(number: int) -> State:
    """The names of the state after `number` decisions and the block that follows them."""
    return State(tokens=f"tokens{number + 1}", index=f"index{number}", full=f"full{number}")
