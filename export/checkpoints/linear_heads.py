"""Linear segmentation heads on a backbone: BatchNorm, where there is one, and a 1×1 convolution on one layer or four joined.

    DINOv2   decode_head.bn.*, decode_head.conv_seg.*           one layer, or the last four
    DINOv3   segmentation_model.1.batchnorm_layer.*, .conv.*    one layer, or four at even intervals
    Hugging Face's Dinov2ForSemanticSegmentation: classifier.classifier.*    the last layer, without BatchNorm

BatchNorm comes before the convolution and is folded into it. A head's file has no layer numbers: which four layers it joins is
its family's convention, and `--set head.layers=…` says others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dovit.export.checkpoints.keys import Account
from dovit.export.checkpoints.literals import parse_change
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.safe import read_file
from dovit.export.checkpoints.settings import Settings
from dovit.export.checkpoints.tensors import plain_tensors
from dovit.export.model.config import SegmenterLinearDecoder
from dovit.runtime.errors import DovitError, UsageError

LAYERS_KEY = "head.layers"
EPSILON = 1e-5  # torch's default for BatchNorm, which both projects leave


def last_four(depth: int) -> tuple[int, ...]:
    """DINOv2's multi-scale heads."""
    return tuple(range(depth - 3, depth + 1))


def even_intervals(depth: int) -> tuple[int, ...]:
    """DINOv3's FOUR_EVEN_INTERVALS; of 24 layers the paper's, whose first is the fifth."""
    return (5, 12, 18, 24) if depth == 24 else tuple(k * (depth // 4) for k in (1, 2, 3, 4))


@dataclass(frozen=True)
class _Style:
    project: str
    conv: str
    norm: str | None
    four: Callable[[int], tuple[int, ...]]


STYLES = (
    _Style("DINOv2", "decode_head.conv_seg", "decode_head.bn", last_four),
    _Style("DINOv3", "segmentation_model.1.conv", "segmentation_model.1.batchnorm_layer", even_intervals),
    _Style("Dinov2ForSemanticSegmentation", "classifier.classifier", None, last_four),
)


@dataclass(frozen=True)
class LinearHead:
    """A head that was found: its decoder, and the number of classes. Its weights are in the account."""

    decoder: SegmenterLinearDecoder
    classes: int


def add_head_file(state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """`state` of a backbone, and the tensors of the head in `file`. Raises DovitError."""
    content = read_file(file)
    nested = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content)
    head = plain_tensors(file, nested)
    if not any(f"{style.conv}.weight" in head for style in STYLES):
        raise DovitError(
            f"{file}: no linear head: it has none of the keys {', '.join(style.conv + '.weight' for style in STYLES)}"
        )
    odd = [key for key in head if not any(key.startswith((style.conv, style.norm or "\0")) for style in STYLES)]
    if odd:
        raise DovitError(f"{file}: holds {odd[0]} beside the head; give --head a file of the head alone")
    twice = sorted(state.keys() & head.keys())
    if twice:
        raise DovitError(f"{file}: the checkpoint has a head already ({twice[0]}); leave --head out")
    return state | head


def read_linear_head(
    account: Account, dim: int, depth: int, options: ReadOptions, settings: Settings
) -> LinearHead | None:
    """The head among the account's keys for a backbone of `depth` layers of `dim` channels; None where there is none."""
    told = dict(parse_change(change) for change in options.changes if change.startswith("head."))
    odd = [key for key in told if key != LAYERS_KEY]
    style = next((style for style in STYLES if f"{style.conv}.weight" in account.state), None)
    if odd or (told and style is None):
        raise UsageError(
            f"--set {next(iter(odd or told))}: {LAYERS_KEY} is the only setting of a head, for a checkpoint with one"
        )
    if style is None:
        return None
    weight = account.take(f"{style.conv}.weight")
    if weight.ndim != 4 or weight.shape[2:] != (1, 1) or weight.shape[1] % dim:
        raise DovitError(
            f"{account.path}: {style.conv}.weight is {list(weight.shape)}; a linear head on this backbone is "
            f"[classes, a multiple of {dim}, 1, 1]"
        )
    count = weight.shape[1] // dim
    convention = {1: (depth,), 4: style.four(depth)}.get(count) if depth >= count else None
    layers = settings.choose(
        LAYERS_KEY,
        option=("--set", told.get(LAYERS_KEY)),
        assumed=None if convention is None else (f"{style.project}'s heads on {count} of {depth}", convention),
        remedy=f"say --set {LAYERS_KEY}=… with the {count} layers, from 1, that the head joins",
    )
    layers = (layers,) if isinstance(layers, int) else tuple(layers) if isinstance(layers, list | tuple) else ()
    if len(layers) != count or layers[-1] != depth:
        raise UsageError(f"--set {LAYERS_KEY}: give {count} layers from 1, ascending, the last of them {depth}")
    weights, bias = _folded(account, style, weight)
    account.weights["decoder.classify.weight"] = weights
    account.weights["decoder.classify.bias"] = bias
    return LinearHead(SegmenterLinearDecoder(taps=layers if count > 1 else ()), weight.shape[0])


def _folded(account: Account, style: _Style, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The convolution with the BatchNorm before it: W (s·(x - μ) + β) + b with s = γ / √(σ² + ε), in float64."""
    wide = weight.double()
    bias_key = f"{style.conv}.bias"
    bias = account.take(bias_key).double() if bias_key in account.state else wide.new_zeros(len(wide))
    if style.norm is not None and f"{style.norm}.running_mean" in account.state:
        scale, shift, mean, variance = (
            account.take(f"{style.norm}.{name}").double() for name in ("weight", "bias", "running_mean", "running_var")
        )
        account.leave(rf"{style.norm}\.num_batches_tracked", "a counter of training")
        factor = scale / (variance + EPSILON).sqrt()
        bias = bias + wide[:, :, 0, 0] @ (shift - mean * factor)
        wide = wide * factor[None, :, None, None]
    return wide.float(), bias.float()
