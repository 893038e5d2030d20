"""Code in the documentation: the README's Python runs, and every command line is accepted by its command."""

from __future__ import annotations

import re
import runpy
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer
from documents import PAGES, ROOT, code_blocks

from dovit.export import cli as export_cli
from dovit.runtime.cli.start import COMMANDS

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def command_lines(page: Path) -> list[list[str]]:
    """The words of each line in the page's shell blocks: continued lines joined, comments and what follows a pipe left out."""
    joined = "\n".join(code_blocks(page, "sh")).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [words[: words.index("|")] if "|" in words else words for words in lines if words]


def check(words: list[str]) -> str | None:
    """The error that the line gives; None where it gives none, or is another program's."""
    program, *arguments = words
    if program == "make":
        return None if arguments[0] in TARGETS else f"no target {arguments[0]}"
    if program == "pip" and arguments[0] == "install":
        extras = re.search(r"\[(.*)\]", " ".join(arguments))
        unknown = set(extras[1].split(",")) - set(EXTRAS) if extras else None
        return f"no extra {unknown}" if unknown else None
    if program == "dovit" or not program.startswith("dovit-"):
        return None
    name = program.removeprefix("dovit-")
    if name not in COMMANDS:
        return f"no command {program}"
    app = typer.Typer(add_completion=False)
    app.command()(import_module(COMMANDS[name][0]).command)
    try:
        typer.main.get_command(app).make_context(program, arguments)
    except Exception as error:  # click's UsageError, of the click that typer has
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_is_accepted(page: Path) -> None:
    wrong = {shlex.join(words): reason for words in command_lines(page) if (reason := check(words))}
    assert not wrong


def test_a_wrong_command_line_is_noticed() -> None:
    lines = (
        "dovit-run --engine e --overley a.png",
        "dovit-run a.png",
        "dovit-bench --engine e --rounds many",
        "dovit-fly",
        "make fly",
        "pip install '.[fly]'",
    )
    assert all(check(shlex.split(line)) for line in lines)


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder that looks like a checkout after `make demo`; the comments' numbers are those that are printed."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    arguments = ["dovit-export", "--ckpt", "assets/streets-tiny.safetensors", "--out", "build/demo/engines"]
    monkeypatch.setattr("sys.argv", [*arguments, "--backend", "onnxruntime", "--no-verify"])
    with pytest.raises(SystemExit) as ended:
        export_cli.main()
    assert not ended.value.code
    capsys.readouterr()
    (code,) = code_blocks(ROOT / "README.md", "python")
    (tmp_path / "readme.py").write_text(code)
    found = runpy.run_path("readme.py")
    printed = capsys.readouterr().out.splitlines()
    promised = re.search(r"print\(result\)  # (.*)", code)
    assert promised
    for part in promised[1].split("…"):
        assert part.strip(", ") in printed[0]
    assert printed[1:] == [str(found["result"].labels.shape), str(found["result"].keep_maps.shape)]
    assert sum(found["faster"].kept) < sum(found["result"].kept)
    assert (tmp_path / "labels.png").exists() and (tmp_path / "overlay.png").exists()


def test_results_name_no_folder_of_the_machine_that_measured_them() -> None:
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert files
    found = [
        (file.name, path) for file in files for path in re.findall(r'"((?:/|[A-Z]:)[^"]*/[^"]*)"', file.read_text())
    ]
    assert not found
