"""`dovit COMMAND` is `dovit-COMMAND`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import dovit
from dovit.runtime.cli import main
from dovit.runtime.cli.start import COMMANDS


def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["dovit", *arguments])
    with pytest.raises(SystemExit) as end:
        main.main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


def test_the_commands_are_those_that_are_installed() -> None:
    scripts = {p.name: p.value for p in entry_points(group="console_scripts") if p.name.startswith("dovit-")}
    assert scripts == {f"dovit-{name}": f"dovit.runtime.cli.start:{name}" for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    status, out, err = typed(monkeypatch, capsys, name, "--help")
    assert (status, err) == (0, "") and out.startswith(f"Usage: dovit {name} [OPTIONS]")
    assert f"  dovit {name} " in out.partition("Examples:")[2]
    assert max(map(len, out.splitlines())) <= 80
    unnamed = re.findall(r"^ +(--\S+ <.*?>)", out, re.MULTILINE)
    assert not unnamed, f"a value without a metavar: {unnamed}"
    assert typed(monkeypatch, capsys, name, "--nonsense")[0] == 2


def test_version_overview_and_a_name_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, capsys, "--version") == (0, f"dovit {dovit.__version__}\n", "")
    for arguments in ((), ("--help",), ("-h",), ("help",)):
        status, out, err = typed(monkeypatch, capsys, *arguments)
        assert (status, err) == (0, "") and all(f"  {name} " in out for name in COMMANDS)
    status, out, err = typed(monkeypatch, capsys, "fly", "--high", "x")
    assert (status, out) == (2, "") and err.startswith("dovit: error: no command fly: ") and err.count("\n") == 1


def test_a_value_that_is_not_among_the_choices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = typed(monkeypatch, capsys, "run", "--engine", "engines", "--mode", "slid", "a.png")
    expected = "dovit run: error: Invalid value for '--mode': 'slid' is not one of 'whole', 'slide'"
    assert (status, out) == (2, "") and err.startswith(expected)


def test_an_error_names_what_was_typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = typed(monkeypatch, capsys, "inspect", "nowhere")
    assert (status, out) == (1, "") and err.startswith("dovit inspect: error: nowhere: ")


def test_the_overview_loads_nothing_heavy() -> None:
    code = """
import sys
from dovit.runtime.cli.main import main
sys.argv = ["dovit", "--help"]
try:
    main()
except SystemExit:
    sys.exit(", ".join({"torch", "onnx", "onnxruntime", "numpy", "PIL"} & set(sys.modules)) or 0)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


INTERRUPTING = """
import os, signal, sys
sys.path.remove(os.path.dirname(__file__))  # the next import finds the real one
signal.signal(signal.SIGINT, signal.default_int_handler)
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("name", ["dovit", *(f"dovit-{name}" for name in COMMANDS)])
def test_an_interrupt_while_modules_are_imported_is_a_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(INTERRUPTING)
    script = Path(sys.executable).parent / name
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run([script, "--help"], env=environment, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == f"{name}: error: interrupted; nothing half-written is left\n"


CHECKPOINT = Path(__file__).parents[2] / "assets" / "streets-tiny.safetensors"
OPTIONAL = """av cuda gradio jinja2 matplotlib nvtx onnx onnx_graphsurgeon onnxscript openvino plotly polygraphy pyarrow ray
    safetensors tensorrt tensorrt_rtx torch tritonclient yaml"""


def without_extras(command: str, *arguments: str) -> tuple[int, str, str]:
    """The installed `command` in an environment that has dovit's own dependencies only: exit status, stdout, stderr."""
    code = f"""
import sys
from importlib.metadata import entry_points
sys.modules.update(dict.fromkeys({OPTIONAL.split()}))  # importing them raises ModuleNotFoundError
sys.argv = {[command, *arguments]}
entry_points(group="console_scripts")["{command}"].load()()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_no_extra(name: str) -> None:
    status, out, err = without_extras(f"dovit-{name}", "--help")
    assert (status, err) == (0, "") and out.startswith(f"Usage: dovit-{name} [OPTIONS]")


@pytest.mark.parametrize(
    ("name", "arguments", "extra"),
    [
        ("train", "--ckpt a.pth --data streets:1 --out o", "training"),
        ("adapt", "--ckpt a.pth --images i --out o", "training"),
        ("export", "--ckpt {checkpoint} --out o", "export"),
        ("eval", "--ckpt a.pth --data streets:1", "training"),
        ("map", "--engine e --input i --output o", "ray"),
        ("demo", "--engine e", "demo"),
    ],
)
def test_a_command_without_its_extra_says_what_to_install(name: str, arguments: str, extra: str) -> None:
    for command in ([f"dovit-{name}"], ["dovit", name]):
        status, out, err = without_extras(*command, *arguments.format(checkpoint=CHECKPOINT).split())
        assert (status, out) == (2, "") and "Traceback" not in err, err
        last = err.splitlines()[-1]  # after the lines of progress
        assert last.startswith(f"{' '.join(command)}: error: ") and last.endswith(f"pip install 'dovit[{extra}]'"), err
