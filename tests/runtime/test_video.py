"""Videos: what is read (times, turned frames, damaged files, streams), label videos, the pipeline, and dovit-run on them."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from installed import require
from PIL import Image

from dovit.runtime.cli import run
from dovit.runtime.cli import video as video_command
from dovit.runtime.cli.video import find_videos
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.result import Result
from dovit.runtime.session import Session
from dovit.runtime.video.pipeline import Seconds, run_pipeline
from dovit.runtime.video.read import Frame, Video, turned, without_secrets
from dovit.runtime.video.write import VideoWriter, source_of

av = require("av")
FRAMES = 12
TIMES = [sum(40 if i % 3 else 90 for i in range(1, n + 1)) for n in range(FRAMES)]  # milliseconds, unevenly apart


def picture(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """A smooth picture without symmetry, which moves from frame to frame."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // width, y * 255 // height, (x + 3 * number) * 255 // (width + 3 * FRAMES)]
    return np.stack(planes, axis=2).astype(np.uint8)


def make_video(path: Path, codec: str = "libx264", count: int = FRAMES, **options: str) -> Path:
    """A video with uneven times that begins at half a second."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = 500 + TIMES[number % FRAMES], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_labels(path: Path) -> list[np.ndarray]:
    """The label video, by PyAV alone."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def close_to(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and float(np.abs(found.astype(int) - expected).mean()) < 6


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "drive.mp4", movflags="+faststart")


@pytest.fixture
def dovit(
    session: Session, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """dovit-run into tmp_path/out: status, stdout, stderr."""
    monkeypatch.setattr(run, "load", lambda *_, **__: session)

    def command(*arguments: object) -> tuple[int, str, str]:
        line = ["dovit-run", "--engine", "e", "--out", str(tmp_path / "out"), *map(str, arguments)]
        monkeypatch.setattr("sys.argv", line)
        with pytest.raises(SystemExit) as end:
            run.main()
        output = capfd.readouterr()
        return int(end.value.code or 0), output.out, output.err

    return command


# --- reading ---


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.mov", "libx264")]
)
def test_frames_of_any_container_with_their_times(tmp_path: Path, name: str, codec: str) -> None:
    path = make_video(tmp_path / name, codec)
    with Video(path) as video:
        frames = list(video)
    assert len(frames) == FRAMES and video.damaged == 0 and video.cut_off is None
    assert all(close_to(frame.pixels, picture(number)) for number, frame in enumerate(frames))
    assert [frame.time for frame in frames] == pytest.approx([t / 1000 for t in TIMES], abs=0.002)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("seconds", [0.04, 10])
def test_a_last_frame_that_is_shown_long_is_no_cut(tmp_path: Path, name: str, seconds: float) -> None:
    """As a recording of slides has it. By its packets, in FFmpeg's order and with the durations that the container keeps."""
    with av.open(str(make_video(tmp_path / "short.mp4"))) as source, av.open(str(tmp_path / name), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        last = max(packets, key=lambda packet: packet.pts)
        last.duration = round(seconds / last.time_base)
        for packet in packets:
            packet.stream = stream
            target.mux(packet)
    with Video(tmp_path / name) as video:
        assert len(list(video)) == FRAMES
        assert (video.damaged, video.cut_off) == (0, None)


def test_a_file_without_a_count_that_ends_early_is_called_cut(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "a.mkv").read_bytes()
    (tmp_path / "part.mkv").write_bytes(whole[: len(whole) * 4 // 5])
    with Video(tmp_path / "part.mkv") as video:
        assert 1 <= len(list(video)) < FRAMES - 3
        assert video.cut_off is not None and re.fullmatch(r"0\.\d\d of 0\.\d\d seconds", video.cut_off)


def turn(path: Path, matrix: tuple[int, int, int, int], to: Path) -> Path:
    """A copy of an MP4 whose display matrix has a, b, c, d (ISO 14496-12: 16.16 fixed point in the track's header)."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # the header's version 0
    a, b, c, d = (value << 16 for value in matrix)
    values = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    content[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    to.write_bytes(content)
    return to


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_frames_are_rotated_as_ffmpeg_says(drive: Path, tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = turn(drive, matrix, tmp_path / "turned.mp4")
    with av.open(str(path)) as container:
        raw = next(container.decode(video=0))
        expected = np.rot90(raw.to_ndarray(format="rgb24"), raw.rotation // 90)
        assert raw.rotation in ({0} if matrix == (1, 0, 0, 1) else {90, -90, 180, -180})
    with Video(path) as video:
        assert np.array_equal(next(video).pixels, expected)


def test_mirrored_frames_and_other_angles() -> None:
    pixels = picture(0)
    one = 1 << 16
    for (a, b, c, d), expected in {
        (-1, 0, 0, 1): pixels[:, ::-1],
        (1, 0, 0, -1): pixels[::-1],
        (0, 1, 1, 0): pixels.transpose(1, 0, 2),
    }.items():
        matrix = np.array([a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30], np.int32)
        assert np.array_equal(turned(pixels, matrix, "v"), expected)
    with pytest.raises(DovitError, match="no right angle"):
        turned(pixels, np.array([one, one, 0, -one, one, 0, 0, 0, 1 << 30], np.int32), "v")


def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all " * 99)
    for name, part in {
        "empty.mp4": "empty",
        "text.mp4": "cannot be opened",
        "none.mp4": "no such video",
        ".": "folder",
    }.items():
        with pytest.raises(DovitError, match=part):
            Video(tmp_path / name)
    with pytest.raises(DovitError, match=r"cannot be opened .*; check the address"):
        Video("tcp://user:secret@127.0.0.1:1/stream")


def test_passwords_are_not_shown() -> None:
    assert without_secrets("rtsp://me:secret@camera:554/live?key=secret") == "rtsp://camera:554/live"
    assert without_secrets("a:b@c.mp4") == "a:b@c.mp4"


def test_a_stream_from_an_address(tmp_path: Path) -> None:
    content = make_video(tmp_path / "a.ts", "libx264").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(content)

        thread = threading.Thread(target=serve)
        thread.start()
        with Video(f"tcp://127.0.0.1:{server.getsockname()[1]}") as video:
            frames = list(video)
        thread.join()
    assert len(frames) == FRAMES and close_to(frames[-1].pixels, picture(FRAMES - 1))


def test_a_session_streams_over_frames(session: Session, drive: Path) -> None:
    with Video(drive) as video:
        labels = [result.labels for result in session.stream(frame.pixels for frame in video)]
    with Video(drive) as video:
        assert all(np.array_equal(session(f.pixels).labels, found) for f, found in zip(video, labels, strict=True))


# --- writing ---


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_videos_are_lossless(tmp_path: Path, dtype: type) -> None:
    random = np.random.default_rng(0)
    labels = [random.integers(0, np.iinfo(dtype).max, (37, 51), dtype, endpoint=True) for _ in range(5)]
    writer = VideoWriter(
        tmp_path / "a.part", lossless=True, time_base=Fraction(1, 1000), rate=Fraction(25), source="drive.mp4"
    )
    for number, one in enumerate(labels):
        writer.write(one, TIMES[number])
    with pytest.raises(DovitError, match="change their size from 37×51 to 36×51"):
        writer.write(labels[0][1:], 999)
    writer.close()
    assert all(np.array_equal(a, b) for a, b in zip(read_labels(tmp_path / "a.part"), labels, strict=True))
    with av.open(str(tmp_path / "a.part")) as container:
        assert [round(1000 * frame.time) for frame in container.decode(video=0)] == TIMES[:5]
    assert source_of(tmp_path / "a.part") == "drive.mp4"
    assert source_of(tmp_path / "none") is None


def test_pictures_of_odd_sizes_are_written(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", lossless=False, time_base=Fraction(1, 25), rate=Fraction(25), source="")
    for number in range(3):
        writer.write(picture(number, 63, 95), number)
    writer.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 3 and close_to(frames[1][:63, :95], picture(1, 63, 95))


# --- the pipeline ---


def staged(stage: float, ahead: int, count: int = 10, broken: int = -1) -> tuple[list[int], list[int], Seconds]:
    """A pipeline whose stages only wait."""
    written: list[int] = []
    seconds = Seconds()

    def frames() -> Iterator[Frame]:
        for number in range(count):
            time.sleep(stage)
            if number == broken:
                raise DovitError("broken")
            yield Frame(np.full((1, 1, 3), number, np.uint8), number, number / 25)

    def segment(pixels: Iterator[np.ndarray]) -> Iterator[Result]:
        for one in pixels:
            time.sleep(stage)
            yield Result(one[..., 0], (), 1, np.zeros((0, 1, 1), bool), np.zeros((0, 1, 1), np.float32))

    def write(number: int, frame: Frame, result: Result) -> None:
        time.sleep(stage)
        assert frame.pts == number == result.labels[0, 0]
        written.append(number)

    try:
        seen = [number for number, _, _ in run_pipeline(frames(), segment, write, seconds, ahead)]
    except DovitError:
        seen = []
    return seen, written, seconds


def test_stages_overlap_and_keep_their_order() -> None:
    start = time.perf_counter()
    seen, written, seconds = staged(0.03, 4)
    together = time.perf_counter() - start
    assert seen == written == list(range(10))
    assert together < 0.75 * (seconds.decoding + seconds.inference + seconds.encoding)
    start = time.perf_counter()
    assert staged(0.03, 0)[1] == list(range(10))
    assert time.perf_counter() - start > 0.9  # three stages of 10 × 0.03 s, one after the other


def test_what_fails_in_the_last_frames_is_raised_when_the_rest_is_not_wanted() -> None:
    def fail(*_: object) -> None:
        time.sleep(0.02)
        raise OSError(errno.ENOSPC, "No space left on device")

    frames = (Frame(np.zeros((1, 1, 3), np.uint8), number, number / 25) for number in range(10))
    results = (Result(np.zeros((1, 1)), (), 1, np.zeros((0, 1, 1)), np.zeros((0, 1, 1))) for _ in range(10))
    steps = run_pipeline(frames, lambda pixels: (next(results) for _ in pixels), fail, Seconds())
    with pytest.raises(OSError, match="No space left"), closing(steps):  # type: ignore[type-var]
        next(steps)


def test_what_came_before_a_failure_is_written() -> None:
    assert staged(0.0, 4, broken=6)[1] == list(range(6))


# --- the command ---


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
