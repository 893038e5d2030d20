"""dovit-run on videos: what it writes, keeps, and refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from installed import require
from PIL import Image
from videos import FRAMES, TIMES, read_labels

from dovit.runtime.cli import video as video_command
from dovit.runtime.cli.video import find_videos
from dovit.runtime.errors import UsageError
from dovit.runtime.session import Session
from dovit.runtime.video.read import Video
from dovit.runtime.video.write import VideoWriter

av = require("av")


def test_labels_overlay_and_maps_of_a_video(
    dovit: Callable[..., tuple[int, str, str]], session: Session, drive: Path, tmp_path: Path
) -> None:
    status, output, errors = dovit(drive, "--overlay", "--keep-maps", "--confidence-maps", "--json")
    assert status == 0, errors
    rows = [json.loads(line) for line in output.splitlines()]
    with Video(drive) as video:
        results = [session(frame.pixels) for frame in video]
    labels = read_labels(tmp_path / "out/drive.labels.mkv")
    assert all(np.array_equal(found, result.labels) for found, result in zip(labels, results, strict=True))
    assert [row["kept"] for row in rows[:-1]] == [list(result.kept) for result in results]
    assert [row["time"] for row in rows[:-1]] == pytest.approx([t / 1000 for t in TIMES], abs=1e-3)
    assert rows[-1]["frames"] == FRAMES and rows[-1]["damaged"] == 0
    with av.open(str(tmp_path / "out/drive.overlay.mp4")) as container:
        overlays = [(round(1000 * f.time), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    assert [t for t, _ in overlays] == TIMES
    names = {p.name for p in (tmp_path / "out").iterdir()}
    maps = {f"drive.{kind}{k}.mp4" for kind in ("keep", "confidence") for k in (1, 2)}
    assert names == {"drive.labels.mkv", "drive.overlay.mp4", *maps}


def test_a_png_a_frame_and_the_first_frames_only(
    dovit: Callable[..., tuple[int, str, str]], session: Session, drive: Path, tmp_path: Path
) -> None:
    status, output, errors = dovit(drive, "--frames", "--max-frames", 3)
    assert status == 0, errors
    assert "3 frames in" in output and "decoding" in output
    files = sorted((tmp_path / "out/drive").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    with Video(drive) as video:
        for file, frame in zip(files, video, strict=False):
            assert np.array_equal(np.asarray(Image.open(file)), session(frame.pixels).labels)
    assert dovit(drive, "--frames")[0] == 0  # the same video's output is replaced
    assert len(list((tmp_path / "out/drive").iterdir())) == FRAMES
    for name in ("notes.txt", "99.png", "0000020.png"):  # no names of frames
        (tmp_path / "out/drive" / name).write_text("mine")
    assert dovit(drive, "--frames", "--max-frames", 3)[0] == 0  # and what was longer is not left behind it
    names = {file.name for file in (tmp_path / "out/drive").iterdir()}
    assert names == {*(file.name for file in files), "notes.txt", "99.png", "0000020.png"}


def test_every_frame_there_is_the_videos_own(
    dovit: Callable[..., tuple[int, str, str]], drive: Path, tmp_path: Path
) -> None:
    assert dovit(drive, "--frames", "--max-frames", 3)[0] == 0
    folder = tmp_path / "out/drive"
    for name in ("000002.png", "1000000.png"):
        Image.new("RGB", (4, 4)).save(folder / name)
        status, _, errors = dovit(drive, "--frames", "--max-frames", 1)
        assert status == 2 and f"drive/{name} is there and was not written by dovit-run: give --out" in errors
        (folder / name).unlink()
    other = tmp_path / "other" / "drive.mp4"
    other.parent.mkdir()
    other.write_bytes(drive.read_bytes())
    status, _, errors = dovit(other, "--frames", "--max-frames", 1)
    assert status == 2 and "000000.png is there and was made from" in errors
    Image.new("RGB", (4, 4)).save(folder / "000009.png")
    assert dovit(other, "--frames", "--max-frames", 1, "--overwrite")[0] == 0
    # another video's frames would be taken for this one's; what is no frame of a video's stays
    assert sorted(file.name for file in folder.iterdir()) == ["000000.png", "000009.png"]


@pytest.mark.parametrize("frames", [True, False])
def test_a_full_disk_ends_the_run(
    dovit: Callable[..., tuple[int, str, str]],
    drive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frames: bool,
) -> None:
    other = shutil.copy(drive, tmp_path / "other.mp4")
    written = []

    def fail(self: object, *_: object, **__: object) -> None:
        written.append(self)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((Image.Image, "save", fail) if frames else (VideoWriter, "write", fail)))
    status, output, errors = dovit(drive, other, *["--frames"] * frames)
    (error,) = (line for line in errors.splitlines() if "error" in line)
    assert status == 1 and "the disk is full" in error and "other" not in output
    assert error.endswith("; 0 of 2 videos were done before") and ("frames until then" in error) == frames


def test_a_reader_of_the_rows_that_goes_away_leaves_the_outputs(
    dovit: Callable[..., tuple[int, str, str]], drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dovit-run --json drive.mp4 | head -3`"""
    rows: list[str] = []

    def printed(text: str, **_: object) -> None:
        rows.append(text)
        if len(rows) == 4:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(video_command, "print", printed, raising=False)
    status, _, errors = dovit(drive, "--json")
    assert status == 1 and "error" not in errors
    assert len(read_labels(tmp_path / "out/drive.labels.mkv")) == 4


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_stream_keeps_what_it_had(
    dovit: Callable[..., tuple[int, str, str]], drive: Path, tmp_path: Path, damage: str
) -> None:
    content = bytearray(drive.read_bytes())
    begin = content.index(b"mdat")
    if damage == "cut":
        content = content[: begin + (len(content) - begin) * 3 // 4]  # the first of its frames is half of it
    else:
        middle = begin + (len(content) - begin) * 3 // 4
        content[middle : middle + 300] = os.urandom(300)
    path = tmp_path / "part.mp4"
    path.write_bytes(content)
    status, _, errors = dovit(path, "--overlay")
    assert status == 1 and ("are damaged" in errors or "ends early" in errors), errors
    found = len(read_labels(tmp_path / "out/part.labels.mkv"))
    assert 1 <= found <= FRAMES and f"the outputs have the {found} frames" in errors
    with av.open(str(tmp_path / "out/part.overlay.mp4")) as container:
        assert len(list(container.decode(video=0))) == found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_camera_runs_until_it_is_interrupted(
    dovit: Callable[..., tuple[int, str, str]], tmp_path: Path, number: signal.Signals
) -> None:
    timer = threading.Timer(1.0, os.kill, (os.getpid(), number))
    timer.start()
    status, _, errors = dovit("testsrc=size=96x64:rate=25", "--video-format", "lavfi", "--video")
    timer.join()
    (labels,) = (tmp_path / "out").iterdir()
    count = len(read_labels(labels))
    assert status == 128 + number and count >= 1
    assert f"interrupted; the outputs have the {count} frames" in errors


def test_outputs_of_others_are_not_replaced(
    dovit: Callable[..., tuple[int, str, str]], drive: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "drive.mp4"
    other.parent.mkdir()
    other.write_bytes(drive.read_bytes())
    status, line, _ = dovit(drive, "--max-frames", 1)
    assert status == 0 and "replaced" not in line
    status, _, errors = dovit(other, "--max-frames", 1)
    assert status == 2 and "was made from" in errors and "--overwrite" in errors
    status, line, _ = dovit(other, "--max-frames", 1, "--overwrite")
    assert status == 0 and line.endswith(", replaced\n")
    (tmp_path / "out/drive.labels.mkv").write_text("mine")
    status, _, errors = dovit(drive)
    assert status == 2 and "not written by dovit-run" in errors


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_video_that_is_read_is_no_output(
    dovit: Callable[..., tuple[int, str, str]], drive: Path, tmp_path: Path, overwrite: bool
) -> None:
    """Not of another one that is given with it either."""
    (tmp_path / "out").mkdir()
    videos = [shutil.copy(drive, tmp_path / "out" / name) for name in ("a.mp4", "a.overlay.mp4")]
    before = Path(videos[1]).read_bytes()
    for order in (videos, videos[::-1]):
        status, _, errors = dovit(*order, "--overlay", *["--overwrite"] * overwrite)
        assert status == 2 and "a.overlay.mp4 is an input video and would be overwritten" in errors
    assert Path(videos[1]).read_bytes() == before


def test_nothing_is_left_of_a_video_without_frames(dovit: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    status, _, errors = dovit(tmp_path / "sound.mp4")
    assert status == 1 and "has no pictures" in errors
    assert not (tmp_path / "out").exists()


def test_a_camera_that_is_not_there(dovit: Callable[..., tuple[int, str, str]]) -> None:
    status, _, errors = dovit("/dev/video98")
    assert status == 1 and "/dev/video98: cannot be opened" in errors and "check that the camera is connected" in errors


def test_wrong_command_lines(
    dovit: Callable[..., tuple[int, str, str]], drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, part in {
        (drive, "image.png"): "run images and videos apart",
        (drive, "--all-pages"): "--all-pages is for images",
        ("image.png", "--max-frames", 3): "--max-frames is for videos",
        ("https://example.org/image.png",): "URLs are not fetched",
    }.items():
        status, _, errors = dovit(*arguments)
        assert status == 2 and part in errors, errors
    monkeypatch.setitem(sys.modules, "av", None)
    status, _, errors = dovit(drive)
    assert status == 2 and "pip install 'dovit[video]'" in errors


def test_what_is_taken_for_a_video(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "b.mkv").touch()
    (tmp_path / "a.mkv").touch()
    streams = ["rtsp://camera/live", "https://host/clip.mp4?x=1", "/dev/video0", "DRIVE.MOV"]
    assert find_videos(streams) == streams
    assert find_videos(["image.png", "anim.gif", "https://host/page", str(tmp_path / "folder.mp4")]) == []
    assert find_videos([str(tmp_path / "*.mkv")]) == [str(tmp_path / "a.mkv"), str(tmp_path / "b.mkv")]
    assert find_videos(["clip"], every=True) == ["clip"]
    with pytest.raises(UsageError, match="apart"):
        find_videos(["a.mp4", "a.png"])
