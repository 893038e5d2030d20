"""A bundle in the real tritonserver, with requests over HTTP and gRPC, compared with `dovit.load`."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException

from dovit.benchmarks.triton_server import TritonServer, site_packages
from dovit.runtime.errors import DovitError
from dovit.runtime.result import Result
from dovit.runtime.session import Session
from dovit.serving.config import Serving
from dovit.serving.repository import add_model

OUTPUTS = ("labels", "kept", "keep_maps", "confidence_maps", "logits")
RUNS = "nv_inference_exec_count"
SIZES = [(96, 128), (50, 70), (1, 1), (131, 97), (200, 64)]


@pytest.fixture(scope="module")
def server(installed: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("triton")
    # 20 ms, so that requests of one size meet in a batch however slowly a busy machine's clients come
    serving = Serving(instances=1, queue_delay=20_000, parameters=(("threads", "1"),))
    add_model(bundle, folder / "models", "small", serving, site_packages=site_packages(installed))
    explicit = ("--model-control-mode=explicit", "--load-model=small")  # so that clients may load it anew
    active = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an active virtual environment
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", active)
        server = TritonServer(installed, folder / "models", folder / "log", *explicit)
        with server:
            yield server


@pytest.fixture(params=[tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def connect(server: TritonServer, protocol: ModuleType) -> Any:
    address = server.http if protocol is tritonclient.http else server.grpc
    return protocol.InferenceServerClient(address)


def tensor(protocol: ModuleType, name: str, values: np.ndarray) -> Any:
    kinds = {"uint8": "UINT8", "float32": "FP32", "object": "BYTES", "int32": "INT32"}
    made = protocol.InferInput(name, list(values.shape), kinds[values.dtype.name])
    made.set_data_from_numpy(values)
    return made


def ask(
    client: Any, protocol: ModuleType, outputs: tuple[str, ...] = ("labels", "kept"), **inputs: np.ndarray
) -> dict[str, np.ndarray]:
    tensors = [tensor(protocol, name, values) for name, values in inputs.items()]
    answer = client.infer("small", tensors, outputs=[protocol.InferRequestedOutput(name) for name in outputs])
    return {name: answer.as_numpy(name) for name in outputs}


def encoded(*files: bytes) -> np.ndarray:
    return np.array([[file] for file in files], object)


def random_image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *size]).integers(0, 256, (*size, 3), np.uint8)


def assert_same(got: dict[str, np.ndarray], number: int, want: Result) -> None:
    """Bit for bit, NaN included."""
    maps = want.windows != ()
    wanted = {
        "labels": want.labels,
        "kept": np.array(want.kept, np.int32),
        "keep_maps": want.keep_maps if maps else want.keep_maps[None],
        "confidence_maps": want.confidence_maps if maps else want.confidence_maps[None],
        "logits": want.logits,
    }
    for name, values in got.items():
        assert values.dtype == wanted[name].dtype, name
        np.testing.assert_array_equal(values[number], wanted[name], name)


def test_outputs_equal_the_session(server: TritonServer, session: Session, protocol: ModuleType) -> None:
    client = connect(server, protocol)
    for size in SIZES:
        image = random_image(size)
        assert_same(ask(client, protocol, OUTPUTS, image=image[None]), 0, session(image, return_logits=True))
    pair = np.stack([random_image((50, 70), 1), random_image((50, 70), 2)])
    got = ask(client, protocol, OUTPUTS, image=pair)
    for number, image in enumerate(pair):
        assert_same(got, number, session(image, return_logits=True))


def test_encoded_images_thresholds_and_modes(server: TritonServer, session: Session, protocol: ModuleType) -> None:
    client, image = connect(server, protocol), random_image((131, 200))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90°
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", exif=turned)
    want = session(Image.open(io.BytesIO(file.getvalue())), return_logits=True)
    assert want.labels.shape == (200, 131)
    assert_same(ask(client, protocol, OUTPUTS, encoded=encoded(file.getvalue())), 0, want)
    for threshold in ([0.0], [0.5, 0.9]):
        got = ask(client, protocol, image=image[None], threshold=np.array([threshold], np.float32))
        assert_same(got, 0, session(image, threshold=[float(np.float32(value)) for value in threshold]))
    got = ask(client, protocol, OUTPUTS, image=image[None], mode=encoded(b"slide"))
    want = session(image, mode="slide", return_logits=True)
    assert len(want.windows) > 1
    assert_same(got, 0, want)


PIXELS = random_image((50, 70))[None]
REFUSED: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "both": ({"image": PIXELS, "encoded": encoded(b"x")}, "this one both"),
    "neither": ({"mode": encoded(b"whole")}, "this one none"),
    "no image file": ({"encoded": encoded(b"nonsense")}, "not an image that Pillow can read"),
    "no bytes": ({"encoded": encoded(b"")}, "holds no bytes"),
    "no pixels": ({"image": PIXELS[:, :0]}, "with some pixels"),
    "floats": ({"image": PIXELS.astype(np.float32)}, "expects 'UINT8'"),
    "channels": ({"image": PIXELS[..., :2].copy()}, "unexpected shape for input 'image'"),
    "no batch": ({"image": PIXELS[0]}, "batch-size must be <= 8"),  # 50 images, as Triton sees it
    "large batch": ({"image": np.repeat(PIXELS, 9, axis=0)}, "batch-size must be <= 8"),
    "too many thresholds": (
        {"image": PIXELS, "threshold": np.zeros((1, 7), np.float32)},
        "7 thresholds for 2 decisions",
    ),
    "threshold": ({"image": PIXELS, "threshold": np.array([[np.nan]], np.float32)}, "threshold nan lies outside"),
    "unequal thresholds": (
        {"image": PIXELS.repeat(2, axis=0), "threshold": np.array([[0.5], [0.6]], np.float32)},
        "one value for all images of a request",
    ),
    "mode": ({"image": PIXELS, "mode": encoded(b"slid")}, "unknown mode 'slid': choose whole or slide"),
    "input": ({"image": PIXELS, "picture": PIXELS}, "picture"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_requests_get_a_sentence(server: TritonServer, session: Session, protocol: ModuleType, case: str) -> None:
    client = connect(server, protocol)
    inputs, sentence = REFUSED[case]
    with pytest.raises(InferenceServerException, match=re.escape(sentence)) as refused:
        ask(client, protocol, **inputs)
    assert "Traceback" not in str(refused.value)
    assert_same(ask(client, protocol, image=PIXELS), 0, session(PIXELS[0]))


def test_sizes_that_differ_in_one_request_are_refused(server: TritonServer) -> None:
    files = []
    for size in ((20, 30), (30, 20)):
        file = io.BytesIO()
        Image.fromarray(random_image(size)).save(file, "PNG")
        files.append(file.getvalue())
    client = connect(server, tritonclient.http)
    with pytest.raises(InferenceServerException, match="images of 20×30, 30×20 pixels"):
        ask(client, tritonclient.http, encoded=encoded(*files))


def test_64_clients_at_once(server: TritonServer, session: Session) -> None:
    """Each gets the labels of its own image; one in eight sends what is no image; equal sizes were run in batches."""
    images = [random_image(SIZES[number // 13], number) for number in range(64)]  # Triton joins neighbours of one size
    wanted = session.batch(images)
    before = server.counters(RUNS)[RUNS]

    def one(number: int) -> None:
        protocol = tritonclient.http if number % 2 else tritonclient.grpc
        client = connect(server, protocol)
        if number % 8 == 0:
            with pytest.raises(InferenceServerException, match="not an image"):
                ask(client, protocol, encoded=encoded(b"nonsense"))
        assert_same(ask(client, protocol, image=images[number][None]), 0, wanted[number])

    with ThreadPoolExecutor(64) as clients:
        list(clients.map(one, range(64)))
    # 72 requests. Without batches as many runs, all but the last few of them counted by now
    assert server.counters(RUNS)[RUNS] - before < 64


def test_the_server_outlives_a_killed_instance(server: TritonServer, session: Session) -> None:
    """Triton does not start the process again by itself: requests get an error until the model is loaded anew."""
    client = connect(server, tritonclient.http)
    (stub,) = server.stubs()
    os.kill(stub, signal.SIGKILL)
    with pytest.raises(InferenceServerException, match="is not healthy"):
        ask(client, tritonclient.http, image=PIXELS)
    assert client.is_server_live()
    client.unload_model("small")
    end = time.monotonic() + 60
    while client.is_model_ready("small"):
        assert time.monotonic() < end
        time.sleep(0.1)
    client.load_model("small")
    assert_same(ask(client, tritonclient.http, image=PIXELS), 0, session(PIXELS[0]))
    assert server.process.poll() is None


def test_a_server_that_cannot_take_arrays_of_numpy_2_says_so(installed: Path, bundle: Path, tmp_path: Path) -> None:
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("this Python has NumPy 1")
    add_model(bundle, tmp_path / "models", "small", Serving(), site_packages=site_packages(installed)[1:])
    with (
        pytest.raises(DovitError, match="tritonserver ended"),
        TritonServer(installed, tmp_path / "models", tmp_path / "log"),
    ):
        pass
    log = (tmp_path / "log").read_text()
    assert "cannot take arrays of NumPy 2" in log and f"(from {Path(np.__file__).parent})" in log


def test_a_server_without_dovit_says_so(installed: Path, bundle: Path, tmp_path: Path) -> None:
    add_model(bundle, tmp_path / "models", "small", Serving())
    with (
        pytest.raises(DovitError, match="tritonserver ended"),
        TritonServer(installed, tmp_path / "models", tmp_path / "log"),
    ):
        pass
    assert "has no module dovit: install dovit there" in (tmp_path / "log").read_text()
