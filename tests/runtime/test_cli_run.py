import errno
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dovit.runtime.cli import run
from dovit.runtime.cli.inputs import Input
from dovit.runtime.cli.outputs import plan_pictures
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.result import Result

Outcome = tuple[int, str, str]  # exit status, stdout, stderr
Dovit = Callable[..., Outcome]


class FakeSession:
    """Two decisions on a 2×3 grid; an image whose first pixel is 13 fails."""

    backend, provider, provider_reason, schedule = "onnxruntime", "cpu", None, "exact"
    manifest = SimpleNamespace(
        decisions=(1, 2), classes=3, palette=((1, 2, 3), (4, 5, 6), (7, 8, 9)), image_size=(4, 6), mode="whole"
    )

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []

    def check_thresholds(self, thresholds: tuple[float, ...] | None) -> tuple[float, ...]:
        if thresholds is not None and len(thresholds) == 3:
            raise UsageError("3 thresholds for 2 decisions: give one for all, or one each")
        return thresholds or (0.9, 0.8)

    def __call__(self, image: np.ndarray, **options: object) -> Result:
        self.calls.append(options)
        if image[0, 0, 0] == 13:
            raise DovitError("not enough memory for this image: use a smaller one, or mode slide")
        if image[0, 0, 0] == 66:
            raise KeyboardInterrupt
        if image[0, 0, 0] == 77:
            raise RuntimeError("a bug\nwith more lines")
        keep = np.array([[[1, 1, 0], [1, 0, 0]], [[1, 0, 0], [0, 0, 0]]], bool)
        confidence = np.full((2, 2, 3), 0.5, np.float32)
        return Result((image[..., 0] % 3).astype(np.uint8), (3, 1), 6, keep, confidence)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    fake = FakeSession()
    monkeypatch.setattr(run, "load", lambda path, backend, **options: fake)
    return fake


@pytest.fixture
def dovit_run(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Dovit:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DOVIT_DEBUG", raising=False)

    def call(*arguments: str, engine: str | None = "engines") -> Outcome:
        flags = ["--engine", engine] if engine else []
        monkeypatch.setattr(sys, "argv", ["dovit-run", *flags, *arguments])
        with pytest.raises(SystemExit) as end:
            run.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


def picture(name: str, first: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(len(name)).integers(0, 250, (8, 12, 3), dtype=np.uint8)
    pixels[0, 0, 0] = first
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(name)
    return pixels


def fail_to_write(monkeypatch: pytest.MonkeyPatch, begins: str, number: int) -> None:
    """Temporary files whose names begin so fail half written."""
    save = Image.Image.save

    def half(self: Image.Image, path: Path, *arguments: object, **options: object) -> None:
        if not path.name.startswith(begins):
            return save(self, path, *arguments, **options)  # type: ignore[arg-type]
        path.write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Image.Image, "save", half)


def outputs(folder: str = "dovit-out") -> list[str]:
    return sorted(os.listdir(folder))


def test_labels_go_to_the_stem_and_the_line_is_short(dovit_run: Dovit) -> None:
    pixels = picture("a.png")
    status, out, err = dovit_run("a.png")
    assert (status, err) == (0, "")
    assert out.startswith("a.png → dovit-out/a.png  kept 3/1 of 6 tokens, ") and out.count("\n") == 1
    assert outputs() == ["a.png"]
    with Image.open("dovit-out/a.png") as labels:
        assert labels.mode == "P" and labels.getpalette()[:9] == list(range(1, 10))  # type: ignore[index]
        np.testing.assert_array_equal(np.asarray(labels), pixels[..., 0] % 3)


def test_control_characters_in_names_do_not_reach_the_terminal(dovit_run: Dovit) -> None:
    picture("a\n\x1b[31m.png")
    status, out, err = dovit_run("a\n\x1b[31m.png")
    assert (status, err) == (0, "")
    assert out.startswith(r"a\n\x1b[31m.png → dovit-out/a\n\x1b[31m.png  kept ") and out.count("\n") == 1
    status, _, err = dovit_run("a\n\x1b[31m.png", "b\n.png")
    assert status == 1 and err.startswith(r"dovit-run: error: b\n.png: ") and err.count("\n") == 2


def test_all_pictures(dovit_run: Dovit) -> None:
    pixels = picture("a.png")
    assert dovit_run("a.png", "--out", "o/p", "--overlay", "--keep-maps", "--confidence-maps")[0] == 0
    extras = ["a.confidence1.png", "a.confidence2.png", "a.keep1.png", "a.keep2.png", "a.overlay.png"]
    assert outputs("o/p") == sorted([*extras, "a.png"])
    kept = np.asarray(Image.open("o/p/a.keep2.png"))
    assert (kept[:4, :4] == pixels[:4, :4]).all()
    assert (kept[4:] == 255).all() and (kept[:, 4:] == 255).all()


def test_json_is_one_object_a_line(dovit_run: Dovit) -> None:
    picture("a.png"), picture("b.png")
    status, out, err = dovit_run("b.png", "a.png", "--json", "--schedule", "bucketed")
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["image"] for row in rows] == ["b.png", "a.png"]
    assert rows[0].pop("latency_ms") >= 0
    assert rows[0] == {
        "image": "b.png",
        "page": 1,
        "labels": "dovit-out/b.png",
        "replaced": False,
        "size": [8, 12],
        "tokens": 6,
        "kept": [3, 1],
        "backend": "onnxruntime",
        "provider": "cpu",
        "mode": "whole",
        "schedule": "bucketed",
    }


@pytest.mark.parametrize("flags", [("--json",), ()])
def test_lines_stay_on_stdout_when_stderr_is_a_terminal(
    dovit_run: Dovit, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    # the bar's console then takes over stdout, unless told not to: `dovit-run --json > file` would leave the file empty
    terminal = functools.partial(Console, stderr=True, force_terminal=True, force_interactive=True, width=20)
    monkeypatch.setattr(run, "error_console", terminal)
    name = "a_name_that_is_longer_than_the_terminal_is_wide.png"
    picture(name)
    status, out, err = dovit_run(name, *flags)
    assert status == 0 and out.count("\n") == 1 and name in out and name not in err


def test_options_reach_the_session(dovit_run: Dovit, session: FakeSession) -> None:
    picture("a.png")
    assert dovit_run("a.png")[0] == 0
    assert session.calls[-1] == {"mode": "whole", "threshold": (0.9, 0.8), "schedule": "exact"}
    assert dovit_run("a.png", "--mode", "slide", "--threshold", "0.5,0.25", "--schedule", "bucketed")[0] == 0
    assert session.calls[-1] == {"mode": "slide", "threshold": (0.5, 0.25), "schedule": "bucketed"}
    assert dovit_run("a.png", "--threshold", "0.5", "--threshold", "1")[0] == 0
    assert session.calls[-1]["threshold"] == (0.5, 1.0)


def test_one_bad_image_does_not_stop_the_others(dovit_run: Dovit) -> None:
    picture("in/a.png"), picture("in/c.png", first=13), picture("in/d.png")
    Path("in/b.png").write_text("no picture")
    status, out, err = dovit_run("in", "gone.png")
    assert status == 1
    assert [line.split(" → ")[0] for line in out.splitlines()] == ["in/a.png", "in/d.png"]
    assert err.splitlines() == [
        "dovit-run: error: in/b.png: not an image that Pillow can read; convert it to PNG or JPEG",
        "dovit-run: error: in/c.png: not enough memory for this image: use a smaller one, or mode slide",
        "dovit-run: error: gone.png: no such image; check the path",
        "dovit-run: error: 3 of 5 images failed; the others are in dovit-out",
    ]
    assert outputs() == ["a.png", "d.png"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_an_output_that_cannot_be_written_ends_the_run(
    dovit_run: Dovit, session: FakeSession, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for name in "abcd":
        picture(f"in/{name}.png", first=13 if name == "a" else 0)
    assert dovit_run("in/c.png")[0] == 0
    before, calls = Path("dovit-out/c.png").read_bytes(), len(session.calls)
    fail_to_write(monkeypatch, ".c.overlay.png", number)
    status, out, err = dovit_run("in", "--overlay")
    assert status == 1 and [line.split(" → ")[0] for line in out.splitlines()] == ["in/b.png"]
    failed, ended = err.splitlines()
    assert failed.startswith("dovit-run: error: in/a.png: not enough memory")
    assert ended.startswith("dovit-run: error: dovit-out/c.overlay.png: ")
    assert ended.endswith("; 1 of 4 images were done before")
    assert len(session.calls) == calls + 3  # d was not computed
    assert outputs() == ["b.overlay.png", "b.png", "c.png"] and Path("dovit-out/c.png").read_bytes() == before


def test_a_name_that_is_too_long_does_not_stop_the_others(dovit_run: Dovit) -> None:
    long = "n" * 250
    picture(f"in/{long}.png"), picture("in/z.png")
    status, out, err = dovit_run("in", "--overlay")
    assert status == 1 and out.startswith("in/z.png → ") and "File name too long" in err.splitlines()[0]
    assert outputs() == ["z.overlay.png", "z.png"]


BAD = {
    "no image": ((), 2, "Missing argument"),
    "unknown flag": (("a.png", "--nope"), 2, "No such option: --nope"),
    "unknown mode": (("a.png", "--mode", "half"), 2, "'half' is not one of"),
    "threshold no number": (("a.png", "--threshold", "0.9,high"), 2, "--threshold 0.9,high: give numbers"),
    "three thresholds": (("a.png", "--threshold", "1,1,1"), 2, "3 thresholds for 2 decisions"),
    "pictures of a profile": (("a.png", "--profile", "--overlay"), 2, "--overlay: --profile times passes of the model"),
    "mode of a profile": (("a.png", "--profile", "--mode", "slide"), 2, "--mode: --profile times passes of the model"),
    "missing": (("gone.png",), 1, "gone.png: no such image"),
    "empty": (("empty.png",), 1, "empty.png: the file is empty"),
    "not an image": (("notes.txt",), 1, "notes.txt: not an image"),
    "glob": (("*.jpeg",), 2, "*.jpeg: no file matches"),
    "empty folder": (("hollow",), 2, "hollow: no images in this folder"),
    "out is a file": (("a.png", "--out", "notes.txt"), 1, "notes.txt: cannot be made a folder"),
    "out is named as a file": (("a.png", "--out", "a.PNG"), 2, "a.PNG: the name of a file; give a folder, such as a"),
    "out is below a file": (("a.png", "--out", "notes.txt/out"), 1, "cannot be made a folder"),
    "out is the input's folder": (("a.png", "--out", "."), 2, "a.png is an input image and would be overwritten"),
    "an extra is an input": (("a.png", "sub/a.keep2.png", "--out", "sub", "--keep-maps"), 2, "would be overwritten"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_gets_one_sentence_and_its_status(dovit_run: Dovit, kind: str) -> None:
    arguments, expected, sentence = BAD[kind]
    before = picture("a.png"), picture("sub/a.keep2.png")
    Path("empty.png").touch()
    Path("notes.txt").write_text("notes")
    Path("hollow").mkdir()
    there = set(Path.cwd().rglob("*"))
    status, out, err = dovit_run(*arguments)
    assert (status, out) == (expected, "")
    assert set(Path.cwd().rglob("*")) == there  # no folder that was made for outputs either
    assert err.startswith("dovit-run: error: ") and err.count("\n") == 1
    assert sentence in err
    for name, pixels in zip(("a.png", "sub/a.keep2.png"), before, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(name)), pixels)


@pytest.mark.parametrize(
    "given", [("--threshold", "0.9"), ("--schedule", "exact"), ("--keep-maps",), ("--confidence-maps",)]
)
def test_options_about_tokens_where_none_stops(dovit_run: Dovit, session: FakeSession, given: tuple[str, ...]) -> None:
    session.manifest = SimpleNamespace(**{**vars(session.manifest), "decisions": ()})
    picture("a.png")
    flag = given[0]
    sentence = f"{flag}: the model has no decisions, so no token stops: leave {flag} out"
    assert dovit_run("a.png", *given) == (2, "", f"dovit-run: error: {sentence}\n")


def test_engine_is_asked_for(dovit_run: Dovit) -> None:
    status, out, err = dovit_run("a.png", engine=None)
    assert (status, out) == (2, "") and "--engine" in err and err.count("\n") == 1


def test_a_folder_that_is_no_bundle(dovit_run: Dovit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dovit.runtime.loading import load

    monkeypatch.setattr(run, "load", load)
    picture("a.png")
    status, out, err = dovit_run("a.png", engine=str(tmp_path))
    assert (status, out) == (1, "") and "not a dovit bundle" in err and err.count("\n") == 1


def test_ctrl_c_is_one_line_and_130(dovit_run: Dovit) -> None:
    picture("a.png", first=66)
    assert dovit_run("a.png") == (130, "", "dovit-run: error: interrupted; nothing half-written is left\n")


def test_a_bug_is_one_line_and_its_traceback_on_request(dovit_run: Dovit, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("a.png", first=77)
    status, out, err = dovit_run("a.png")
    assert (status, out) == (1, "")
    assert err == "dovit-run: error: internal error: RuntimeError: a bug; set DOVIT_DEBUG=1 for the traceback\n"
    monkeypatch.setenv("DOVIT_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["dovit-run", "--engine", "engines", "a.png"])
    with pytest.raises(RuntimeError, match="a bug"):
        run.main()


def test_help_has_examples(dovit_run: Dovit) -> None:
    for flag in ("--help", "-h"):
        status, out, err = dovit_run(flag)
        assert (status, err) == (0, "") and "dovit-run --engine engines/ image.png" in out


def test_equal_stems_get_names_of_their_own(dovit_run: Dovit) -> None:
    for name in ("x/a.png", "y/a.png", "y/a.bmp", "A.png"):
        picture(name)
    status, out, _ = dovit_run("x/a.png", "y/a.png", "y/a.bmp", "A.png", "--json")
    labels = [json.loads(line)["labels"] for line in out.splitlines()]
    assert status == 0 and len({label.casefold() for label in labels}) == 4
    assert labels[0] == "dovit-out/a.png"
    for name, label in zip(("x/a.png", "y/a.png", "y/a.bmp", "A.png"), labels, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(label)), np.asarray(Image.open(name))[..., 0] % 3)


def planned(files: list[Path], endings: Sequence[str] = (".png",)) -> list[str]:
    pictures = plan_pictures([Input(file) for file in files], [1] * len(files), Path("out"), endings)
    return [str(picture.base) for picture in pictures]


def test_labels_of_one_image_are_not_the_overlay_of_another() -> None:
    files = [Path("a.png"), Path("a.overlay.png"), Path("a.keep1.png")]
    endings = [".png", ".overlay.png", ".keep1.png"]
    names = planned(files, endings)
    made = [name + ending for name in names for ending in endings]
    assert names[0] == "out/a" and len(set(made)) == len(made) == 9
    assert planned(files) == ["out/a", "out/a.overlay", "out/a.keep1"]


def test_all_images_fail(dovit_run: Dovit) -> None:
    status, out, err = dovit_run("gone.png", "lost.png")
    assert (status, out) == (1, "") and err.splitlines()[-1] == "dovit-run: error: 2 of 2 images failed"


def test_many_images_of_one_name() -> None:
    names = planned([Path("a.png")] * 50)
    assert len(set(names)) == 50


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    code = (
        "from dovit.runtime.cli.app import run_command\n"
        "def command():\n    for i in range(100000):\n        print(i, flush=True)\n"
        "run_command(command, 'dovit-run')"
    )
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_plain_ascii_terminal_stops_nothing() -> None:
    code = "from dovit.runtime.cli.app import run_command\nrun_command(lambda: print('→ ξ'), 'dovit-run')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "? ?\n", "")


def test_running_needs_neither_torch_nor_onnx() -> None:
    code = "import sys, dovit.runtime.cli.run; sys.exit(bool({'torch', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_calls_into_one_folder_lose_nothing_silently(dovit_run: Dovit) -> None:
    picture("x/a.png"), picture("y/a.png", first=1)
    assert dovit_run("x/a.png")[0] == 0
    before = Path("dovit-out/a.png").read_bytes()
    status, out, err = dovit_run("y/a.png")
    assert (status, out) == (2, "") and "was made from x/a.png" in err and "--overwrite" in err
    assert Path("dovit-out/a.png").read_bytes() == before
    status, out, err = dovit_run("x/a.png")
    assert (status, err) == (0, "") and out.endswith(", replaced\n")
    assert dovit_run("y/a.png", "--overwrite")[0] == 0 and Path("dovit-out/a.png").read_bytes() != before


def test_recursion_and_pages(dovit_run: Dovit) -> None:
    picture("in/a.png"), picture("in/b/a.png")
    frames = [Image.new("RGB", (12, 8), (k, 0, 0)) for k in range(3)]
    frames[0].save("in/b/scan.tif", save_all=True, append_images=frames[1:])
    status, _, err = dovit_run("in", "--recursive")
    assert (status, err) == (
        0,
        "dovit-run: note: in/b/scan.tif: only the first of its 3 pages; --all-pages takes all\n",
    )
    assert outputs() == ["a.png", "b"] and outputs("dovit-out/b") == ["a.png", "scan.png"]
    status, out, err = dovit_run("in/b", "--all-pages", "--out", "pages")
    assert (status, err) == (0, "") and "in/b/scan.tif, page 3 → pages/scan.p3.png" in out
    assert outputs("pages") == ["a.png", "scan.p2.png", "scan.p3.png", "scan.png"]
    labels = [int(np.asarray(Image.open(f"pages/scan{page}.png"))[0, 0]) for page in ("", ".p2", ".p3")]
    assert labels == [0, 1, 2]


def test_a_damaged_page_is_named_and_what_follows_it_too(dovit_run: Dovit, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> Iterator[np.ndarray]:
        yield np.zeros((8, 12, 3), np.uint8)
        raise DovitError(f"{path}: the image is damaged")

    Image.new("RGB", (12, 8)).save("a.tif", save_all=True, append_images=[Image.new("RGB", (12, 8))] * 2)
    monkeypatch.setattr(run, "read_pages", read)
    status, out, err = dovit_run("a.tif", "--all-pages")
    assert status == 1 and out.count("\n") == 1
    assert [line.split("error: ")[1] for line in err.splitlines()] == [
        "a.tif, page 2: the image is damaged",
        "a.tif, page 3: not read, since a page before it is damaged",
        "2 of 3 images failed; the others are in dovit-out",
    ]
