"""Where every setting that changes a result comes from: the file, an option, or an assumption of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dovit.runtime.errors import UsageError, printable

Origin = Literal["file", "option", "assumed"]


@dataclass(frozen=True)
class Setting:
    """A setting's value, where it comes from, and the place in words, such as `model.backbone.num_heads` or `--mean`."""

    name: str
    value: Any
    origin: Origin
    place: str

    def text(self) -> str:
        """The value as a table shows it."""
        return printable(_text(self.value))  # a file's names among them


@dataclass
class Settings:
    """The settings of a checkpoint while it is read. Every reader asks for each of its settings through `choose` once."""

    path: Path
    chosen: dict[str, Setting] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)  # dotted keys of the configuration that a reader has looked at

    def choose(
        self,
        name: str,
        *,
        option: tuple[str, Any] | None = None,
        file: tuple[str, Any] | None = None,
        assumed: tuple[str, Any] | None = None,
        remedy: str = "",
    ) -> Any:
        """The value of the setting `name`, which is recorded with its origin.

        Each source is (place, value), or None where it says nothing; an option goes before the file, the file before an
        assumption, and an option whose value is None was not given. Raises UsageError with `remedy` where none says
        anything.
        """
        sources: list[tuple[Origin, tuple[str, Any] | None]] = [
            ("option", option),
            ("file", file),
            ("assumed", assumed),
        ]
        for origin, source in sources:
            if source is not None and not (origin == "option" and source[1] is None):
                self.chosen[name] = Setting(name, source[1], origin, source[0])
                return source[1]
        raise UsageError(f"{self.path}: nothing says its {name}: {remedy}")

    def __iter__(self) -> Iterator[Setting]:
        return iter(self.chosen.values())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(each) for each in value) or "none"
    return str(value)
