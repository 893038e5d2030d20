"""A TensorRT builder's log: errors for the user, and facts about the engine.

An engine can be inspected only on a GPU; the log has the same facts on every machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_FUSED = re.compile(r"Found (\S+) to be part of self-attention pattern")
_ACTIVATION = re.compile(r"Total Activation Memory: (\d+) bytes")
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")
_LAYERS = "Engine Layer Information:"


@dataclass
class BuildLog:
    """What the log has said so far."""

    errors: list[str] = field(default_factory=list)
    fused: set[str] = field(default_factory=set)  # nodes that belong to an attention which the builder recognised
    layers: tuple[str, ...] = ()
    activation_bytes: int = 0
    weight_bytes: int = 0

    def add(self, message: str, *, is_error: bool) -> None:
        """Take in one message of the builder."""
        if is_error:
            self.errors.append(re.sub(r"\s+", " ", message).strip())
        elif found := _FUSED.search(message):
            self.fused.add(found[1])
        elif found := _ACTIVATION.search(message):
            self.activation_bytes = int(found[1])
        elif found := _WEIGHTS.search(message):
            self.weight_bytes = int(found[1])
        elif message.startswith(_LAYERS):
            self.layers = tuple(line.strip() for line in message.splitlines()[1:] if line.strip())

    @property
    def reason(self) -> str:
        """The first error: later ones only say where it was passed on."""
        return self.errors[0][:400] if self.errors else "the builder gave no reason"
