"""Accounting: every key of a checkpoint becomes a weight of the model or is left out for a stated reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from dovit.export.model import DoViT, ModelConfig
from dovit.runtime.errors import DovitError, UsageError

Rule = tuple[str, str] | tuple[str, str, Callable[[Tensor], Tensor]]  # pattern, our name, what happens to the tensor


@dataclass
class Account:
    """The keys of a file on their way into a model."""

    path: Path
    state: dict[str, Tensor]
    weights: dict[str, Tensor] = field(default_factory=dict)
    unused: dict[str, list[str]] = field(default_factory=dict)  # reason -> keys
    _done: set[str] = field(default_factory=set)

    def take(self, key: str) -> Tensor:
        """A tensor that is used in a way of its own. Raises DovitError if it is missing."""
        tensor = self.tensor(key)
        self._done.add(key)
        return tensor

    def tensor(self, key: str) -> Tensor:
        """A tensor to look at; it is not done with. Raises DovitError if it is missing."""
        if key not in self.state:
            raise DovitError(f"{self.path}: the key {key} is missing; is this the whole checkpoint?")
        return self.state[key]

    def rows(self, key: str) -> int:
        """The length of a tensor's first dimension. Raises DovitError if it is missing."""
        return int(self.tensor(key).shape[0])

    def rename(self, rules: Sequence[Rule]) -> None:
        """Apply the first rule whose pattern is a key's whole name, to all keys that are not done yet."""
        for key, tensor in self.state.items():
            for pattern, name, *change in rules:
                match = None if key in self._done else re.fullmatch(pattern, key)
                if match:
                    self.weights[match.expand(name)] = change[0](tensor) if change else tensor
                    self._done.add(key)

    def leave(self, pattern: str, reason: str) -> None:
        """Leave out all keys that match `pattern`."""
        for key in self.state:
            if key not in self._done and re.fullmatch(pattern, key):
                self.unused.setdefault(reason, []).append(key)
                self._done.add(key)

    def count(self, pattern: str) -> int:
        """How many numbers the first group of `pattern` takes among the keys."""
        return len({match[1] for key in self.state if (match := re.fullmatch(pattern, key))})

    def has(self, pattern: str) -> bool:
        """Whether a key matches."""
        return any(re.fullmatch(pattern, key) for key in self.state)

    def bgr_to_rgb(self) -> None:
        """The patch embedding is applied to BGR: turn its input channels round, so that the model takes RGB."""
        self.weights["backbone.patch_embed.weight"] = self.weights["backbone.patch_embed.weight"].flip(1)

    def notes(self) -> list[str]:
        """One line for each reason for which keys were left out."""
        return [f"{len(keys)} keys not used ({keys[0]}, …): {reason}" for reason, keys in self.unused.items()]

    def model(self, config: ModelConfig, untrained: tuple[str, ...] = ()) -> DoViT:
        """The model with the renamed weights. Raises one DovitError that lists all unknown, missing and mis-shaped keys.

        Weights whose names start with one of `untrained` may be missing and are then freshly initialised.
        """
        with torch.device("cpu" if untrained else "meta"):
            model = DoViT(config)
        wanted = model.state_dict()
        unknown = sorted(set(self.state) - self._done)
        unplaced = sorted(set(self.weights) - set(wanted))
        counter = "num_batches_tracked"  # of batch norm, for training only: files without it are fine
        missing = [
            name
            for name in wanted
            if name not in self.weights
            and wanted[name].numel()  # a prefix of no tokens is not in files
            and not name.startswith(untrained or ("\0",))
            and not name.endswith(counter)
        ]
        shaped = [
            f"{name} is {list(self.weights[name].shape)}, expected {list(wanted[name].shape)}"
            for name in wanted
            if name in self.weights and self.weights[name].shape != wanted[name].shape
        ]
        typed = [
            f"{name} is {self.weights[name].dtype}"
            for name in wanted
            if name in self.weights and self.weights[name].is_floating_point() != wanted[name].is_floating_point()
        ]
        problems = [
            _listed("unknown keys", unknown + unplaced),
            _listed("missing", missing),
            _listed("of another shape", shaped),
            _listed("of another type", typed),
        ]
        if any(problems):
            raise DovitError(f"{self.path}: does not fit {config.decoder.kind}: " + "; ".join(p for p in problems if p))
        ready = {name: _as_float32(self.weights[name]) for name in wanted if name in self.weights}
        ready |= {n: torch.zeros(w.shape) for n, w in wanted.items() if not w.numel() and n not in ready}
        if not untrained:
            ready |= {n: torch.zeros((), dtype=torch.int64) for n in wanted if n.endswith(counter) and n not in ready}
        model.load_state_dict(ready, strict=False, assign=True)
        for name in ("mean", "std"):  # not in the file; on the meta device they have no values
            model.register_buffer(name, torch.tensor(getattr(config, name)), persistent=False)
        return model.eval()


def check_classes(found: int, wanted: int | None) -> int:
    """`found`, unless the user expects another number."""
    if wanted is not None and wanted != found:
        raise UsageError(f"--classes {wanted}: the checkpoint has {found} classes")
    return found


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _listed(title: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:12]) + (f", and {len(names) - 12} more" if len(names) > 12 else "")
    return f"{len(names)} {title}: {shown}" if names else ""
