"""The page of dovit-demo: its numbers, its links, and the page itself in a browser: keyboard, upload, phone, dark mode."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from browser import Tab, needs_browser
from installed import require
from models import random_images, randomised, small_config, spreading_thresholds
from PIL import Image

from dovit.demo import cli
from dovit.demo.page import build_page, check_address, launch
from dovit.demo.view import MAX_IMAGES, Images, Viewer, from_query, to_query
from dovit.evaluation.cost import Cost
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.session import Session

FILES = TemporaryDirectory(prefix="dovit-tests-")  # not the folder that all users of the machine share
os.environ["GRADIO_TEMP_DIR"] = FILES.name  # read when Gradio is imported
require("gradio")
LINK = "document.querySelector('#link textarea, #link input')?.value"


@pytest.fixture(scope="module")
def thresholds() -> tuple[float, ...]:
    model = randomised(small_config())
    return spreading_thresholds(model, random_images(model.config, batch=4))


@pytest.fixture(scope="module")
def viewer(session: Session) -> Viewer:
    random = np.random.default_rng(0)
    return Viewer(
        session, Images([random.integers(0, 256, (*session.manifest.image_size, 3), np.uint8) for _ in range(3)])
    )


def test_numbers_and_pictures_are_the_sessions(viewer: Viewer, session: Session, thresholds: tuple[float, ...]) -> None:
    image = viewer.images.examples[1]
    result, view = session(image, threshold=thresholds), viewer.view("example-1", thresholds)
    assert 0 < result.kept[0] < result.tokens
    assert [count for _, count in view.tokens] == [result.tokens, *result.kept]
    paper, _ = Cost.of_bundle(session.manifest).of(result.kept)
    assert 1e9 * sum(value for _, value in view.macs) == pytest.approx(paper)
    assert f"{paper / session.manifest.dense_macs[0]:.1%} of the dense model" in view.summary
    assert np.array_equal(np.asarray(view.labels), np.asarray(session.palette, np.uint8)[result.labels])
    assert len(view.keep_maps) == len(view.confidence_maps) == len(session.manifest.decisions)
    white = (np.asarray(view.keep_maps[0]) == 255).all(axis=2).mean()
    assert white == pytest.approx(1 - result.kept[0] / result.tokens, abs=0.01)


def test_slide_counts_all_windows(session: Session, thresholds: tuple[float, ...]) -> None:
    height, width = session.manifest.image_size
    image = np.random.default_rng(1).integers(0, 256, (height, 2 * width, 3), np.uint8)
    view = Viewer(session, Images([image]), "slide").view("example-0", thresholds)
    result = session(image, threshold=thresholds, mode="slide")
    assert len(result.windows) > 1
    assert [count for _, count in view.tokens] == [result.tokens, *result.kept]
    assert view.dense_tokens == result.tokens


def test_links_hold_the_state(viewer: Viewer, thresholds: tuple[float, ...]) -> None:
    key = viewer.images.add(np.zeros((5, 6, 3), np.uint8))
    query = dict(part.split("=") for part in to_query(key, thresholds).split("&"))
    assert from_query(query, viewer) == (key, pytest.approx(thresholds, rel=1e-5))
    assert from_query({}, viewer) == ("example-0", viewer.session.manifest.thresholds)
    for wrong in ({"xi": "2,0"}, {"xi": "a"}, {"xi": "0.5,0.5,0.5,0.5"}, {"image": "example-9"}, {"image": "../x"}):
        with pytest.raises(UsageError, match=r"give 2 numbers|drop it again"):
            from_query(wrong, viewer)
    for number in range(MAX_IMAGES):
        viewer.images.add(np.full((2, 2, 3), number, np.uint8))
    with pytest.raises(UsageError, match="drop it again"):
        viewer.images.get(key)


def test_names_of_classes_are_text(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "class_names", tuple(f"<script>{n}" for n in range(session.manifest.classes)))
    legend = Viewer(session, Images([np.zeros((8, 8, 3), np.uint8)])).view("example-0", (1.0, 1.0)).legend
    assert "&lt;script&gt;" in legend and "<script>" not in legend


# as Gradio's server ends where it gets no port
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_missing_or_existing_files_are_named(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:  # Gradio looks at 127.0.0.1 alone before it starts a server
        port = server.getsockname()[1]
        with pytest.raises(DovitError, match="give another --port"):
            launch(build_page(viewer, "test"), "127.0.0.2", port)
        with pytest.raises(DovitError, match=f"127.0.0.2:{port} cannot be served at .*: give another --port"):
            check_address("127.0.0.2", port)
    assert capfd.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("sys.argv", ["dovit-demo", "--engine", "e"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2 and "pip install 'dovit[demo]'" in capfd.readouterr().err


# 192.0.2.0/24 is nobody's
@pytest.mark.parametrize("host", ["nonsense.invalid", "192.0.2.1", "", "127.0.0.1:80", "a" * 80])
def test_what_is_no_address_of_this_machine_is_said_at_once(
    host: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["dovit-demo", "--engine", "no folder", "--host", host])
    with pytest.raises(SystemExit) as end:
        cli.main()
    lines = capfd.readouterr().err.splitlines()
    assert end.value.code == 2 and len(lines) == 1, lines
    assert lines[0].startswith(f"dovit-demo: error: --host {host}: not an address of this machine (")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "127.0.0.9"])
def test_addresses_of_this_machine(host: str) -> None:
    check_address(host, None)


@contextmanager
def demo_of(bundle: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running demo and its address."""
    code = "from dovit.demo.cli import main; main()"
    inherited = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    with subprocess.Popen(
        [sys.executable, "-c", code, "--engine", str(bundle)],
        env=inherited | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as demo:  # fmt: skip
        assert demo.stdout is not None
        try:
            address = demo.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            yield demo, address
        finally:
            demo.kill()


def ended(demo: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    demo.send_signal(number)
    _, errors = demo.communicate(timeout=60)
    return demo.returncode, errors


def upload(address: str) -> None:
    lines = [
        "--part",
        'Content-Disposition: form-data; name="files"; filename="mine.png"',
        "",
        "a picture",
        "--part--",
        "",
    ]
    request = urllib.request.Request(f"{address}gradio_api/upload", "\r\n".join(lines).encode())
    request.add_header("Content-Type", "multipart/form-data; boundary=part")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).close()


def test_ctrl_c_ends_it_without_an_error_and_nothing_stays(bundle: Path, tmp_path: Path) -> None:
    with demo_of(bundle, TMPDIR=str(tmp_path)) as (demo, address):
        upload(address)
        (folder,) = tmp_path.iterdir()  # of this demo alone, and only its owner may look into it
        assert folder.name.startswith("dovit-demo-") and folder.stat().st_mode & 0o077 == 0
        assert list(folder.rglob("mine.png")) and (folder / "vibe_edit_history").is_dir()
        assert ended(demo, signal.SIGINT) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_files_stay_in_a_folder_of_the_users(bundle: Path, tmp_path: Path) -> None:
    with demo_of(bundle, GRADIO_TEMP_DIR=str(tmp_path / "mine")) as (demo, address):
        upload(address)
        assert ended(demo, signal.SIGTERM) == (0, "")
    assert list((tmp_path / "mine").rglob("mine.png"))


@pytest.fixture(scope="module")
def address(viewer: Viewer) -> Iterator[str]:
    page = build_page(viewer, "a *bundle*")
    yield launch(page, "127.0.0.1", None)
    page.close()


def state(link: str) -> tuple[str, list[float]]:
    query = dict(part.split("=") for part in link.partition("?")[2].split("&"))
    return query["image"], [float(part) for part in query["xi"].split(",")]


@needs_browser
def test_a_link_restores_the_state_and_the_keyboard_changes_it(address: str, tmp_path: Path) -> None:
    with Tab(tmp_path / "profile") as tab:
        link = f"{address}?image=example-1&xi=0.5,0.25"
        tab.call("Page.navigate", url=link)
        assert state(tab.wait_for(LINK)) == ("example-1", [0.5, 0.25])
        assert "dense model's MACs" in tab.value("document.querySelector('#summary').innerText")
        pictures = tab.wait_for(
            "(n => n >= 6 && n)([...document.querySelectorAll('img')].filter(i => i.naturalWidth > 1).length)"
        )
        assert pictures >= 6  # input, overlay, labels, two keep maps and two confidence maps, some as examples
        tab.value("document.querySelector('#xi2 input[type=range]').focus()")
        for _ in range(3):
            tab.press("ArrowRight")
        assert tab.wait_for(f"{LINK}.includes('0.253') && location.href.includes('0.253')")
        tab.value("document.querySelectorAll('#examples button')[2].focus()")
        tab.press("Enter")
        assert state(tab.wait_for(f"{LINK}.includes('example-2') && {LINK}")) == ("example-2", [0.5, 0.253])


@needs_browser
def test_an_uploaded_image_on_a_phone_in_dark_mode(address: str, viewer: Viewer, tmp_path: Path) -> None:
    random = np.random.default_rng(5).integers(0, 256, (50, 60, 3), np.uint8)
    Image.fromarray(random).save(tmp_path / "upload.png")
    with Tab(tmp_path / "profile", width=390, height=844, dark=True) as tab:
        tab.call("Page.navigate", url=address)
        tab.wait_for(LINK)
        assert tab.value("document.documentElement.scrollWidth") <= 390
        background: str = tab.value("getComputedStyle(document.body).backgroundColor")
        assert max(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")[:3]) < 60
        tab.value("document.querySelector('#input button[aria-label*=emove], #input button[aria-label*=lear]').click()")
        tab.wait_for("document.querySelector('#input input[type=file]') !== null")
        root: dict[str, Any] = tab.call("DOM.getDocument")["root"]
        found = tab.call("DOM.querySelector", nodeId=root["nodeId"], selector="#input input[type=file]")
        tab.call("DOM.setFileInputFiles", nodeId=found["nodeId"], files=[str(tmp_path / "upload.png")])
        key, _ = state(tab.wait_for(f"!{LINK}.includes('example') && {LINK}"))
        assert np.array_equal(viewer.images.get(key), random)
