"""What is read of a video (times, turned frames, damaged files, streams), and what is written."""

from __future__ import annotations

import re
import socket
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from installed import require
from videos import FRAMES, TIMES, close_to, make_video, picture, read_labels

from dovit.runtime.errors import DovitError
from dovit.runtime.session import Session
from dovit.runtime.video.read import Video, turned, without_secrets
from dovit.runtime.video.write import VideoWriter, source_of

av = require("av")


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
