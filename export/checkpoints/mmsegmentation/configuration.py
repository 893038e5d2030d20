"""The configuration that a checkpoint carries, or that --config gives, with the changes that --set makes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from dovit.export.checkpoints.literals import parse_change, parse_config, read_config, set_value
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.section import Section
from dovit.export.checkpoints.settings import Settings
from dovit.runtime.errors import DovitError, UsageError

ROOTS = ("model", "data_preprocessor", "test_pipeline", "test_dataloader", "data")  # what --set may change


def read_configuration(path: Path, content: dict[str, Any], options: ReadOptions, settings: Settings) -> Section:
    """The whole configuration: mmengine's `meta.cfg`, mmcv 0.x's `meta.config`, as text or as a dictionary."""
    config = _stored_config(path, content)
    if options.config is not None:
        config = read_config(options.config)
        if not isinstance(config.get("model"), dict):
            raise DovitError(f"{options.config}: no configuration of mmsegmentation: it has no model")
    known = config is not None
    tree: dict[str, Any] = _copied(config or {})
    changes = [parse_change(change) for change in options.changes]
    for key, value in changes:
        if key.split(".")[0] not in ROOTS:
            raise UsageError(f"--set {key}: begin with one of {', '.join(ROOTS)}, as model.backbone.num_heads=16")
        if key == "test_pipeline" and known:  # the other places are of the same meaning
            for other in ("test_dataloader", "data"):
                tree.pop(other, None)
        set_value(tree, key, value)
    return Section(path, "", tree, known, settings, frozenset(key for key, _ in changes))


def check_changes(root: Section) -> None:
    """UsageError for a key of --set that no reader has used, after the configuration was read."""
    for key in sorted(root.options):
        at: Any = root.content
        for part in key.split("."):
            at = at[int(part)] if isinstance(at, list) else at.get(part)
        if "." in key and at is not None and key not in root.settings.read:
            raise UsageError(
                f"--set {key}: has no effect on this checkpoint: dovit does not read it, or its configuration says the same "
                f"in another place, such as model.data_preprocessor or test_dataloader.dataset.pipeline"
            )


def _stored_config(path: Path, content: dict[str, Any]) -> dict[str, Any] | None:
    meta = content.get("meta")
    holders = [meta if isinstance(meta, dict) else {}, content]
    for holder in holders:
        for key in ("cfg", "config"):
            value = holder.get(key)
            if isinstance(value, str) and value.strip():
                value = parse_config(value, f"{path}: meta.{key}")
            if isinstance(value, dict) and isinstance(value.get("model"), dict):
                return value
    return None


def _copied(tree: Any) -> Any:
    """A copy that may be changed, of dictionaries and lists."""
    if isinstance(tree, dict):
        return {str(key): _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list) else copy.deepcopy(tree)


def labels_of(content: dict[str, Any], classes: int) -> tuple[Any, Any]:
    """Class names and palette from the metadata, in the spelling of 0.x or 1.x, where they fit; else None."""
    meta = content.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    dataset = meta.get("dataset_meta")
    holders = [dataset if isinstance(dataset, dict) else {}, meta]

    def find(name: str) -> Any:
        found = (holder.get(spelling) for holder in holders for spelling in (name, name.upper()))
        return next((value for value in found if isinstance(value, list | tuple) and len(value) == classes), None)

    names, palette = find("classes"), find("palette")
    return (
        None if names is None else tuple(str(name) for name in names),
        None if palette is None else tuple(tuple(int(v) for v in colour) for colour in palette),
    )
