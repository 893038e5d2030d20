"""The provider openvino in C++: float32 equals Python's ONNX Runtime within 1e-4, bf16 is near it; refusals give the reason."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle
from c_binding import Failure
from c_binding import Session as CSession
from installed import require
from models import random_images, randomised, small_config
from native import ROOT, run
from PIL import Image

import dovit
from dovit.engines.scenes import street_scenes
from dovit.export.quantization.bundle import Calibration, quantize
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.bundle.write import write_bundle
from dovit.runtime.machine import int8_sums_saturate
from dovit.runtime.openvino import accuracy, device, records, speed
from dovit.runtime.openvino.speed import ProviderSpeed

openvino = require("openvino")
LIBRARY = next((Path(openvino.__file__).parent / "libs").glob("libopenvino_c.so*"))
HEADERS = Path(openvino.__file__).parent / "include"

pytestmark = pytest.mark.xdist_group("cpp")  # one worker builds the library, once

Load = Callable[..., CSession]


@pytest.fixture(scope="module")
def load(build: Callable[[str], Path], library_path: Path) -> Load:
    library = build("release") / "libdovit_runtime.so"

    def session(bundle: Path, **options: Any) -> CSession:
        options = {"provider": "openvino", "openvino": LIBRARY} | options
        onnxruntime = options.pop("onnxruntime", library_path)
        given = {
            name: str(value).encode() if isinstance(value, str | Path) else value for name, value in options.items()
        }
        return CSession(library, bundle, onnxruntime, **given)

    return session


@pytest.fixture(scope="module")
def int8(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model with its layers' products in int8."""
    trained, folder = open_bundle(bundle), tmp_path_factory.mktemp("int8")
    images = Calibration(street_scenes(trained.manifest, 4))
    write_bundle(folder, lambda stage: quantize(trained, "int8", images, stage, lambda _: None))
    return folder


def test_int8_is_pythons(int8: Path, load: Load) -> None:
    picture = np.asarray(Image.open(ROOT / "assets" / "street.png").convert("RGB"))
    made = {"cpu": load(int8, provider="cpu"), "openvino": load(int8, skip_accuracy_check=1)}
    assert made["openvino"].info() == ("openvino", "fp32")
    for provider, c_session in made.items():
        with dovit.load(int8, provider=provider, check_accuracy=False) as session:
            expected, result = session(picture, return_logits=True), c_session(picture)
            assert result.kept == expected.kept
            assert np.array_equal(result.labels, expected.labels)
            assert np.array_equal(result.logits, expected.logits)


@pytest.mark.skipif(not int8_sums_saturate(), reason="OpenVINO's int8 sums are exact on this CPU")
def test_openvino_is_not_taken_where_its_sums_saturate(int8: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failure, match="sums of int8 products saturate there: take the provider cpu") as failure:
        load(int8)
    assert failure.value.status == 2
    monkeypatch.delenv("DOVIT_PROVIDER")
    assert load(int8, provider="auto").info() == ("cpu", "fp32")


@pytest.mark.parametrize(
    ("decoder", "changes"),
    [
        ("setr-mla", {"head": "setr-k3"}),
        ("segmenter-mask", {}),
        ("segmenter-linear-taps", {"family": "rotary"}),
        ("eomt", {"family": "registers"}),
        ("segmenter-linear", {"head": "lens-cells"}),
        ("segmenter-linear", {"head": "neighbours"}),
    ],
    ids=str,
)
def test_float32_is_onnx_runtimes(decoder: str, changes: dict[str, Any], load: Load, tmp_path: Path) -> None:
    make_bundle(randomised(small_config(decoder, **changes)), tmp_path)
    made = load(tmp_path)
    assert made.info() == ("openvino", "fp32")
    picture = random_images(small_config(image_size=(128, 160)))[0].numpy()
    settings: list[dict[str, Any]] = [
        {},
        {"schedule": "bucketed"},
        {"schedule": "rounded"},
        {"mode": "slide"},
        {"counts": [13, 5]},
        {"threshold": [0.0]},
    ]
    with dovit.load(tmp_path, provider="cpu") as session:
        for setting in settings:
            expected, result = session(picture, return_logits=True, **setting), made(picture, **setting)
            assert result.kept == expected.kept
            assert np.array_equal(result.keep_maps, expected.keep_maps.reshape(result.keep_maps.shape))
            confidences = expected.confidence_maps.reshape(result.confidence_maps.shape)
            np.testing.assert_allclose(result.confidence_maps, confidences, atol=1e-5)
            assert expected.logits is not None
            limit = 1e-4 * np.abs(expected.logits).max()
            np.testing.assert_allclose(result.logits, expected.logits, atol=limit, rtol=0)
            assert (result.labels == expected.labels).mean() > 0.999


def test_bf16_threads_and_cache_on_the_trained_model(load: Load, bundle: Path, tmp_path: Path) -> None:
    picture = np.ascontiguousarray(np.asarray(Image.open(ROOT / "assets" / "street.png").convert("RGB"))[:192, :384])
    float32 = load(bundle, threads=2)
    expected = float32(picture)
    with ThreadPoolExecutor(4) as pool:  # one session, four threads
        for result in pool.map(lambda _: float32(picture), range(8)):
            assert np.array_equal(result.labels, expected.labels) and result.kept == expected.kept
    try:
        session = load(bundle, precision="bf16", cache=tmp_path, skip_accuracy_check=1)
    except Failure as failure:
        assert "this CPU has no bf16 instructions" in str(failure) and failure.status == 2
        return
    assert session.info() == ("openvino", "bf16")
    by_default = session(picture, schedule="")
    assert by_default.kept == session(picture, schedule="rounded").kept != session(picture).kept
    assert all(count % 16 == 0 for count in by_default.kept)
    assert list(tmp_path.rglob("*.blob"))
    for made in (
        session(picture),
        load(bundle, precision="bf16", cache=tmp_path, skip_accuracy_check=1)(picture),
    ):  # compiled, and from the cache
        share = (made.labels == expected.labels).mean()
        assert share > 0.97  # the bound of Python's check
        first = np.abs(made.confidence_maps - expected.confidence_maps)[:, 0]  # later ones are of other sets of tokens
        assert 0 < first.max() < 0.1  # bf16 did run
        # a softmax's sums in float32: what bf16 rounds to would be equal numbers by the hundred
        values = made.confidence_maps[~np.isnan(made.confidence_maps)]
        assert np.unique(values.view(np.uint32) & 0xFFFF).size > 50


def test_what_cannot_be_used_is_refused(
    load: Load, bundle: Path, library_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOVIT_PROVIDER")
    for options, status, words in [
        ({"provider": "tpu"}, 2, "unknown provider 'tpu': choose one of auto, cpu, openvino"),
        ({"provider": "tpu", "backend": "tensorrt"}, 2, "unknown provider 'tpu': choose one of"),
        (
            {"provider": "cpu", "precision": "bf16"},
            2,
            "precision bf16 on a CPU needs the provider openvino, and cpu was chosen",
        ),
        ({"provider": "cpu", "cache": tmp_path}, 2, "cache is for the provider openvino"),
        ({"precision": "fp16"}, 2, "precision fp16 is for plans: on a CPU choose fp32 or bf16"),
        ({"precision": "int8"}, 2, "unknown precision 'int8': choose fp32 or bf16"),
        ({"openvino": "/nowhere.so"}, 1, "OpenVINO's library cannot be opened (/nowhere.so"),
        ({"provider": "auto", "openvino": "/nowhere.so"}, 1, "OpenVINO's library cannot be opened (/nowhere.so"),
        ({"openvino": library_path}, 1, "not OpenVINO's C library"),
        ({"low_memory": 1}, 1, "low_memory is for ONNX Runtime: leave it out"),
    ]:
        with pytest.raises(Failure) as failure:
            load(bundle, **options)
        assert failure.value.status == status and words in str(failure.value)
        assert "\n" not in str(failure.value)


def test_the_variable_says_what_auto_takes(load: Load, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is for `auto` alone, as in Python."""
    monkeypatch.setenv("DOVIT_PROVIDER", "cpu")
    assert load(bundle, provider="auto").info() == load(bundle, provider=None).info() == ("cpu", "fp32")
    assert load(bundle, provider="openvino").info() == ("openvino", "fp32")
    with pytest.raises(Failure, match=r"cpu was chosen \(DOVIT_PROVIDER is set\)"):
        load(bundle, provider="auto", precision="bf16")
    monkeypatch.setenv("DOVIT_PROVIDER", "tpu")
    with pytest.raises(Failure, match="DOVIT_PROVIDER=tpu: choose one of auto, cpu, openvino") as failure:
        load(bundle, provider="auto")
    assert failure.value.status == 2
    monkeypatch.setenv("DOVIT_PROVIDER", "openvino")
    assert load(bundle, provider="auto").info() == ("openvino", "fp32")
    with pytest.raises(Failure, match="low_memory is for ONNX Runtime"):
        load(bundle, provider="auto", low_memory=1)


def test_auto_takes_the_faster_by_pythons_record(
    load: Load, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a record small models run with ONNX Runtime; large ones need none. bf16 and a cache are OpenVINO's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DOVIT_PROVIDER")
    taken = functools.partial(load, bundle, provider="auto")
    assert taken(threads=2).info() == taken(low_memory=1).info() == ("cpu", "fp32")
    assert taken(cache=tmp_path / "compiled").info() == ("openvino", "fp32")
    with pytest.raises(Failure, match="ONNX Runtime's library cannot be opened"):
        load(bundle, provider="auto", onnxruntime="/nowhere.so")
    if device.computes_bf16():
        assert taken(precision="bf16", skip_accuracy_check=1).info() == ("openvino", "bf16")
    manifest = records.manifest_hash(open_bundle(bundle))
    file, same = speed.speed_file(manifest, 2), {"bundle": "b", "manifest": manifest, "threads": 2, "rounds": 3}
    assert file is not None
    file.parent.mkdir(parents=True)
    for ratio, provider in ((0.5, "openvino"), (1.0, "openvino"), (1.001, "cpu"), (2.0, "cpu")):
        found = ProviderSpeed(**same, onnxruntime_cpu_ms=1, openvino_cpu_ms=ratio, openvino_over_onnxruntime=ratio)
        file.write_text(found.model_dump_json())
        assert found.faster == provider
        assert taken(threads=2).info() == (provider, "fp32")
        assert taken(threads=1).info() == ("cpu", "fp32"), "another number of threads has no record"
    file.write_text("{}")
    assert taken(threads=2).info() == ("cpu", "fp32")


def test_auto_takes_openvino_for_large_models(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DOVIT_PROVIDER")
    make_bundle(randomised(small_config("setr-naive")), tmp_path)
    manifest = json.loads((tmp_path / "bundle.json").read_text())
    for macs, provider in ((speed.LARGE - 1, "cpu"), (speed.LARGE, "openvino")):
        (tmp_path / "bundle.json").write_text(json.dumps(manifest | {"dense_macs": [1, macs]}))
        assert load(tmp_path, provider="auto").info() == (provider, "fp32")


def test_bf16_needs_the_record_that_python_keeps(
    load: Load, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Refused until Python has loaded the bundle in bf16, then accepted; refused where the recorded difference is too large."""
    if not device.computes_bf16():
        pytest.skip("this CPU has no bf16 instructions")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Failure, match="bf16 has not been compared with float32 for this bundle on this CPU") as failure:
        load(bundle, precision="bf16")
    assert failure.value.status == 1 and "skip_accuracy_check" in str(failure.value)
    dovit.load(bundle, provider="openvino", precision="bf16").close()
    assert load(bundle, precision="bf16").info() == ("openvino", "bf16")
    [record] = (tmp_path / "dovit" / "openvino").iterdir()
    kept = json.loads(record.read_text())
    bounds = {"labels_equal": accuracy.MIN_LABELS_EQUAL, "same_fate": accuracy.MIN_SAME_FATE}
    for name, bound in (bounds | {"miou_loss": accuracy.MAX_MIOU_LOSS}).items():
        beyond = 1e-9 if name == "miou_loss" else -1e-9
        record.write_text(json.dumps(kept | {name: bound}))
        assert load(bundle, precision="bf16").info() == ("openvino", "bf16")
        record.write_text(json.dumps(kept | {name: bound + beyond}))
        with pytest.raises(Failure, match="bf16 is too far from float32 for this model"):
            load(bundle, precision="bf16")
        with pytest.raises(dovit.DovitError, match="bf16 is too far from float32 for this model"):
            dovit.load(bundle, provider="openvino", precision="bf16")
    record.write_text('{"labels_equal": 1}')
    with pytest.raises(Failure, match="has not been compared"):
        load(bundle, precision="bf16")


def test_a_file_that_is_another_steps_is_refused(load: Load, tmp_path: Path) -> None:
    """Its inputs and outputs are compared with the manifest before anything runs."""
    make_bundle(randomised(small_config("setr-naive")), tmp_path)
    manifest = json.loads((tmp_path / "bundle.json").read_text())
    first, second, *_ = manifest["steps"]
    first["openvino"], second["openvino"] = second["openvino"], first["openvino"]
    (tmp_path / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(Failure, match="export the bundle again"):
        load(tmp_path)


def test_the_declarations_are_openvinos() -> None:
    """runtime/cpp/openvino/api.h beside the headers in OpenVINO's wheel: every function, structure and constant."""
    if not (HEADERS / "openvino" / "c" / "openvino.h").exists():
        pytest.skip("this openvino wheel has no C headers")
    source = ROOT / "tests" / "cpp" / "openvino_headers.cpp"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{ROOT / 'runtime' / 'cpp'}"]
    run("g++", *flags, "-isystem", HEADERS, source)
    changed = source.read_text().replace("BF16 &&", "F16 &&")  # a wrong constant does not compile
    failed = subprocess.run(
        ["g++", *flags, "-isystem", HEADERS, "-x", "c++", "-"], input=changed, capture_output=True, text=True
    )
    assert failed.returncode != 0 and "static assertion failed" in failed.stderr
