"""A configuration's dictionaries: every key is read, known not to matter, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dovit.export.checkpoints.settings import Settings
from dovit.runtime.errors import DovitError, UsageError

PACKAGES = ("mmseg", "mmcv", "mmengine", "torch")


@dataclass
class Section:
    """One dictionary of a configuration, at the dotted `name`.

    `known`: whether there is a configuration. Where there is none, a key that is missing was not said, and what a reader
    assumes holds; where there is one, the default of the `library` that wrote it holds. `options`: keys that --set has set.
    """

    path: Path
    name: str
    content: Mapping[str, Any]
    known: bool
    settings: Settings
    options: frozenset[str] = frozenset()
    library: str = "mmsegmentation"
    _read: set[str] = field(default_factory=set)

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def at(self, key: str) -> str:
        """The dotted name of `key`."""
        return f"{self.name}.{key}" if self.name else key

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`."""
        self._mark(key)
        return self.content.get(key, default)

    def _mark(self, *keys: str) -> None:
        self._read.update(keys)
        self.settings.read.update(map(self.at, keys))

    def flag(self, key: str, default: bool) -> bool:
        """`key` as True or False. A text is refused: Python takes 'false' as true."""
        value = self.get(key, default)
        if value not in (True, False):
            raise self.refusal(key, "neither True nor False")
        return bool(value)

    def choose(
        self,
        key: str,
        default: Any,
        *,
        assumed: tuple[str, Any] | None = None,
        option: tuple[str, Any] | None = None,
        name: str | None = None,
        remedy: str = "",
    ) -> Any:
        """The value of `key`, recorded as the setting `name`. `default` is the library's, `assumed` ours without a
        configuration (the same, unless given)."""
        value = self.get(key, default)
        given = (self.place(key), value) if self.known or key in self else None
        if option is None or option[1] is None:
            option = ("--set", value) if self.is_option(key) else None
        return self.settings.choose(
            name or self.at(key).removeprefix("model."),
            option=option,
            file=given,
            assumed=assumed,
            remedy=remedy or f"say --set {self.at(key)}=…, or give its configuration with --config",
        )

    def place(self, key: str) -> str:
        """Where the value of `key` comes from, in words."""
        return "--set" if self.is_option(key) else "configuration" if key in self else f"{self.library}'s default"

    def is_option(self, key: str) -> bool:
        """Whether --set has set `key`, or something in it."""
        at = self.at(key)
        return any(option == at or option.startswith(f"{at}.") for option in self.options)

    def section(self, key: str) -> Section:
        """The dictionary at `key`; an empty one where it is missing or None."""
        value = self.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.refusal(key, "is no dictionary")
        return self._below(key, value or {})

    def sections(self, key: str) -> list[Section]:
        """The dictionaries of a list at `key`, or the only one."""
        value = self.get(key)
        several = [] if value is None else [value] if isinstance(value, Mapping) else value
        if not isinstance(several, list | tuple) or not all(isinstance(one, Mapping) for one in several):
            raise self.refusal(key, "is no list of dictionaries")
        return [self._below(f"{key}.{k}", one) for k, one in enumerate(several)]

    def _below(self, key: str, content: Mapping[str, Any]) -> Section:
        return Section(self.path, self.at(key), content, self.known, self.settings, self.options, self.library)

    def type(self, default: str | None = None) -> str | None:
        """The name of its class; without the package where that is one of OpenMMLab's that mmsegmentation builds on."""
        value = self.get("type", default)
        package, _, name = str(value).rpartition(".")
        return None if value is None else name if package.split(".")[0] in ("", *PACKAGES) else str(value)

    def refusal(self, key: str, reason: str) -> DovitError:
        """`key` has a value that cannot be honoured, for a reason that continues the sentence."""
        value = repr(self.content.get(key))
        return DovitError(f"{self.path}: {self.at(key)} = {value[:100]}: {reason}")

    def only(self, key: str, *accepted: Any, default: Any = None, reason: str) -> None:
        """Refuse `key` unless its value is one of those `accepted`."""
        value = self.get(key, default)
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in accepted):
            raise self.refusal(key, reason)

    def same(self, key: str, found: Any, default: Any = None) -> None:
        """Refuse `key` if it says something else than the weights; `default` is the library's."""
        value = self.get(key, default if self.known else None)
        if value is not None and (tuple(value) if isinstance(value, list | tuple) else value) != found:
            raise self.refusal(key, f"the weights have {found}; is this the configuration of this checkpoint?")

    def whole(self, key: str, default: int, least: int = 1) -> int:
        """`key` as a whole number, not recorded."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.refusal(key, f"not a whole number from {least} up")
        return value

    def pair(self, key: str, default: Any = None) -> tuple[int, int] | None:
        """`key` as (height, width); one number is a square."""
        value = self.get(key, default)
        pair = (value, value) if isinstance(value, int) else value
        if pair is None:
            return None
        if isinstance(pair, list | tuple) and len(pair) == 1:
            pair = (*pair, *pair)
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
            raise self.refusal(key, "not a height and a width")
        return pair[0], pair[1]

    def ignore(self, *keys: str) -> None:
        """Keys that do not change what a trained model computes."""
        self._mark(*keys)

    def finish(self) -> None:
        """Refuse every key that no reader has used: an unknown setting cannot be honoured."""
        for key, value in self.content.items():
            if key in (*self._read, "_scope_") or (value is None and self.is_option(key)):
                continue
            if self.is_option(key):
                raise UsageError(
                    f"--set {self.at(key)}: no setting that dovit knows; its other keys are {self._others(key)}"
                )
            raise self.refusal(
                key,
                f"a setting that dovit does not know, and so cannot honour; if the result does not depend on it, say "
                f"--set {self.at(key)}=None",
            )

    def _others(self, key: str) -> str:
        return ", ".join(sorted(self._read - {key}))
