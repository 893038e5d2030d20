"""What a run may start from: segmenters without decision heads, an EoMT, backbones, and models without merging or by cell."""

from pathlib import Path

import pytest
import torch
from installed import require
from models import random_images, randomised
from street_runs import READ, street_config, trained

from dovit.export.checkpoints import ReadOptions, load_model, save_model
from dovit.export.model import ModelConfig
from dovit.export.run import export
from dovit.runtime.bundle.open import read_manifest
from dovit.runtime.errors import UsageError
from dovit.training.cli.adapt import default_layers
from dovit.training.run import StartingPoint, run
from dovit.training.settings import Settings


def test_missing_heads_are_added(tmp_path: Path) -> None:
    """A plain segmenter becomes a DoViT with heads after the paper's layers, a norm and a 1×1 convolution, or the
    convolution alone; at ξ = 1 it is still the segmenter it was."""
    dense = randomised(street_config(layers=()))
    save_model(dense, tmp_path / "plain.pth")
    images = random_images(dense.config)
    for asked, made in ((None, True), (True, True), (False, False)):
        out = tmp_path / str(asked)
        trained(out, tmp_path / "plain.pth", {"head_norm": asked}, heads_only=True)
        model = load_model(out / "model.safetensors").model
        heads = [(head.layer, head.num_convs, head.norm) for head in model.config.decisions]
        assert heads == [(1, 0, made), (2, 0, made), (3, 0, made)]
        with torch.no_grad():
            torch.testing.assert_close(model(images, (1, 1, 1)).logits, dense(images).logits)
    with pytest.raises(UsageError, match=r"--no-head-norm is for decision heads that are added.*with one"):
        trained(tmp_path / "again", tmp_path / "None" / "model.safetensors", {"head_norm": False})
    with pytest.raises(UsageError, match=r"--head-norm is for decision heads that are added.*without one"):
        trained(tmp_path / "again", tmp_path / "False" / "model.safetensors", {"head_norm": True})


def test_a_norm_makes_heads_of_small_tokens_learn(tmp_path: Path) -> None:
    """DINOv2's early layers have small tokens: a convolution alone hardly learns from them in a few steps."""
    dense = randomised(street_config(layers=()))
    for module in [dense.backbone.patch_embed, *(layer.attn.proj for layer in dense.backbone.layers)]:
        module.weight.data *= 0.01
        module.bias.data *= 0.01
    for layer in dense.backbone.layers:
        for parameter in layer.mlp.fc2.parameters():
            parameter.data *= 0.01
    for tokens in (dense.backbone.pos_embed, dense.backbone.prefix):
        tokens.data *= 0.01
    save_model(dense, tmp_path / "plain.pth")
    settings = {"heads_only": True, "steps": 30, "lr": 0.01}
    normed, plain = (
        trained(tmp_path / str(norm), tmp_path / "plain.pth", {"head_norm": norm}, **settings)[-1]["head1"]
        for norm in (True, False)
    )
    assert normed < plain - 0.3


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


def test_an_eomt_is_no_teacher(tmp_path: Path, checkpoint: Path) -> None:
    """Its output is sums of probabilities, of which a softmax is no distribution that it means."""
    save_model(randomised(street_config("eomt", layers=())), tmp_path / "eomt.safetensors")
    start = StartingPoint(checkpoint=checkpoint, teacher=tmp_path / "eomt.safetensors", read=READ)
    with pytest.raises(UsageError, match=r"--teacher .*eomt\.safetensors is an EoMT, .* give a segmenter with another"):
        run(start, lambda gpu: Settings(steps=1), "streets:4", tmp_path / "out", device="cpu", workers=0)


@pytest.mark.parametrize("depth", [4, 8])
def test_an_eomt_whose_queries_join_early(tmp_path: Path, depth: int) -> None:
    """With layers of the paper's in front of them, or with none of those, then a decision follows the last that one may."""
    save_model(randomised(early_joining(depth, 1)), tmp_path / "plain.safetensors")
    trained(tmp_path / "out", tmp_path / "plain.safetensors", heads_only=True)
    model = load_model(tmp_path / "out" / "model.safetensors").model
    assert [head.layer for head in model.config.decisions] == [1]
    assert default_layers(model.config) == (1,)


def test_an_eomt_whose_queries_join_before_all_layers(tmp_path: Path) -> None:
    save_model(randomised(early_joining(4, 0)), tmp_path / "plain.safetensors")
    with pytest.raises(UsageError, match="this EoMT's queries join before the first layer"):
        trained(tmp_path / "out", tmp_path / "plain.safetensors", heads_only=True)


def early_joining(depth: int, layer: int) -> ModelConfig:
    """An EoMT whose queries join before `layer`, from 0."""
    config = street_config("eomt", layers=(), depth=depth)
    return config.model_copy(update={"decoder": config.decoder.model_copy(update={"blocks": depth - layer})})


def test_training_from_a_backbone(tmp_path: Path) -> None:
    """timm's keys: no decoder, no heads; both are made. The classes come from the data."""
    timm_backbone(tmp_path / "vit.pth")
    read = {"arch": "segmenter-linear", "image_size": (64, 96), "classes": 19}
    with pytest.raises(UsageError, match="a backbone without a decoder, which would stay as it was initialised"):
        trained(tmp_path / "heads", tmp_path / "vit.pth", read, heads_only=True)
    trained(tmp_path / "out", tmp_path / "vit.pth", read)
    model = load_model(tmp_path / "out" / "model.safetensors").model
    assert model.config.classes == 19 and len(model.heads) == 3 and model.config.image_size == (64, 96)


def timm_backbone(file: Path) -> None:
    """A backbone of four layers under timm's keys."""
    donor = randomised(street_config())
    state = {}
    for name, value in donor.backbone.state_dict().items():
        state[name.replace("layers.", "blocks.").replace("patch_embed.", "patch_embed.proj.")] = value
    positions, prefix = state.pop("pos_embed"), state.pop("prefix")
    square = torch.nn.functional.pad(positions, (0, 0, 0, 1))[:25]
    state |= {"cls_token": prefix[None], "pos_embed": torch.cat([torch.zeros(1, 32), square])[None]}
    state |= {"norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)}
    torch.save(state, file)


@pytest.mark.parametrize(
    ("arch", "layers", "taps"),
    [("segmenter-linear", (1, 2, 4), (1, 2)), ("segmenter-linear", (4,), ()), ("setr-mla", (2, 4), (2,))],
)
def test_a_new_decoder_reads_the_layers_that_are_given(
    arch: str, layers: tuple[int, ...], taps: tuple[int, ...], tmp_path: Path
) -> None:
    """And what training saves computes what the parts of the model compute: the layers' outputs, each through the final norm,
    joined in front of the convolution."""
    timm_backbone(tmp_path / "vit.pth")
    read = {"arch": arch, "image_size": (64, 96), "classes": 19, "decoder_layers": layers}
    trained(tmp_path / "out", tmp_path / "vit.pth", read)
    model = load_model(tmp_path / "out" / "model.safetensors").model
    assert model.config.taps == taps
    if arch == "segmenter-linear":
        images = random_images(model.config)
        with torch.no_grad():
            x, read_by_decoder = model.embed(images), []
            for number, layer in enumerate(model.backbone.layers, start=1):
                x = layer(x)
                if number in layers:
                    read_by_decoder.append(model.backbone.norm(x[:, 1:]))
            joined = torch.cat(read_by_decoder, dim=2)  # [B, N, levels·E]
            weight = model.decoder.classify.weight[:, :, 0, 0]
            expected = joined @ weight.T + model.decoder.classify.bias
            logits = model(images, (1.0, 1.0, 1.0)).logits
        torch.testing.assert_close(logits.flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "layers", "words"),
    [
        (
            "segmenter-linear",
            (1, 2),
            "--decoder-layers 1,2: a decoder also reads the last layer, 4: give it as the last",
        ),
        ("segmenter-linear", (2, 1, 4), "--decoder-layers 2,1,4: the layers do not ascend; give each once"),
        ("segmenter-linear", (0, 4), "--decoder-layers 0,4: the backbone has the layers 1 to 4"),
        ("segmenter-linear", (2, 2, 4), "the layers do not ascend"),
        ("setr-mla", (2, 5), "--decoder-layers 2,5: the backbone has the layers 1 to 4"),
        ("segmenter-mask", (2, 4), "--arch segmenter-mask reads the last layer alone"),
        ("setr-naive", (4,), "--arch setr-naive reads the last layer alone"),
    ],
)
def test_layers_that_a_decoder_cannot_read(arch: str, layers: tuple[int, ...], words: str, tmp_path: Path) -> None:
    timm_backbone(tmp_path / "vit.pth")
    read = {"arch": arch, "image_size": (64, 96), "classes": 19, "decoder_layers": layers}
    with pytest.raises(UsageError, match=words):
        trained(tmp_path / "out", tmp_path / "vit.pth", read)


@pytest.mark.parametrize("layers", [(0, 2), (2, 4), (2, 2), (2, 1), (99,)])
def test_decision_layers_that_a_model_cannot_have(layers: tuple[int, ...], tmp_path: Path) -> None:
    """In the words of dovit-adapt."""
    save_model(randomised(street_config(layers=())), tmp_path / "plain.safetensors")
    given = ",".join(map(str, layers))
    words = f"--decision-layers {given}: give ascending layers from 1 to 3; the model has 4"
    with pytest.raises(UsageError, match=words):
        trained(tmp_path / "out", tmp_path / "plain.safetensors", {"decision_layers": layers})


def test_thresholds_for_a_configuration_without_decisions(tmp_path: Path) -> None:
    (tmp_path / "dense.json").write_text(street_config(layers=()).model_dump_json())
    start = StartingPoint(config=tmp_path / "dense.json", read={**READ, "thresholds": (0.9,)})
    with pytest.raises(UsageError, match="--threshold: the model has no decisions"):
        run(start, lambda gpu: Settings(steps=1), "streets:4", tmp_path / "out", device="cpu", workers=0)


def test_a_backbone_asks_for_what_is_not_said(tmp_path: Path) -> None:
    """The data say the classes."""
    timm_backbone(tmp_path / "vit.pth")
    with pytest.raises(UsageError, match="a backbone alone: say --arch for the segmenter"):
        trained(tmp_path / "out", tmp_path / "vit.pth", {"arch": None, "image_size": (64, 96)})
    with pytest.raises(UsageError, match="a backbone alone: say --arch and --classes for"):
        load_model(tmp_path / "vit.pth", ReadOptions(untrained=True))
    with pytest.raises(UsageError, match="a backbone alone: say --classes for"):
        load_model(tmp_path / "vit.pth", ReadOptions(untrained=True, arch="setr-naive"))


def test_layers_for_a_model_that_has_a_decoder(tmp_path: Path) -> None:
    save_model(randomised(street_config()), tmp_path / "plain.safetensors")
    with pytest.raises(UsageError, match=r"for a backbone alone, and .*plain.safetensors holds a decoder"):
        trained(tmp_path / "out", tmp_path / "plain.safetensors", {"decoder_layers": (2, 4)})


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
