"""dovit-adapt: what it fits, against independent closed-form solutions; what it must not change; the files that it leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from models import random_images, randomised, small_config, spreading_thresholds
from PIL import Image
from typer.testing import CliRunner

from dovit.export.checkpoints import check_space, load_model, save_model
from dovit.export.model import DoViT
from dovit.export.model.lens import Correction, Lens, Refinement, TokenwiseMap
from dovit.export.model.token_pass import TokenState, gather, reconstruct, with_tokens
from dovit.runtime.errors import DovitError
from dovit.runtime.progress import no_progress
from dovit.training.adapt.features import check_space_of_features, compute_features
from dovit.training.adapt.fit import RIDGE, decode, distil, divergence, fit_correction, fit_lens, probabilities
from dovit.training.adapt.joint import Quality, distil_together, judge
from dovit.training.adapt.run import Adaptation, adapt, adapted_config
from dovit.training.adapt.states import States, correct, pass_decision
from dovit.training.cli.adapt import command, main

SEVERAL_LAYERS = ["setr-mla", "segmenter-linear-taps"]  # 1, 3 and 4 of 4


def dense_model(decoder: str = "segmenter-linear") -> DoViT:
    return randomised(small_config(decoder, layers=(), depth=4, taps=(1, 3, 4)))


def reads_last_layer_alone(model: DoViT) -> bool:
    return not (model.config.taps or model.config.queries)


def probabilities_of(model: DoViT, logits: torch.Tensor) -> torch.Tensor:
    """Float64; an EoMT's scores are shares of their sum."""
    return (
        logits.double() / logits.double().sum(1, keepdim=True) if model.config.queries else logits.double().softmax(1)
    )


def photos(folder: Path, model: DoViT, count: int) -> list[Path]:
    folder.mkdir()
    for k, image in enumerate(random_images(model.config, count, seed=4).numpy()):
        Image.fromarray(image).save(folder / f"{k}.png")
    return sorted(folder.iterdir())


def tokens_after(model: DoViT, file: Path, layer: int) -> torch.Tensor:
    x = model.embed(torch.from_numpy(np.array(Image.open(file)))[None])
    for one in model.backbone.layers[:layer]:
        x = one(x)
    return x[0, model.config.backbone.prefix :]


def test_the_ridge_regression_is_the_augmented_least_squares(tmp_path: Path) -> None:
    """Ridge is least squares with √λ·I appended: solved here by SVD in float64, over other code's features."""
    model = randomised(adapted_config(dense_model().config, Adaptation((2,), (0.5,))))
    files = photos(tmp_path / "photos", model, 6)
    (tmp_path / "states").mkdir()
    states = States(tmp_path / "states")
    features = compute_features(model, files, tmp_path, no_progress, states)
    lens = TokenwiseMap(64, 0).requires_grad_(False)
    fit_lens(lens, states, features, 4, range(6), 1)
    x = torch.cat([tokens_after(model, file, 2) for file in files]).half().double().numpy()
    y = torch.cat([tokens_after(model, file, 4) for file in files]).half().double().numpy()
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    ridge = RIDGE * np.mean(np.sum(x * x, axis=0))
    augmented = np.concatenate([x, np.sqrt(ridge) * np.eye(x.shape[1])])
    solved = np.linalg.lstsq(augmented, np.concatenate([y, np.zeros((x.shape[1], y.shape[1]))]), rcond=None)[0]
    np.testing.assert_allclose(lens.linear.weight.numpy(), solved[:-1].T, atol=2e-3)
    np.testing.assert_allclose(lens.linear.bias.numpy(), solved[-1], atol=2e-3)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(
    "decoder", ["segmenter-linear", "segmenter-mask", "setr-naive", "setr-pup", "eomt", *SEVERAL_LAYERS]
)
def test_distillation_lowers_the_divergence(decoder: str, kernel: int, tmp_path: Path) -> None:
    dense = dense_model(decoder)
    how = Adaptation((2,), (0.5,), 16, kernel, correct=reads_last_layer_alone(dense))
    model = DoViT(adapted_config(dense.config, how)).eval().requires_grad_(False)
    model.load_state_dict(dense.state_dict(), strict=False)
    states = States(tmp_path)
    features = compute_features(model, photos(tmp_path / "photos", dense, 6), tmp_path, no_progress, states)
    lens = cast(Lens, model.lenses[0])
    fit_lens(lens, states, features, 4, range(6), 1)

    def through_lens(state: TokenState) -> torch.Tensor:
        return reconstruct(model.through_lens(0, state), 1)

    def over_all() -> float:
        with torch.no_grad():
            mapped = [through_lens(states.get(image)) for image in range(6)]
            logits = decode(model, states, features, range(6), mapped)
            return float(divergence(model, logits, probabilities(model, features, range(6))))

    before = over_all()
    lens.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    distil(
        model,
        through_lens,
        list(lens.parameters()),
        states,
        features,
        range(6),
        steps=40,
        lr=1e-3,
        generator=generator,
        progress=lambda done: None,
    )
    assert over_all() < 0.8 * before
    assert lens.neighbours is None or lens.neighbours.out.weight.any()


def adaptable(tmp_path: Path, decoder: str = "segmenter-linear", **how: Any) -> tuple[DoViT, States, list[Path]]:
    dense = dense_model(decoder)
    layers = (1, 2) if dense.config.queries else (2, 3)  # which join after layer 2
    adaptation = Adaptation(layers, (0.5, 0.5), correct=reads_last_layer_alone(dense), **how)
    model = DoViT(adapted_config(dense.config, adaptation)).eval().requires_grad_(False)
    model.load_state_dict(dense.state_dict(), strict=False)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for head in model.heads:
            head.classify.weight.copy_(torch.randn(head.classify.weight.shape, generator=noise) / 8)
        for correction in model.corrections if adaptation.correct else ():
            correction.linear.weight.add_(torch.randn(64, 64, generator=noise) / 32)
    xi = spreading_thresholds(model, random_images(model.config, 6, seed=4), (0.7, 0.8))
    model.config = model.config.model_copy(update={"thresholds": xi})
    (tmp_path / "states").mkdir()
    return model, States(tmp_path / "states"), photos(tmp_path / "photos", dense, 6)


@pytest.mark.parametrize(
    ("decoder", "merge_cells"),
    [("segmenter-linear", 0), ("segmenter-linear", 3), *((one, 3) for one in SEVERAL_LAYERS), ("eomt", 0)],
)
def test_states_are_those_of_the_model_itself(decoder: str, merge_cells: int, tmp_path: Path) -> None:
    """Moved through both decisions, one after the other, as `follow` moves them, with another rounding. An EoMT's through the
    first alone: queries join behind the second, and nothing is fitted there."""
    model, states, files = adaptable(tmp_path, decoder, merge_cells=merge_cells)
    features = compute_features(model, files, tmp_path, no_progress, states)
    passed = 1 if model.config.queries else 2
    for number in range(passed):
        pass_decision(model, number, states, range(6))
        if reads_last_layer_alone(model):
            correct(model, number, states, range(6))
    for image, file in enumerate(files):
        with torch.no_grad():
            output = model(torch.from_numpy(np.array(Image.open(file)))[None])
            state = states.get(image)
            assert 0 < state.index.shape[1] < 24
            assert state.index.tolist() == output.decisions[0][passed - 1].kept.tolist()
            if model.config.queries:
                continue
            logits = decode(model, states, features, [image], [reconstruct(state, model.config.prefix)])
        torch.testing.assert_close(logits, output.logits, rtol=0.02, atol=0.02)


def test_the_correction_is_the_least_squares_of_what_stopping_changed(tmp_path: Path) -> None:
    """Against least squares in float64 by SVD, over tokens that another formulation of the pass makes."""
    model, states, files = adaptable(tmp_path)
    features = compute_features(model, files, tmp_path, no_progress, states)
    before = [states.get(image) for image in range(6)]
    pass_decision(model, 0, states, range(6))
    correction = cast(Correction, model.corrections[0])
    fit_correction(correction, states, features, 3, range(6))
    rows, wanted = [], []
    for image, (file, state) in enumerate(zip(files, before, strict=True)):
        kept = (model.confidence(0, model.through_lens(0, state))[0] <= model.config.thresholds[0]).nonzero().flatten()
        short = gather(state, kept[None], 1, merge=False)
        x = model.backbone.layers[2](with_tokens(short, short.tokens).tokens)[0, 1:].half().double().numpy()
        stopped = 1 - len(kept) / 24
        rows.append(stopped * np.concatenate([x, np.ones((len(x), 1))], axis=1))
        wanted.append(tokens_after(model, file, 3)[kept].half().double().numpy() - x)
        assert states.get(image).index.tolist() == [kept.tolist()]
    x, y = np.concatenate(rows), np.concatenate(wanted)
    assert 64 < len(x) < 6 * 24
    ridge = RIDGE * np.mean(np.sum(x * x, axis=0))
    augmented = np.concatenate([x, np.sqrt(ridge) * np.eye(65)])
    solved = np.linalg.lstsq(augmented, np.concatenate([y, np.zeros((65, 64))]), rcond=None)[0]
    np.testing.assert_allclose(correction.linear.weight.numpy(), solved[:-1].T + np.eye(64), atol=5e-3)
    np.testing.assert_allclose(correction.linear.bias.numpy(), solved[-1], atol=5e-3)


@pytest.mark.parametrize("correct_too", [False, True])
def test_the_refinement_brings_the_full_sequence_nearer(correct_too: bool, tmp_path: Path) -> None:
    """Fitted by `adapt` behind everything else, it lowers what the same model has without it."""
    dense = dense_model()
    files = photos(tmp_path / "photos", dense, 12)
    how = Adaptation((1, 2), (0.4, 0.4), 16, 3, steps=60, lr=1e-3, correct=correct_too, refine=True)
    model, _ = adapt(dense, files, how, tmp_path, no_progress)
    assert cast(Refinement, model.refinement).out.weight.any()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in dense.state_dict().items())
    without = DoViT(model.config.model_copy(update={"refinement": None})).eval().requires_grad_(False)
    without.load_state_dict({n: v for n, v in model.state_dict().items() if not n.startswith("refinement.")})
    losses = []
    for one in (model, without):
        total = 0.0
        for file in files:
            image = torch.from_numpy(np.array(Image.open(file)))[None]
            with torch.no_grad():
                total += float(divergence(one, one(image).logits, dense(image).logits.softmax(1)))
        losses.append(total / len(files))
    refined, plain = losses
    assert refined < 0.9 * plain, losses


@pytest.mark.parametrize(
    ("decoder", "merge_cells"),
    [("segmenter-linear", 0), ("segmenter-linear", 3), *((one, 0) for one in ("eomt", *SEVERAL_LAYERS))],
)
def test_training_together_brings_the_whole_nearer(decoder: str, merge_cells: int, tmp_path: Path) -> None:
    """What is judged is what the model itself gives, with token pass and without; the frozen layers stay as they are."""
    model, states, files = adaptable(tmp_path, decoder, merge_cells=merge_cells)
    dense = dense_model(decoder)
    frozen = {name: value.clone() for name, value in dense.state_dict().items()}
    features = compute_features(model, files, tmp_path, no_progress, states)

    def check() -> Quality:
        quality = judge(model, files, features, range(6))
        losses = []
        sure = torch.zeros(2)
        left = torch.zeros(2)
        for file in files:
            image = torch.from_numpy(np.array(Image.open(file)))[None]
            with torch.no_grad():
                wanted, output = probabilities_of(dense, dense(image).logits), model(image)
            made = probabilities_of(model, output.logits)
            losses.append(float((wanted * (wanted / made).log()).sum(1).mean()))
            for number, decision in enumerate(output.decisions[0]):
                left[number] += decision.index.shape[1]
                sure[number] += decision.index.shape[1] - decision.kept.shape[1]
        assert quality.divergence == pytest.approx(np.mean(losses), rel=0.02)
        assert [d.confident for d in quality.decisions] == pytest.approx((sure / left).tolist())
        assert 0.6 < quality.macs < 1.3
        return quality

    before = check()
    generator = torch.Generator().manual_seed(0)
    seen: list[int] = []
    distil_together(
        model,
        files,
        features,
        range(6),
        steps=30,
        lr=1e-3,
        generator=generator,
        progress=lambda done: seen.append(done),
    )
    assert check().divergence < 0.7 * before.divergence
    assert seen == list(range(1, 31))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in frozen.items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("decoder", "xi", "agreement"),
    [
        ("setr-pup", 0.4, 0.5),
        ("segmenter-linear-taps", 0.4, 0.5),
        ("eomt", 0.16, 0.25),
    ],  # whose scores are nearly equal
)
def test_the_model_stays_as_it_was(decoder: str, xi: float, agreement: float, tmp_path: Path) -> None:
    dense = dense_model(decoder)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    files = photos(tmp_path / "photos", dense, 12)
    how = Adaptation((1, 2), (1.0, xi), 16, 3, steps=30, joint_steps=2, correct=reads_last_layer_alone(dense))
    model, quality = adapt(dense, files, how, tmp_path, no_progress)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert model.config.thresholds == (1.0, xi) and [h.layer for h in model.config.decisions] == [1, 2]
    first, second = quality.decisions
    assert first.confident == 0 and np.isnan(first.agreement), quality
    assert 0 < second.confident <= 1 and second.agreement > agreement and 0.5 < quality.macs < 1.3, quality
    image = random_images(dense.config)
    with torch.no_grad():
        torch.testing.assert_close(model(image, (1.0, 1.0)).logits, dense(image).logits)
    assert not model.config.merge
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos"]


def test_a_fit_that_diverges_is_refused(tmp_path: Path) -> None:
    dense = dense_model()
    model, _, files = adaptable(tmp_path)
    message = r"has diverged, its loss is (nan|inf): lower --lr, which is 1e\+25"
    with pytest.raises(DovitError, match=message):
        adapt(dense, files, Adaptation((1, 2), (0.9, 0.4), steps=3, lr=1e25), tmp_path, no_progress)
    features = compute_features(model, files, tmp_path, no_progress)
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(DovitError, match=message):
        distil_together(
            model, files, features, range(6), steps=3, lr=1e25, generator=generator, progress=lambda done: None
        )


@pytest.mark.parametrize(
    ("decoder", "how", "words"),
    [
        ("eomt", Adaptation((1,), (0.5,)), "corrections are for decoders that read the last layer's .* or queries"),
        ("eomt", Adaptation((1,), (0.5,), correct=False, merge_cells=2), "an EoMT cannot be merged by cell"),
        (
            "eomt",
            Adaptation((5,), (0.5,), correct=False),
            "after layer 5 lies behind layer 4, after which EoMT's queries",
        ),
        ("setr-mla", Adaptation((1,), (0.5,)), "corrections are for decoders that read the last layer's"),
        (
            "segmenter-linear-taps",
            Adaptation((1,), (0.5,), 16, 3, correct=False, refine=True),
            "refinement is for .* decoders that read the last layer's",
        ),
    ],
)
def test_what_a_decoder_does_not_go_with_is_refused(decoder: str, how: Adaptation, words: str, tmp_path: Path) -> None:
    with pytest.raises(DovitError, match=words):
        adapt(randomised(small_config(decoder, layers=())), [Path("a"), Path("b")], how, tmp_path, no_progress)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--threshold", "0"], r"--threshold 0 would stop every token.* 7 classes .* 0\.143"),
        (["--threshold", "0.9,0.14"], r"--threshold 0\.14 would stop every token"),
        (["--threshold", "1"], r"--threshold 1 would stop no token, .* for one of the decisions at least"),
        (["--threshold", "1,1"], "would stop no token"),
        (["--threshold", "0.9,0.9,0.9"], "3 thresholds for 2 decisions"),
        (["--decision-layers", "0,2"], r"--decision-layers 0,2: give ascending layers from 1 to 3"),
        (["--decision-layers", "2,4"], "from 1 to 3"),
        (["--decision-layers", "999"], "from 1 to 3"),
        (["--decision-layers", "2,1"], "ascending"),
        (["--merge", "--merge-cells", "4"], r"\(--merge\) or by cell \(--merge-cells\): give one of them"),
        (["--hidden", "0", "--kernel", "3"], "--kernel 3 with --hidden 0: .* give --hidden channels too"),
        (["--refine", "--hidden", "0"], "--refine with --hidden 0: .* give --hidden channels too"),
        (["--kernel", "4"], "--kernel 4: give an odd number"),
        (["--kernel", "9"], "'--kernel': Input should be less than or equal to 7"),
        (["--lr", "nan"], "--lr"),
        (["--limit", "1"], "--limit"),
        (
            ["--out", "dense.safetensors/adapted.pth"],
            "dense.safetensors: cannot be made a folder .*; give --out another one",
        ),
        (["--out", "dense.safetensors"], "is the checkpoint itself"),
        (["--images", "photos/0.png"], "1 image; give two or more"),
        (["--images", "nope"], "error: nope: no such file or folder; check the path"),
        (["--images", "dense.safetensors"], "dense.safetensors: not an image"),
        (["--ckpt", "nope.pth"], "error: nope.pth: no such checkpoint"),
        (["--ckpt", "nope.pth", "--images", "photos/0.png"], "error: nope.pth: no such checkpoint"),
    ],
)
def test_options_are_refused_before_the_work(
    options: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    model = dense_model()
    monkeypatch.chdir(tmp_path)
    save_model(model, tmp_path / "dense.safetensors")
    before = (tmp_path / "dense.safetensors").read_bytes()
    photos(tmp_path / "photos", model, 2)
    monkeypatch.setattr("dovit.training.adapt.run.compute_features", work)
    default = {"--ckpt": "dense.safetensors", "--images": "photos", "--out": "adapted.safetensors"}
    given = [text for flag, value in default.items() if flag not in options for text in (flag, value)]
    monkeypatch.setattr("sys.argv", ["dovit-adapt", *given, *options])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code in (1, 2) and len(said.splitlines()) == 1 and re.search(sentence, said), said
    assert (tmp_path / "dense.safetensors").read_bytes() == before


@pytest.mark.parametrize("decoder", ["segmenter-linear", "segmenter-linear-taps", "eomt"])
def test_a_model_larger_than_the_disk_is_refused_before_it_is_fitted(
    decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = dense_model(decoder)
    config = adapted_config(dense.config, Adaptation((1, 2), (0.9, 0.9), correct=reads_last_layer_alone(dense)))
    out = tmp_path / "adapted.safetensors"
    save_model(randomised(config), out)
    size, free = out.stat().st_size, 0
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(total=1 << 40, used=0, free=free))
    free = size
    check_space(config, out)
    free = size * 9 // 10
    with pytest.raises(DovitError, match=r"adapted.safetensors: the model takes .* GB, and .* GB are free there"):
        check_space(config, out)


@pytest.mark.parametrize("decoder", ["segmenter-linear", "segmenter-linear-taps", "eomt"])
def test_features_larger_than_the_disk_are_refused_before_they_are_computed(
    decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check counts the tokens; what is written besides them, a few kB a file, is less than these."""
    model = dense_model(decoder)
    files = photos(tmp_path / "photos", model, 3)
    config = adapted_config(model.config, Adaptation((1, 2), (0.9, 0.9), correct=reads_last_layer_alone(model)))
    (tmp_path / "scratch").mkdir()
    states, some = States(tmp_path / "scratch"), randomised(config)
    compute_features(some, files, tmp_path / "scratch", no_progress, states)
    for number in range(2):
        pass_decision(some, number, states, range(3))
    written = sum(file.stat().st_size for file in (tmp_path / "scratch").iterdir())

    def disk(free: int) -> Any:
        return lambda folder: SimpleNamespace(total=1 << 40, used=0, free=free)

    monkeypatch.setattr("shutil.disk_usage", disk(written))
    check_space_of_features(config, 3, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", disk(written // 2))
    with pytest.raises(
        DovitError, match=r"features of 3 images take .* GB there, and .* GB are free: .* lower --limit"
    ):
        check_space_of_features(config, 3, tmp_path)


@pytest.mark.parametrize("name", ["layer2.f16", "queries.f32", "0.pt"])
def test_a_disk_that_fills_up_is_called_full(name: str, tmp_path: Path) -> None:
    """Files that lead to /dev/full take nothing: the features of a layer, what an EoMT's queries predict, and a state."""
    model = randomised(
        adapted_config(dense_model("eomt").config, Adaptation((2,), (0.5,), hidden=0, kernel=1, correct=False))
    )
    files = photos(tmp_path / "photos", model, 2)
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(DovitError, match="the disk is full; free some space, or lower --limit"):
        compute_features(model, files, tmp_path, no_progress, States(tmp_path))


@pytest.mark.parametrize(
    ("decoder", "refused"),
    [
        (
            "segmenter-linear-taps",
            {"--correct": "also reads layers 1, 3: leave it out", "--refine": "also reads layers 1, 3: leave it out"},
        ),
        (
            "eomt",
            {
                "--correct": "also reads queries, as an EoMT's does: leave it out",
                "--refine": "also reads queries, as an EoMT's does: leave it out",
                "--merge-cells 4": "an EoMT cannot be merged by cell",
                "--decision-layers 1,3": "from 1 to 2; the model has 4, and an EoMT's queries join after layer 2",
            },
        ),
    ],
)
def test_the_command_for_a_decoder_of_more_than_the_last_layer(
    decoder: str,
    refused: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lenses and no corrections, which it refuses where they are asked for."""
    dense = dense_model(decoder)
    monkeypatch.chdir(tmp_path)
    save_model(dense, tmp_path / "dense.safetensors")
    photos(tmp_path / "photos", dense, 3)
    given = ["dovit-adapt", "--ckpt", "dense.safetensors", "--images", "photos", "--out", "adapted.safetensors"]
    for option, words in refused.items():
        monkeypatch.setattr("sys.argv", [*given, *option.split()])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        said = capsys.readouterr().err
        assert option.split()[0] in said and words in said and len(said.splitlines()) == 1, said
    monkeypatch.setattr("sys.argv", [*given, "--steps", "2", "--joint-steps", "1"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    config = load_model(tmp_path / "adapted.safetensors").model.config
    assert [(head.layer, head.lens is not None, head.correction) for head in config.decisions] == [
        (1, True, None),
        (2, True, None),
    ]
    assert config.merge_cells == (0 if config.queries else 4)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is read again; an interrupt leaves neither a model nor features."""
    import typer

    dense = dense_model()
    save_model(dense, tmp_path / "dense.safetensors")
    photos(tmp_path / "photos", dense, 5)
    app = typer.Typer()
    app.command()(command)
    out = tmp_path / "adapted.safetensors"
    arguments = ["--ckpt", str(tmp_path / "dense.safetensors"), "--images", str(tmp_path / "photos"), "--out", str(out)]
    for given, layers, thresholds, side, lens, refinement in (
        ([], [1, 2], (0.9, 0.95), 4, (16, 7), None),  # hidden: a third of 64 channels, in multiples of 8
        (["--decision-layers", "1,2,3", "--refine"], [1, 2, 3], (0.9, 0.95, 0.98), 4, (16, 7), (16, 7)),
        (["--threshold", "0.8", "--merge", "--hidden", "0"], [1, 2], (0.8, 0.8), 0, (0, 1), None),
        (["--merge-cells", "0", "--hidden", "5", "--kernel", "3"], [1, 2], (0.9, 0.95), 0, (5, 3), None),
    ):
        done = CliRunner().invoke(app, [*arguments, "--steps", "3", "--joint-steps", "1", "--json", *given])
        assert done.exit_code == 0, done.output
        assert "checking on 1 image\n" in done.stderr
        said = json.loads(done.stdout)
        config = load_model(out).model.config
        assert said["images"] == 5 and [d["layer"] for d in said["decisions"]] == layers
        assert config.thresholds == thresholds
        assert all(head.lens and (head.lens.hidden, head.lens.kernel) == lens for head in config.decisions)
        refined = config.refinement and (config.refinement.hidden, config.refinement.kernel)
        assert refined == refinement
        assert (config.merge, config.merge_cells) == ("--merge" in given, side)
        out.unlink()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dovit.training.adapt.run.distil", interrupt)
    assert CliRunner().invoke(app, arguments).exit_code != 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dense.safetensors", "photos"]


def test_a_model_with_token_pass_gets_another_in_a_folder_that_is_made(tmp_path: Path) -> None:
    import typer

    dense = dense_model()
    save_model(randomised(adapted_config(dense.config, Adaptation((1,), (0.5,)))), tmp_path / "before.safetensors")
    photos(tmp_path / "photos", dense, 3)
    app = typer.Typer()
    app.command()(command)
    given = ["--ckpt", str(tmp_path / "before.safetensors"), "--images", str(tmp_path / "photos")]
    out = tmp_path / "new" / "folder" / "adapted.pth"
    done = CliRunner().invoke(app, [*given, "--out", str(out), "--steps", "3", "--joint-steps", "0"])
    assert done.exit_code == 0, done.output
    words = "before.safetensors has token pass already (decision heads, lenses, corrections), which is left out"
    assert words in done.stderr
    assert [head.layer for head in load_model(out).model.config.decisions] == [1, 2]
