"""Runs: they learn, go on exactly where they were killed, and change only what they should."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from installed import require
from models import random_images, randomised, small_config, spreading_thresholds
from street_runs import READ, street_config, trained, weights

from dovit.export.checkpoints import load_model, save_model
from dovit.export.model import DoViT
from dovit.runtime.errors import DovitError, UsageError
from dovit.training.objective import Objective
from dovit.training.parallel import Process
from dovit.training.run import StartingPoint, run
from dovit.training.settings import Settings


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "model.pth"
    save_model(randomised(street_config()), path)
    return path


# --- the objective ---


def test_objective_is_the_papers_sum() -> None:
    model, teacher = randomised(small_config(), 1).requires_grad_(), randomised(small_config(), 2)
    images, labels = random_images(model.config, batch=2), torch.randint(0, 7, (2, 64, 96))
    thresholds = spreading_thresholds(model, images)
    parts = Objective(model, thresholds, teacher, alpha=0.7, beta=0.4)(images, labels)
    expected = parts["segmentation"] + 0.7 * (parts["head1"] + parts["head2"]) + 0.4 * parts["distillation"]
    torch.testing.assert_close(parts["loss"], expected)
    assert parts["distillation"] > 0 and 0 < parts["kept"][1] < parts["kept"][0] < 24


def test_the_teacher_stops_no_token_and_learns_nothing() -> None:
    """At ξ = 1 the student is its own dense teacher: nothing to distil. The teacher's own ξ plays no part."""
    model = randomised(small_config(thresholds=(0.2, 0.2))).requires_grad_()
    teacher = randomised(small_config(thresholds=(0.2, 0.2)))
    objective = Objective(model, (1, 1), teacher, alpha=1, beta=1)
    parts = objective(random_images(model.config, batch=2), torch.randint(0, 7, (2, 64, 96)))
    assert parts["distillation"].item() == pytest.approx(0, abs=1e-6)
    parts["loss"].backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert {name.split(".")[0] for name in objective.state_dict()} == {"model"}


def test_images_with_no_token_left() -> None:
    model = randomised(small_config()).requires_grad_()
    parts = Objective(model, (0, 0), None, 1, 0.4)(random_images(model.config, 2), torch.randint(0, 7, (2, 64, 96)))
    parts["loss"].backward()
    assert parts["kept"].tolist() == [0, 0] and "head2" not in parts


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, suffix: str) -> None:
    model, path = randomised(small_config()), tmp_path / f"model.{suffix}"
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = 1e5
    with pytest.raises(DovitError, match="beyond those of float16"):
        save_model(model, path, half=True)
    save_model(model, path)
    before = path.read_bytes()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(DovitError, match="not finite"):
        save_model(model, path)
    assert path.read_bytes() == before


# --- runs ---


def test_a_run_learns(tmp_path: Path, checkpoint: Path) -> None:
    lines = trained(tmp_path, checkpoint, {"thresholds": (0.6,)}, steps=40, lr=0.003, clip=1.0, batch=4, label_stride=4)
    first, last = (sum(line["loss"] for line in part) / 5 for part in (lines[:5], lines[-5:]))
    assert last < 0.6 * first
    assert load_model(tmp_path / "model.safetensors").model.config.thresholds == (0.6, 0.6)
    names = load_model(tmp_path / "model.safetensors").model.config.class_names
    assert names is not None and names[0] == "road"


def test_the_same_run_twice_is_the_same(tmp_path: Path, checkpoint: Path) -> None:
    assert trained(tmp_path / "a", checkpoint) == trained(tmp_path / "b", checkpoint)
    assert trained(tmp_path / "c", checkpoint, seed=1) != trained(tmp_path / "a2", checkpoint)


@pytest.mark.parametrize("policy", ["confidence", "dynamicvit"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, checkpoint: Path, policy: str) -> None:
    """SIGKILL at some step; the resumed run's losses and weights equal an uninterrupted run's, to the bit."""

    def command(out: Path, *more: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "dovit.training.cli.train",
            "--ckpt",
            str(checkpoint),
            "--data",
            "streets:8",
            "--out",
            str(out),
            "--steps",
            "80",
            "--batch",
            "2",
            "--lr",
            "0.01",
            "--policy",
            policy,
            "--val",
            "none",
            "--save-every",
            "5",
            "--log-every",
            "1",
            "--workers",
            "1",
            "--device",
            "cpu",
            *more,
        ]

    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}  # the order of sums is the same on any machine's load
    subprocess.run(command(tmp_path / "whole"), check=True, env=quiet, capture_output=True)
    process = subprocess.Popen(command(tmp_path / "killed"), env=quiet, stdout=subprocess.DEVNULL)
    log = tmp_path / "killed" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 7) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    refused = subprocess.run(command(tmp_path / "killed"), env=quiet, capture_output=True, text=True)
    assert refused.returncode == 2 and "--resume" in refused.stderr and "Traceback" not in refused.stderr
    subprocess.run(command(tmp_path / "killed", "--resume"), check=True, env=quiet, capture_output=True)
    assert log.read_text() == (tmp_path / "whole" / "log.jsonl").read_text()
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]


def test_resuming_needs_the_same_settings(tmp_path: Path, checkpoint: Path) -> None:
    trained(tmp_path, checkpoint)
    changed = Settings(steps=4, batch=2, optimiser="adamw", lr=0.5)
    with pytest.raises(UsageError, match=r"other settings \(lr\)"):
        run(StartingPoint(checkpoint=checkpoint, read=READ), lambda gpu: changed, "streets:8", tmp_path, resume=True)


def test_resuming_needs_the_same_merging(tmp_path: Path, checkpoint: Path) -> None:
    settings = Settings(steps=2, batch=2)

    def go(side: int, *, resume: bool) -> None:
        start = StartingPoint(checkpoint=checkpoint, read=READ, merge_cells=side)
        run(start, lambda gpu: settings, "streets:8", tmp_path, device="cpu", workers=0, resume=resume)

    go(2, resume=False)
    go(2, resume=True)
    with pytest.raises(UsageError, match=r"other settings \(merge_cells\)"):
        go(3, resume=True)


def test_heads_only_changes_the_heads_and_nothing_else(tmp_path: Path, checkpoint: Path) -> None:
    lines = trained(tmp_path, checkpoint, steps=6, lr=0.01, heads_only=True)
    before, after = weights(checkpoint), weights(tmp_path / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("heads.") and not name.endswith("tracked")}
    assert "distillation" not in lines[0]


def test_heads_only_trains_lenses_too(tmp_path: Path) -> None:
    model = randomised(street_config(head="lens"))
    save_model(model, tmp_path / "lens.safetensors")
    trained(tmp_path / "out", tmp_path / "lens.safetensors", steps=6, lr=0.01, heads_only=True)
    before, after = weights(tmp_path / "lens.safetensors"), weights(tmp_path / "out" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(("heads.", "lenses."))}


def test_missing_heads_are_added(tmp_path: Path) -> None:
    """A plain segmenter becomes a DoViT with the paper's 1×1 heads; at ξ = 1 it is still the segmenter it was."""
    dense = randomised(street_config(layers=()))
    save_model(dense, tmp_path / "plain.pth")
    trained(tmp_path / "out", tmp_path / "plain.pth", heads_only=True)
    model = load_model(tmp_path / "out" / "model.safetensors").model
    assert [(head.layer, head.num_convs) for head in model.config.decisions] == [(1, 0), (2, 0), (3, 0)]
    images = random_images(dense.config)
    with torch.no_grad():
        torch.testing.assert_close(model(images, (1, 1, 1)).logits, dense(images).logits)


def test_an_eomt_gets_decision_heads(tmp_path: Path) -> None:
    """The heads alone are trained, by their own losses; its decoder needs losses of masks, so other runs are refused."""
    dense = randomised(street_config("eomt", layers=()))
    save_model(dense, tmp_path / "plain.safetensors")
    lines = trained(tmp_path / "out", tmp_path / "plain.safetensors", steps=6, lr=0.01, heads_only=True)
    assert "segmentation" not in lines[0] and lines[0]["loss"] == pytest.approx(lines[0]["head1"] + lines[0]["head2"])
    model = load_model(tmp_path / "out" / "model.safetensors").model
    assert [head.layer for head in model.config.decisions] == [1, 2]  # queries join after layer 2 of 4
    images = random_images(dense.config)
    with torch.no_grad():
        torch.testing.assert_close(model(images, (1, 1)).logits, dense(images).logits)
    for number, settings in enumerate(({}, {"policy": "dynamicvit"})):
        with pytest.raises(UsageError, match="say --heads-only"):
            trained(tmp_path / str(number), tmp_path / "plain.safetensors", **settings)


def test_training_from_a_backbone(tmp_path: Path) -> None:
    """timm's keys: no decoder, no heads; both are made. The classes come from the data."""
    from dovit.runtime.errors import UsageError

    donor = randomised(street_config())
    state = {}
    for name, value in donor.backbone.state_dict().items():
        state[name.replace("layers.", "blocks.").replace("patch_embed.", "patch_embed.proj.")] = value
    positions, prefix = state.pop("pos_embed"), state.pop("prefix")
    square = torch.nn.functional.pad(positions, (0, 0, 0, 1))[:25]
    state |= {"cls_token": prefix[None], "pos_embed": torch.cat([torch.zeros(1, 32), square])[None]}
    state |= {"norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)}
    torch.save(state, tmp_path / "vit.pth")
    read = {"arch": "segmenter-linear", "image_size": (64, 96), "classes": 19}
    with pytest.raises(UsageError, match="a backbone without a decoder, which would stay as it was initialised"):
        trained(tmp_path / "heads", tmp_path / "vit.pth", read, heads_only=True)
    trained(tmp_path / "out", tmp_path / "vit.pth", read)
    model = load_model(tmp_path / "out" / "model.safetensors").model
    assert model.config.classes == 19 and len(model.heads) == 3 and model.config.image_size == (64, 96)


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "arch"), [("dinov3", "setr-mla"), ("dinov2-registers", "segmenter-linear")])
def test_training_from_a_hugging_face_folder(kind: str, arch: str, tmp_path: Path) -> None:
    """A backbone of transformers gets a decoder and heads, and what training saves is a model that token pass runs on."""
    require("transformers")
    from oracle.segmenters import backbone

    model = backbone(kind)
    model.save_pretrained(tmp_path / "folder")
    size = (64, 96) if kind == "dinov3" else (56, 84)
    trained(tmp_path / "out", tmp_path / "folder", {"arch": arch, "image_size": size, "classes": 19})
    made = load_model(tmp_path / "out" / "model.safetensors").model
    assert made.config.image_size == size and (made.config.backbone.rotary is not None) == (kind == "dinov3")
    images = random_images(made.config)
    with torch.no_grad():
        output = made(images, (0.06,) * len(made.heads))
    assert output.logits.isfinite().all() and made.config.decoder.kind == arch


def test_no_merge_stays_with_the_model(tmp_path: Path, checkpoint: Path) -> None:
    """In its file, in a further run that does not name it, and in a bundle."""
    from dovit.export.run import export
    from dovit.runtime.bundle.open import read_manifest

    settings = Settings(steps=1, batch=2)
    start = StartingPoint(checkpoint=checkpoint, read=READ, merge=False)
    run(start, lambda gpu: settings, "streets:8", tmp_path / "out", device="cpu", workers=0)
    again = StartingPoint(checkpoint=tmp_path / "out" / "model.safetensors", read=READ)
    run(again, lambda gpu: settings, "streets:8", tmp_path / "again", device="cpu", workers=0)
    assert not load_model(tmp_path / "again" / "model.safetensors").model.config.merge
    export(tmp_path / "again" / "model.safetensors", tmp_path / "engines", {}, None, None)
    assert not read_manifest(tmp_path / "engines").merge


def test_merging_by_cell_stays_with_the_model(tmp_path: Path, checkpoint: Path) -> None:
    """In its file and in a bundle; and merging into the class token takes its place again."""
    from dovit.export.run import export
    from dovit.runtime.bundle.open import read_manifest

    settings = Settings(steps=1, batch=2)
    for name, start in (
        ("cells", StartingPoint(checkpoint=checkpoint, read=READ, merge_cells=2)),
        ("class", StartingPoint(checkpoint=tmp_path / "cells" / "model.safetensors", read=READ, merge=True)),
    ):
        run(start, lambda gpu: settings, "streets:8", tmp_path / name, device="cpu", workers=0)
    configs = [load_model(tmp_path / name / "model.safetensors").model.config for name in ("cells", "class")]
    assert [(config.merge, config.merge_cells) for config in configs] == [(False, 2), (True, 0)]
    export(tmp_path / "cells" / "model.safetensors", tmp_path / "engines", {}, None, None)
    manifest = read_manifest(tmp_path / "engines")
    assert (manifest.merge, manifest.merge_cells, manifest.prefix) == (False, 2, 1 + 2 * 3)
    both = StartingPoint(checkpoint=checkpoint, read=READ, merge=True, merge_cells=2)
    with pytest.raises(UsageError, match="or by cell"):
        run(both, lambda gpu: settings, "streets:8", tmp_path / "both", device="cpu", workers=0)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\nflags\t\t: fpu\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx512f amx_tile\n", False),
        ("no flags", False),
        (None, False),
    ],
)
def test_auto_takes_bf16_where_the_cpu_multiplies_in_it(text: str | None, has: bool, tmp_path: Path) -> None:
    from dovit.runtime.machine import cpu_multiplies_in_bf16
    from dovit.training.cli.train import Precision, _precision

    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert cpu_multiplies_in_bf16(tmp_path / "cpuinfo") == has
    assert (_precision(Precision.AUTO, False) == "bf16") == cpu_multiplies_in_bf16()
    assert [_precision(Precision(name), True) for name in ("fp32", "bf16", "auto")] == ["fp32", "bf16", "bf16"]


def test_bf16_autocast_of_lenses_and_cells(tmp_path: Path) -> None:
    model = randomised(street_config("segmenter-linear", head="corrected-cells"))
    save_model(model, tmp_path / "model.pth")
    low, full = (trained(tmp_path / p, tmp_path / "model.pth", precision=p)[0]["loss"] for p in ("bf16", "fp32"))
    assert low != full and low == pytest.approx(full, rel=0.02)


def test_bf16_autocast(tmp_path: Path, checkpoint: Path) -> None:
    low, full = (trained(tmp_path / p, checkpoint, precision=p)[0]["loss"] for p in ("bf16", "fp32"))
    assert low != full and low == pytest.approx(full, rel=0.02)


TWICE = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def finished(command: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    """torchrun with 2 × 2 images: the same losses and weights as one process with 4, for a model without batch norm."""
    save_model(randomised(street_config("segmenter-linear")), tmp_path / "model.pth")
    common = [
        "--ckpt",
        str(tmp_path / "model.pth"),
        "--data",
        "streets:8",
        "--steps",
        "6",
        "--lr",
        "0.01",
        "--threshold",
        "1",
        "--scale-range",
        "1,1",
        "--val",
        "none",
        "--log-every",
        "1",
        "--workers",
        "0",
        "--device",
        "cpu",
        "--precision",
        "fp32",  # the two are compared closely
    ]
    one = [sys.executable, "-m", "dovit.training.cli.train", *common, "--batch", "4", "--out", str(tmp_path / "one")]
    two = [*TWICE, "-m", "dovit.training.cli.train", *common, "--batch", "2", "--out", str(tmp_path / "two")]
    for command in (one, two):
        finished(command)
    a, b = (
        [json.loads(line) for line in (tmp_path / n / "log.jsonl").read_text().splitlines()] for n in ("one", "two")
    )
    assert [line["loss"] for line in a] == pytest.approx([line["loss"] for line in b], rel=1e-4)
    first, second = (weights(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)


def test_only_the_first_process_touches_the_folder(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several at once would remove each other's files."""

    class Second(Process):
        def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
            return module

        def mean(self, value: torch.Tensor) -> torch.Tensor:
            return value

        def any(self, flag: bool) -> bool:
            return flag

        def wait(self) -> None:
            pass

    monkeypatch.setattr("dovit.training.run.process", lambda device: nullcontext(Second(1, 2, torch.device("cpu"))))
    run(
        StartingPoint(checkpoint=checkpoint, read=READ),
        lambda gpu: Settings(steps=1, batch=2),
        "streets:8",
        tmp_path / "out",
        device="cpu",
        workers=0,
    )
    assert not (tmp_path / "out").exists()


def test_no_thread_of_the_group_is_left(tmp_path: Path) -> None:
    """A thread that still frees a tensor while the interpreter exits would make the process fail now and then."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, torch\n"
        "from dovit.training.parallel import process\n"
        "def names():\n"
        "    return [open(f'/proc/self/task/{one}/comm').read() for one in os.listdir('/proc/self/task')]\n"
        "def step(here):\n"
        "    wrapped = here.wrap(torch.nn.Linear(3, 3))\n"
        "    wrapped(torch.ones(1, 3)).sum().backward()\n"
        "    here.wait()\n"
        "    return any('gloo' in name for name in names())\n"
        "with process('cpu') as here:\n"
        "    during = step(here)\n"
        "sys.exit(not during or any('gloo' in name for name in names()))\n"
    )
    finished([*TWICE, str(script)])


def test_a_loss_that_is_nan_ends_the_run(tmp_path: Path) -> None:
    from dovit.runtime.errors import DovitError

    model: DoViT = randomised(street_config())
    with torch.no_grad():
        model.decoder.classify.bias.fill_(-3e38)[0] = 3e38  # whose cross-entropy is infinite
    save_model(model, tmp_path / "model.pth")
    with pytest.raises(DovitError, match="lower --lr"):
        trained(tmp_path / "out", tmp_path / "model.pth")
    assert not (tmp_path / "out" / "last.pt").exists()


def test_a_damaged_state_is_named(tmp_path: Path, checkpoint: Path) -> None:
    from dovit.runtime.errors import DovitError

    trained(tmp_path, checkpoint)
    state = tmp_path / "last.pt"
    state.write_bytes(state.read_bytes()[:5000])
    settings = Settings(steps=4, batch=2, optimiser="adamw")
    with pytest.raises(DovitError, match=r"last\.pt: not the state of a run"):
        run(StartingPoint(checkpoint=checkpoint, read=READ), lambda gpu: settings, "streets:8", tmp_path, resume=True)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([], "give either --ckpt"),
        (["--ckpt", "missing.pth"], "missing.pth"),
        (["--ckpt", "CKPT", "--data", "nowhere"], "no such folder"),
        (["--ckpt", "CKPT", "--lr", "0"], "--lr: lr: Input should be greater than 0, found 0.0"),
        (["--ckpt", "CKPT", "--lr", "nan"], "--lr: lr: Input should be a finite number"),
        (["--ckpt", "CKPT", "--head-lr-mult", "-1"], "--head-lr-mult: head_lr_mult: Input should be greater"),
        (["--ckpt", "CKPT", "--weight-decay", "inf"], "--weight-decay: weight_decay: Input should be a finite number"),
        (["--ckpt", "CKPT", "--label-stride", "999"], "leaves no label of crops of 64×96"),
        (["--ckpt", "CKPT", "--seed", "9" * 400], "--seed"),
        (["--ckpt", "CKPT", "--batch", str(10**30)], "--batch: batch: Input should be less than or equal to 65536"),
        (["--ckpt", "CKPT", "--scale-range", "2"], "two factors"),
        (["--ckpt", "CKPT", "--device", "cuda"], "no GPU"),
        (["--ckpt", "CKPT", "--dense", "--heads-only"], "leave --heads-only"),
        (["--new", "CKPT"], "cannot be read"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path,
    checkpoint: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    sentence: str,
) -> None:
    from dovit.training.cli.train import main

    if "cuda" in more and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.chdir(tmp_path)
    arguments = [str(checkpoint) if one == "CKPT" else one for one in more]
    monkeypatch.setattr(sys, "argv", ["dovit-train", "--data", "streets:4", "--out", "out", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    error = capfd.readouterr().err
    assert end.value.code in (1, 2) and sentence in error and error.count("\n") == 1
