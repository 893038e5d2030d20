"""dovit-run --profile: figures of a pass on the stand-in for a GPU, as a table and as JSON; a sentence without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from models import random_images, randomised, small_config
from PIL import Image
from torch_chains import torch_chain

from dovit.runtime.chain import Chain
from dovit.runtime.cli import run
from dovit.runtime.gpu import profile as profiling
from dovit.runtime.session import Session

CAPACITIES = (0, 5, 11, 17, 24)


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image of twice the model's size, and a session on the stand-in behind the command, for two images at a time."""
    monkeypatch.setattr(profiling, "HEAD_START_BYTES", 256)
    monkeypatch.chdir(tmp_path)
    model = randomised(small_config())
    pixels = random_images(model.config).numpy()[0].repeat(2, axis=0).repeat(2, axis=1)
    Image.fromarray(pixels).save(tmp_path / "street.png")
    chain = torch_chain(model, CAPACITIES, batch=2)
    session = Session(chain.manifest, chain, "tensorrt-rtx", "bucketed")
    monkeypatch.setattr(run, "load", lambda path, backend, **options: session)
    return Path("street.png")


def dovit_run(
    *arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["dovit-run", "--engine", "engines", *arguments])
    with pytest.raises(SystemExit) as ended:
        run.main()
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def test_a_table(picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    status, out, _ = dovit_run(str(picture), "--profile", "--threshold", "1,1", monkeypatch=monkeypatch, capsys=capsys)
    assert status == 0 and not Path("dovit-out").exists()
    for word in (
        "copy in",
        "stem",
        "decide1",
        "gather2",
        "sequence",
        "copy out",
        "TFLOP/s",
        "of a",
        "a copy within the GPU",
        "graph mode",
        "batch 2",
    ):
        assert word in out


def test_json(picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = (str(picture), "--profile", "--json", "--schedule", "exact", "--threshold", "1,1")
    status, out, _ = dovit_run(*given, monkeypatch=monkeypatch, capsys=capsys)
    [row] = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and row["kept"] == [24, 24] and row["batch"] == 2 and row["schedule"] == "exact"
    assert row["launch_us"] is None and {step["name"] for step in row["steps"]} == {
        "stem",
        "block2",
        "block3",
        "decoder",
    }


def test_without_a_gpu(picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = run.load("engines", "auto")
    session = Session(gpu.manifest, Chain(gpu.manifest, []), "onnxruntime")
    monkeypatch.setattr(run, "load", lambda path, backend, **options: session)
    status, out, err = dovit_run(
        str(picture), "--profile", "--threshold", "1,1", monkeypatch=monkeypatch, capsys=capsys
    )
    assert (status, out) == (2, "") and "--profile times plans on a GPU" in err and "--backend tensorrt-rtx" in err


@pytest.mark.parametrize(("on_the_gpu", "size"), [(True, (128, 192)), (False, (64, 96))])
def test_the_image_is_resized(
    picture: Path,
    on_the_gpu: bool,
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """To the bundle's size, by the chain where it can, once for each image of the batch."""
    session = run.load("engines", "auto")
    seen: list[np.ndarray] = []
    profile = session.chain.profile  # type: ignore[attr-defined]
    monkeypatch.setattr(
        session.chain, "profile", lambda images, *a, **o: (seen.append(images), profile(images, *a, **o))[1]
    )
    monkeypatch.setattr(session.chain, "accepts_size", lambda given: on_the_gpu or given == (64, 96))
    _, out, _ = dovit_run(str(picture), "--profile", "--json", monkeypatch=monkeypatch, capsys=capsys)
    assert [images.shape for images in seen] == [(2, *size, 3)] and np.array_equal(seen[0][0], seen[0][1])
    assert [o["name"] for o in json.loads(out)["operations"]].count("resize") == 2 * on_the_gpu
