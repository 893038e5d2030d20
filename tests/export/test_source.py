"""An export is made anew where anything that it depends on has changed, and only then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from models import randomised, small_config

from dovit.export import source
from dovit.export.checkpoints import load_model, save_model
from dovit.export.run import export
from dovit.export.source import is_same, source_of
from dovit.runtime.errors import DovitError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.pth").write_bytes(b"weights")
    (tmp_path / "variant.yml").write_text("net_kwargs: {}")
    (tmp_path / "palette.json").write_text("[]")
    (tmp_path / "base.py").write_text("optimizer = dict(lr=0.01)")
    (tmp_path / "settings.py").write_text("_base_ = 'base.py'\nmodel = 1")
    return tmp_path


def of(folder: Path, **changes: Any) -> source.Source:
    given: dict[str, Any] = {
        "options": {"arch": None, "dense": True, "config": folder / "settings.py", "image_size": (64, 64)},
        "capacities": (0, 8, 16),
        "palette": str(folder / "palette.json"),
        "verified": True,
    }
    return source_of(folder / "model.pth", **{**given, **changes})


@pytest.mark.parametrize("name", ["model.pth", "variant.yml", "palette.json", "settings.py", "base.py", "config.json"])
def test_every_file_counts_by_its_content(folder: Path, name: str) -> None:
    before = of(folder)
    assert is_same(before, of(folder))
    (folder / name).write_text("other = 2")  # of config.json: from absent to there
    changed = of(folder)
    assert not is_same(before, changed)
    (folder / name).unlink()
    if name != "model.pth":
        assert not is_same(changed, of(folder))


def test_a_file_elsewhere_with_the_same_content_is_the_same(folder: Path) -> None:
    (folder / "copy.py").write_text("_base_ = ['base.py']\nmodel = 1")
    (folder / "copy.json").write_text("[]")
    moved = {"arch": None, "dense": True, "config": folder / "copy.py", "image_size": (64, 64)}
    assert is_same(of(folder), of(folder, options=moved, palette=str(folder / "copy.json")))


def test_options_and_packages_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of(folder)
    assert not is_same(before, of(folder, options={"arch": None}))
    assert not is_same(before, of(folder, capacities=None))
    assert not is_same(before, of(folder, palette="cityscapes"))
    assert not is_same(None, before)
    unverified = of(folder, verified=False)
    assert is_same(before, unverified) and not is_same(unverified, before)
    monkeypatch.setattr(source, "version", lambda name: "0.0")
    assert not is_same(before, of(folder))


def test_an_export_notices(tmp_path: Path) -> None:
    """As a whole: the second export is the first's files, until a palette's file changes."""
    save_model(randomised(small_config()), tmp_path / "model.safetensors")
    colours = [[k, k, k] for k in range(7)]
    palette = tmp_path / "palette.json"

    def again() -> bool:
        arguments = (tmp_path / "model.safetensors", tmp_path / "engines", {}, None, str(palette))
        return export(*arguments, check=False).reused

    palette.write_text(json.dumps({"colours": colours}))
    assert [again(), again()] == [False, True]
    palette.write_text(json.dumps({"colours": [*colours[:-1], [9, 9, 9]]}))
    assert [again(), again()] == [False, True]


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    for read in (lambda: source_of(tmp_path, {}, None, None, verified=True), lambda: load_model(tmp_path)):
        with pytest.raises(DovitError, match=r"a folder without config\.json; give .* Hugging Face"):
            read()
