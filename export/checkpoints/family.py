"""A family of checkpoints: one module that holds what is known of one project's files.

Such a module says how its files are recognised, which configuration lies in or beside them and which of its keys change a
result, how their keys become ours, and how positions are resized to another image size. It ends with a `Family`, which
`families.py` lists; nothing else in dovit knows about it. CONTRIBUTING.md shows how to add one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.settings import Settings
from dovit.export.model import DoViT


@dataclass(frozen=True)
class Checkpoint:
    """What `--ckpt` names, read: `content` is all that its file of weights holds, `state` the tensors among it by key.

    `path` is a file, or a folder as Hugging Face's libraries write it.
    """

    path: Path
    content: dict[str, Any]
    state: dict[str, Tensor]

    def beside(self, name: str) -> Path:
        """The path of a file in the folder, or beside the file of weights; it may not be there."""
        return self.path / name if self.path.is_dir() else self.path.with_name(name)


@dataclass(frozen=True)
class Family:
    """`recognise`: whether a checkpoint is of this family, which looks at nothing but its keys and configuration.
    `read`: the model in evaluation mode, and notes on keys that were left out. What the model depends on goes into the
    settings. Raises DovitError or UsageError with one sentence. `takes_head`: `read` honours ReadOptions.head."""

    name: str
    recognise: Callable[[Checkpoint], bool]
    read: Callable[[Checkpoint, ReadOptions, Settings], tuple[DoViT, list[str]]]
    takes_head: bool = False
