"""What a user may say about a checkpoint that its keys do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dovit.export.model.config import HeadConfig, paper_decision_layers
from dovit.runtime.arguments import check_decides
from dovit.runtime.bundle.manifest import Mode
from dovit.runtime.errors import DovitError, UsageError

DEFAULT_THRESHOLD = 0.985  # the paper's for Cityscapes, and the upper end of its range for ADE20K

LEFT_OUT = ", left out by --dense"  # the end of a note about what of token pass a file holds
NO_HEADS = (
    "{path}: this checkpoint has no decision heads, and token pass decides by them: give it some with dovit-adapt, "
    "from images without labels, or with dovit-train --heads-only, or export the plain segmenter with --dense"
)


def last_decision_layer(depth: int, joining_layer: int | None = None) -> int:
    """The last layer, from 1, that a decision may follow; `joining_layer`: ModelConfig's. Raises UsageError without one."""
    last = depth - 1 if joining_layer is None else joining_layer
    if not last:
        why = (
            "this backbone has one layer"
            if joining_layer is None
            else "this EoMT's queries join before the first layer"
        )
        raise UsageError(f"{why}: there is none after which tokens could be decided on")
    return last


def default_decision_layers(wanted: Sequence[int], depth: int, joining_layer: int | None = None) -> tuple[int, ...]:
    """Those of `wanted` that a decision may follow, or the last layer that one may. Raises UsageError where there is none."""
    last = last_decision_layer(depth, joining_layer)
    return tuple(layer for layer in wanted if layer <= last) or (last,)


def check_decision_layers(layers: Sequence[int], depth: int, joining_layer: int | None = None) -> None:
    """Raise UsageError where the value of --decision-layers, `layers`, cannot be a model's."""
    last = last_decision_layer(depth, joining_layer)
    if list(layers) != sorted(set(layers)) or not (layers and 0 < layers[0] <= layers[-1] <= last):
        joined = "" if joining_layer is None else f", and an EoMT's queries join after layer {last}"
        given = ",".join(map(str, layers))
        raise UsageError(
            f"--decision-layers {given}: give ascending layers from 1 to {last}; the model has {depth}{joined}"
        )


class BackboneAlone(UsageError):
    """A backbone for which the options do not say which segmenter to build on it."""


@dataclass(frozen=True)
class ReadOptions:
    """None: as the checkpoint says, or the family's default. `image_size` is (height, width), layers count from 1.

    `config`: the configuration, for a checkpoint without one. `head`: the file of a linear head, for a backbone without
    one. `changes`: `key=value` over the checkpoint's configuration, the key with dots and as the family spells it. `mean`
    and `std` are RGB, 0…255; `bgr`: the weights expect BGR; `heads`: attention heads of the backbone; `norm_eps`: of the
    backbone's LayerNorms; `stride` and `mode`: how images of another size are run by default. `decoder_layers`: those whose
    outputs a new decoder reads. `head_norm`: whether new decision heads begin with a LayerNorm; None: they do.

    `untrained`: parts that the checkpoint lacks (decoder, decision heads) are freshly initialised instead of refused;
    that is for training, never for export. `plain`: a checkpoint without decision heads is taken as the dense segmenter
    that it is; that is for evaluation.
    """

    arch: str | None = None
    image_size: tuple[int, int] | None = None
    classes: int | None = None
    decision_layers: tuple[int, ...] | None = None
    decoder_layers: tuple[int, ...] | None = None
    head_norm: bool | None = None
    thresholds: tuple[float, ...] | None = None
    config: Path | None = None
    head: Path | None = None
    changes: tuple[str, ...] = ()
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    bgr: bool | None = None
    heads: int | None = None
    norm_eps: float | None = None
    stride: tuple[int, int] | None = None
    mode: Mode | None = None
    dense: bool = False
    untrained: bool = False
    plain: bool = False

    def segmenter_for(self, path: object) -> tuple[str, int]:
        """The architecture and the classes of the segmenter to build on a backbone alone."""
        if self.arch is None or self.classes is None:
            unsaid = [flag for flag, value in (("--arch", self.arch), ("--classes", self.classes)) if value is None]
            raise BackboneAlone(
                f"{path}: a backbone alone: say {' and '.join(unsaid)} for the segmenter to build on it"
            )
        return self.arch, self.classes

    def thresholds_for(self, decisions: int, own: tuple[float, ...] = ()) -> tuple[float, ...]:
        """One ξ a decision: those given, the checkpoint's own, or the default."""
        if self.thresholds:
            check_decides(decisions, "--threshold")
        given = self.thresholds or own or (DEFAULT_THRESHOLD,)
        if len(given) == 1:
            given = given * decisions
        if len(given) != decisions and decisions:
            raise UsageError(f"{len(given)} thresholds for {decisions} decisions: give one for all, or one each")
        return given[:decisions]

    def new_heads(self, path: object, depth: int, joining_layer: int | None = None) -> tuple[HeadConfig, ...]:
        """Heads for a checkpoint that has none: no decision if dense or plain, 1×1 convolutions after the paper's layers if
        untrained parts are allowed, otherwise DovitError. `joining_layer`: ModelConfig's.

        A LayerNorm in front of them makes them learn several times as fast: tokens of early layers may be small (DINOv2's),
        and the heads' losses reach the backbone while they are wrong."""
        if self.dense or self.plain:
            return ()
        if not self.untrained:
            raise DovitError(NO_HEADS.format(path=path))
        layers = self.decision_layers
        if layers is None:
            layers = default_decision_layers(paper_decision_layers(depth), depth, joining_layer)
        else:
            check_decision_layers(layers, depth, joining_layer)
        return tuple(HeadConfig(layer=layer, norm=self.head_norm is not False) for layer in layers)
