from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from bundles import make_bundle
from models import random_images, randomised, small_config
from PIL import Image

from dovit.evaluation.cli import calibrate
from dovit.evaluation.cli.options import sample_evenly
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.errors import DovitError, OutputError
from dovit.runtime.loading import load

Outcome = tuple[int, str, str]  # exit status, stdout, stderr
Calibrate = Callable[..., Outcome]
CONFIG = small_config(image_size=(96, 128))  # 48 tokens


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(randomised(CONFIG), folder)
    return folder


@pytest.fixture
def dovit_calibrate(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Calibrate:
    """In a folder with `engines/` and six pictures in `photos/`."""
    shutil.copytree(exported, tmp_path / "engines")
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(random_images(CONFIG, 6).numpy()):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DOVIT_DEBUG", raising=False)
    monkeypatch.setattr(calibrate, "load", partial(load, threads=1))

    def call(*arguments: str, images: tuple[str, ...] = ("photos",)) -> Outcome:
        flags = ["--engine", "engines", *(["--images", *images] if images else [])]
        monkeypatch.setattr(sys, "argv", ["dovit-calibrate", *flags, *arguments])
        with pytest.raises(SystemExit) as end:
            calibrate.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


def test_the_bundle_gets_what_is_reported(dovit_calibrate: Calibrate) -> None:
    before = open_bundle("engines").manifest
    status, out, err = dovit_calibrate("--keep", "50%,0.25", "--points", "4", "--buckets", "5", "--out", "curve.json")
    assert status == 0 and "the dense model: 6 images" in err.splitlines()  # no terminal: a line a stage
    written = json.loads(Path("curve.json").read_text())
    after = open_bundle("engines").manifest
    assert list(after.thresholds) == written["after"]["thresholds"] != list(before.thresholds)
    assert list(after.capacities) == written["capacities"]["after"] and len(after.capacities) <= 5
    assert written["after"]["kept_share"] == pytest.approx([0.5, 0.25], abs=0.005)
    assert written["target"] == {"keep": [0.5, 0.25]} and written["written"] and written["images"] == 6
    assert ", ".join(map(str, after.capacities)) in out and "written into engines" in out
    assert "tokens filled up by a decision on average" in out and "changed" in out


def test_a_dry_run_changes_nothing_and_json_is_one_object(dovit_calibrate: Calibrate) -> None:
    before = Path("engines/bundle.json").read_bytes()
    status, out, _ = dovit_calibrate("--macs", "0.8", "--macs-count", "true", "--points", "4", "--dry-run", "--json")
    assert status == 0 and Path("engines/bundle.json").read_bytes() == before
    result = json.loads(out)
    assert not result["written"] and result["target"] == {"macs": 0.8, "macs_count": "true"}
    assert result["before"]["thresholds"] == [0.5, 0.5]
    assert result["after"]["macs_ratio_true"] == pytest.approx(0.8, abs=0.03)  # 6 × 48 tokens: cost goes in steps
    assert {"thresholds", "kept", "macs_ratio_paper", "macs_ratio_true", "disagreement"} <= set(result["curve"][0])


def test_disagreement_in_per_cent_files_globs_and_a_limit(dovit_calibrate: Calibrate) -> None:
    status, out, _ = dovit_calibrate(
        "--max-disagreement",
        "2%",
        "--per-decision",
        "--points",
        "3",
        "--limit",
        "2",
        "--json",
        images=("photos/0.png", "photos/[1-3].png", "photos"),
    )
    result = json.loads(out)
    assert status == 0 and result["images"] == 2 and result["after"]["disagreement"] <= 0.02
    assert result["target"]["max_disagreement"] == 0.02
    assert load("engines").manifest.thresholds == tuple(result["after"]["thresholds"])


def test_a_limit_is_spread_over_the_list() -> None:
    files = [Path(str(k)) for k in range(10)]
    assert sample_evenly(files, 3) == [Path("0"), Path("3"), Path("6")]
    assert sample_evenly(files, None) == sample_evenly(files, 99) == files


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "exactly one target"),
        (("--keep", "0.5,0.2", "--macs", "0.5"), "exactly one target"),
        (("--keep", "0.2,0.5"), "a stopped token never returns"),
        (("--keep", "half"), "--keep half: not shares; give them as 0.5,0.35,0.25 or 50%,35%,25%"),
        (("--macs", "1.2"), "between 0 and 1"),
        (("--max-disagreement", "5"), "as 0.005 or 0.5%"),
        (("--max-disagreement", "x%"), "not a share"),
        (("--max-disagreement", "0.5"), "50 % of the pixels; write 0.5% for 0.5 %, or 50%"),
        (("--macs", "0.5", "--macs-count", "flops"), "--macs-count"),
        (
            ("--keep", "0.5,0.2", "--macs-count", "true"),
            "--macs-count: --keep counts tokens, and no MACs: leave it out",
        ),
        (("--macs", "0.5", "--buckets", "1"), "--buckets 1: give at least 2"),
        (("--macs", "0.5", "--round-to", "0"), "--round-to 0"),
        (("--macs", "0.5", "--limit", "0"), "--limit"),
        (("--macs", "0.5", "--out", "photos"), "a folder; name a file"),
        (
            ("--macs", "0.5", "--out", "engines/bundle.json"),
            "would take the place of what --engine reads: name another",
        ),
        (("--macs", "0.5", "--limit", "1", "--out", "photos/3.png"), "would take the place of what --images reads"),
    ],
)
def test_wrong_usage_is_one_sentence(dovit_calibrate: Calibrate, arguments: tuple[str, ...], sentence: str) -> None:
    before = Path("engines/bundle.json").read_bytes()
    status, out, err = dovit_calibrate(*arguments)
    assert status == 2 and out == "" and sentence in err and err.count("\n") == 1
    assert Path("engines/bundle.json").read_bytes() == before


def test_images_that_are_not_there_or_broken(dovit_calibrate: Calibrate) -> None:
    status, _, err = dovit_calibrate("--macs", "0.5", images=())
    assert status == 2 and "--images" in err
    os.mkdir("empty")
    status, _, err = dovit_calibrate("--macs", "0.5", images=("empty",))
    assert status == 2 and "no images in this folder" in err
    Path("photos/3.png").write_bytes(Path("photos/3.png").read_bytes()[:300])
    status, _, err = dovit_calibrate("--macs", "0.5")
    assert status == 1 and "photos/3.png: the image is damaged" in err.splitlines()[-1]
    status, _, err = dovit_calibrate("--macs", "0.5", "--mode", "slide", images=("photos/0.png", "gone.png"))
    assert status == 1 and "gone.png: no such image" in err


def test_an_image_that_the_session_refuses_is_named(dovit_calibrate: Calibrate) -> None:
    Image.new("RGB", (1, 60000)).save("thin.png")
    status, _, err = dovit_calibrate("--macs", "0.5", "--mode", "slide", images=("thin.png",))
    assert status == 2 and "\ndovit-calibrate: error: thin.png: " in err and "too narrow" in err


def test_numbers_are_shown_even_where_they_cannot_be_written(
    dovit_calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DovitError(
            "engines/bundle.json: the disk is full; free some space and try again (nothing of it was written)"
        )

    monkeypatch.setattr(calibrate, "write_calibration", full)
    status, out, err = dovit_calibrate("--keep", "0.5,0.2", "--points", "0")
    assert status == 1 and "ξ before" in out and "engines is left as it is" in out and "the disk is full" in err


def test_numbers_are_shown_even_where_their_own_file_cannot_be_written(
    dovit_calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that the bundle has them already, which the command must not be given again for."""

    @contextmanager
    def full(path: Path) -> Iterator[Path]:
        raise OutputError(f"{path}: the disk is full; free some space and try again (nothing of it was written)")
        yield

    monkeypatch.setattr(calibrate, "atomic_write", full)
    status, out, err = dovit_calibrate("--keep", "0.5,0.2", "--points", "0", "--out", "curve.json")
    assert status == 1 and "ξ before" in out and "written into engines" in out
    assert "curve.json: the disk is full" in err and "; the calibration itself is written into engines" in err
    status, out, err = dovit_calibrate(
        "--keep", "0.4,0.2", "--points", "0", "--out", "curve.json", "--dry-run", "--json"
    )
    assert status == 1 and json.loads(out)["after"]["kept_share"] == pytest.approx([0.4, 0.2], abs=0.02)
    assert "the disk is full" in err and "the calibration itself" not in err
    monkeypatch.setattr(calibrate, "write_calibration", lambda *_: raise_error(DovitError("engines: was changed")))
    status, out, err = dovit_calibrate("--keep", "0.5,0.2", "--points", "0", "--out", "curve.json")
    assert (
        status == 1
        and "engines is left as it is" in out
        and "engines: was changed; curve.json: the disk is full" in err
    )


def raise_error(error: DovitError) -> None:
    raise error


def test_a_bundle_in_a_folder_whose_name_is_no_text(dovit_calibrate: Calibrate) -> None:
    name = os.fsdecode(b"engines-\xff")
    Path("engines").rename(name)
    given = ["--engine", name, "--keep", "0.5,0.2", "--points", "0", "--out", "curve.json"]
    status, out, err = dovit_calibrate(*given, "--json")
    assert status == 0, err
    assert json.loads(out)["engine"] == json.loads(Path("curve.json").read_text())["engine"] == name


def test_places_that_cannot_be_written_are_found_before_the_work(
    dovit_calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = dovit_calibrate("--macs", "0.5", "--out", "missing/curve.json")
    assert status == 1 and "missing: no such folder" in err
    monkeypatch.setattr("os.access", lambda _, mode: not mode & os.W_OK)  # a superuser may write anywhere
    status, _, err = dovit_calibrate("--macs", "0.5")
    assert status == 1 and "engines: may not be written" in err


def test_no_torch_is_needed() -> None:
    code = (
        "import sys, dovit.evaluation.cli.calibrate; print(sorted({'torch', 'onnx', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
