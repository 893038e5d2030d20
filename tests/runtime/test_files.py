"""Output files: whole or as before; devices and pipes are written to and never replaced."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dovit.runtime.errors import DovitError, OutputError, UsageError
from dovit.runtime.files import atomic_write, check_output, made_folders, read_regular


def write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write(file, "one")
    file.chmod(0o640)
    with pytest.raises(KeyError), atomic_write(file) as part:
        part.write_text("half")
        raise KeyError
    assert file.read_text() == "one"
    write(file, "two")
    assert file.read_text() == "two" and stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_are_in_the_file_systems_encoding(tmp_path: Path) -> None:
    """Here ASCII, whose other bytes Python keeps as surrogates: a name that was decoded as UTF-8 could not be written."""
    code = """import sys; from pathlib import Path; from dovit.runtime.files import atomic_write
for name in sys.argv[1:]:
    with atomic_write(Path(name)) as part:
        part.write_text("text")"""
    names = ["fötos", "ö" * 120]
    for environment in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONUTF8": "1"}):
        subprocess.run([sys.executable, "-c", code, *names], cwd=tmp_path, env=os.environ | environment, check=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_of_a_link_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    write(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "text"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write(pipe, "through the pipe")
    reader.join(timeout=20)
    assert read == ["through the pipe"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_written_to(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"")
    except PermissionError:  # not root: then nothing could replace the real one either
        device = Path("/dev/null")
    write(device, "text")
    assert stat.S_ISCHR(device.stat().st_mode)
    check_output(Path("/dev/null"), "--out")
    if device.parent == tmp_path:
        assert [path.name for path in tmp_path.iterdir()] == ["null"]
    with pytest.raises(DovitError, match="/dev/full: the disk is full"):
        write(Path("/dev/full"), "text")


@pytest.mark.parametrize("to_file", [False, True])
def test_standard_output_is_written_to(tmp_path: Path, to_file: bool) -> None:
    code = (
        "from pathlib import Path; from dovit.runtime.files import atomic_write\n"
        "print('before')\n"
        "with atomic_write(Path('/dev/stdout')) as part: part.write_text('middle\\n')\n"
        "print('after')\n"
    )
    command = [sys.executable, "-c", code]
    if to_file:
        with (tmp_path / "file").open("w") as stream:
            subprocess.run(command, check=True, stdout=stream, timeout=60)
        made = (tmp_path / "file").read_text()
    else:
        made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout
    assert made == "before\nmiddle\nafter\n"


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("mine")
    longest = tmp_path / ("n" * 255)
    write(longest, "fits")
    assert longest.read_text() == "fits"
    for path in (tmp_path / "loop", tmp_path / ("n" * 256), tmp_path / "zero\0byte", tmp_path / "file" / "below"):
        with pytest.raises(DovitError, match="cannot be written"):
            write(path, "text")
        with pytest.raises(DovitError):
            check_output(path, "--out")
    with pytest.raises(DovitError, match="a folder"):
        write(tmp_path, "text")
    with pytest.raises(UsageError, match=r"--out .*a folder"):
        check_output(tmp_path, "--out")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_is_wrong_with_a_folder_is_told_from_what_is_wrong_with_a_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (Path("/dev/full"), tmp_path / "gone" / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError):
            write(path, "text")
    for path in (tmp_path, tmp_path / ("n" * 256)):
        with pytest.raises(DovitError) as error:
            write(path, "text")
        assert not isinstance(error.value, OutputError)


def test_folders_made_in_vain_go_again(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    folders = [tmp_path / name for name in ("out", "out/a/b", "out/c", "mine", "mine/d")]
    with pytest.raises(ZeroDivisionError), made_folders(folders, "--out"):
        assert all(folder.is_dir() for folder in folders)
        (tmp_path / "out" / "c" / "result").touch()
        raise ZeroDivisionError
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"mine", "out", "out/c", "out/c/result"}
    with made_folders(folders, "--out"):
        pass
    assert all(folder.is_dir() for folder in folders)


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "zero\0byte", tmp_path / ("n" * 256)):
        sentence = r"cannot be made a folder \(.*; give --out another one"
        with pytest.raises(DovitError, match=sentence), made_folders([tmp_path / "out", wrong], "--out"):
            raise AssertionError("it was made")
        assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_reading_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(11))
    for name, reason in (("pipe", "not a regular file"), ("large", "larger than"), ("", "a folder")):
        with pytest.raises(OSError, match=reason):
            read_regular(tmp_path / name, 10)
    assert read_regular(tmp_path / "large", 11) == bytes(11)
