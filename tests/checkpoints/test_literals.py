"""Configurations are read as mmengine reads them, and nothing in them is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from oracle import mmseg

from dovit.export.checkpoints.literals import parse_change, parse_config, read_config, set_value
from dovit.runtime.errors import DovitError, UsageError


def packaged() -> list[Path]:
    import importlib.util

    spec = importlib.util.find_spec("mmseg")
    if spec is None or spec.origin is None:
        return []
    configs = Path(spec.origin).parent / ".mim" / "configs"
    return sorted([*(configs / "setr").glob("*.py"), *(configs / "segmenter").glob("*.py")])


@pytest.mark.oracle
@pytest.mark.parametrize("file", packaged(), ids=lambda file: file.stem)
def test_mmsegmentations_configurations_are_read_as_mmengine_does(file: Path, tmp_path: Path) -> None:
    mmseg.require()
    from mmengine import Config

    config = Config.fromfile(file)
    expected = config.to_dict()
    assert read_config(file) == expected
    text = config.pretty_text  # as a checkpoint carries it
    assert parse_config(text, "file") == Config.fromstring(text, ".py").to_dict() == expected
    for suffix in (".json", ".yaml"):
        config.dump(tmp_path / f"config{suffix}")
        dumped = read_config(tmp_path / f"config{suffix}")
        assert dumped == Config.fromfile(tmp_path / f"config{suffix}").to_dict()


def test_bases_are_merged(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("model = dict(a=dict(x=1, y=2), b=[1], c=3)\nnorm = dict(type='BN')\n")
    (tmp_path / "run.py").write_text("steps = 5\n")
    (tmp_path / "top.py").write_text(
        '"""A configuration."""\n_base_ = ["model.py", "run.py"]\nsize = (2, 3)\n'
        "model = dict(a=dict(y=5, size=size), b=dict(_delete_=True, z=-1.5), d=[1024] * 2 + [size[0]])\n"
    )
    assert read_config(tmp_path / "top.py") == {
        "model": {"a": {"x": 1, "y": 5, "size": (2, 3)}, "b": {"z": -1.5}, "c": 3, "d": [1024, 1024, 2]},
        "norm": {"type": "BN"},
        "steps": 5,
        "size": (2, 3),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import os\nmodel = dict()", "line 1: not an assignment"),
        (
            "model = __import__('os').system('touch ran')",
            r"line 1: __import__\('os'\).system\('touch ran'\) is no literal",
        ),
        ("model = open('x').read()", "is no literal"),
        ("model = dict(a=lambda: 1)", "is no literal"),
        ("model = dict(a=b)", "line 1: b is not assigned before"),
        ("model = dict(a=[0] * 10 ** 9)", "is no literal"),
        ("model = dict(a=[0] * 999999999)", "a sequence of more than 65536"),
        ("model = dict(a={{ fileDirname }})", "mmengine fills in"),
        ("model = dict(", "no Python configuration"),
        ("model.a = 3", "not an assignment"),
        ("model = " + "[" * 3000, "no Python configuration"),
        ("model = dict(a=[1][4])", "cannot be read without running it"),
    ],
)
def test_what_is_no_literal_is_refused_with_its_line(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DovitError, match=sentence) as error:
        parse_config(text, "model.pth: meta.cfg")
    assert str(error.value).startswith("model.pth: meta.cfg: ") and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.py", "_base_ = 'a.py'\n", "leads back to itself"),
        ("a.py", "_base_ = 'gone.py'\n", "gone.py: no such configuration"),
        ("a.py", "_base_ = 'mmseg::setr/a.py'\n", "in another package"),
        ("a.json", "{", "damaged"),
        ("a.yml", "- 1\n", "holds a list"),
    ],
)
def test_configuration_files_that_cannot_be_read(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DovitError, match=sentence):
        read_config(tmp_path / name)


def test_changes() -> None:
    tree: dict[str, Any] = {"model": {"heads": [{"a": 1}, {"a": 2}], "n": 3}}
    for text in (
        "model.heads.1.a=7",
        "model.new.eps=1e-3",
        "model.mode=slide",
        "model.act=dict(type='ReLU')",
        "model.n=None",
    ):
        set_value(tree, *parse_change(text))
    assert tree["model"] == {
        "heads": [{"a": 1}, {"a": 7}],
        "new": {"eps": 1e-3},
        "mode": "slide",
        "act": {"type": "ReLU"},
        "n": None,
    }
    for text, sentence in [
        ("model", "give KEY=VALUE"),
        ("=3", "give KEY=VALUE"),
        ("model.heads.2.a=1", "2 is no place in a list of 2"),
        ("model.mode.x=1", "model.mode holds a value"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            set_value(tree, *parse_change(text))


@pytest.mark.parametrize(
    "text",
    [
        "a = [1]\n" + "a = a + a\n" * 60,
        "a = 'x'\n" + "a = a + a\n" * 60,
        "a = 7\n" + "a = a * a\n" * 60,
        "a = [1]\n" + "a = [a, a]\n" * 60,
        "a = (0,) * 65536\nb = [[x for x in a] for y in a]\n",
        "a = [0] * 65536\nb = [" + "a, " * 50 + "]\n",
    ],
    ids=["lists", "texts", "numbers", "nested", "comprehensions", "copies"],
)
def test_a_few_lines_cannot_ask_for_gigabytes(text: str) -> None:
    with pytest.raises(DovitError, match=r"more than \d+"):
        parse_config(text, "config.py")
