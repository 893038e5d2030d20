"""The accuracy of a precision is measured without a GPU, and a model that exceeds the bounds is refused."""

import gc
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import make_bundle
from installed import require
from models import randomised, small_config
from rich.console import Console

from dovit.engines.accuracy import BOUNDS, _older_objects_frozen, check_accuracy, measure_accuracy
from dovit.engines.add import Added, _measured, plan_builder
from dovit.engines.lowering.lower import lower_bundle
from dovit.engines.options import BuildOptions
from dovit.engines.scenes import street_scenes
from dovit.export.checkpoints import ReadOptions, load_model
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.bundle.plans import Accuracy, PlanSet, PlanStep, Precision
from dovit.runtime.bundle.write import copy_files, write_bundle
from dovit.runtime.cli.plan_tables import print_accuracy
from dovit.runtime.errors import DovitError
from dovit.runtime.loading import load
from dovit.runtime.progress import Progress

ASSET = Path(__file__).parents[2] / "assets" / "streets-tiny.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("trained")
    make_bundle(load_model(ASSET, ReadOptions()).model, folder)
    return open_bundle(folder)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_trained_model(precision: Precision, trained: Bundle) -> None:
    """Within the bounds, not exact, scored on the scenes' labels; float32's mIoU is what the session finds."""
    scenes = street_scenes(trained.manifest)
    found = measure_accuracy(trained, precision, scenes)
    check_accuracy(found, precision)
    assert set(found.differences) == {"stem", "block2", "block3", "block4", "decoder"} and found.scenes == 2
    eps = 2.0**-11 if precision == "fp16" else 2.0**-8
    assert all(eps / 4 < d < 32 * eps for d in found.differences.values()), found.differences
    assert 0.99 < found.label_agreement < 1 and all(0.98 < share <= 1 for share in found.kept_agreement)
    assert found.miou is not None and abs(found.miou[0] - found.miou[1]) < 1

    session = load(trained.root)
    hits = np.zeros((19, 19), np.int64)
    for scene in scenes:
        labels = session(scene.image).labels
        assert scene.labels is not None
        seen = scene.labels != 255
        np.add.at(hits, (scene.labels[seen], labels[seen]), 1)
    with np.errstate(invalid="ignore"):
        iou = np.diag(hits) / (hits.sum(0) + hits.sum(1) - np.diag(hits))
    assert found.miou[0] == pytest.approx(100 * np.nanmean(iou), abs=1e-6)


def test_a_model_that_overflows(tmp_path: Path) -> None:
    """Activations beyond 65504 in one block: fp16 is refused with the step's name, bf16 holds them."""
    model = randomised(small_config())
    with torch.no_grad():  # in the second block's MLP: out large, and back again
        layer = model.backbone.layers[2].mlp
        layer.fc1.weight.mul_(3e4)
        layer.fc2.weight.mul_(1 / 3e4)
    make_bundle(model, tmp_path)
    bundle = open_bundle(tmp_path)
    scenes = street_scenes(bundle.manifest, 1)
    found = measure_accuracy(bundle, "fp16", scenes)
    assert np.isinf(found.differences["block2"]) and np.isfinite(found.differences["stem"])
    with pytest.raises(
        DovitError, match="fp16 cannot hold the values of this model: block2 overflows; use --precision bf16"
    ):
        check_accuracy(found, "fp16")
    check_accuracy(measure_accuracy(bundle, "bf16", scenes), "bf16")
    assert not list(tmp_path.glob(".accuracy-*"))


def test_what_fp16_cannot_hold_stays_float32(tmp_path: Path) -> None:
    """The nodes around the large values, and no others: the model has fp16 plans, whose accuracy is that of fp16."""
    model = randomised(small_config())
    with torch.no_grad():
        layer = model.backbone.layers[2].mlp
        layer.fc1.weight.mul_(3e4)
        layer.fc2.weight.mul_(1 / 3e4)
    make_bundle(model, tmp_path)
    bundle = open_bundle(tmp_path)
    scenes = street_scenes(bundle.manifest, 1)
    accuracy, nodes = _measured(bundle, "fp16", scenes, lambda _: None)
    check_accuracy(accuracy, "fp16")
    assert {"layers.3.mlp.fc1", "layers.3.Gelu", "layers.3.mlp.fc2"} <= set(nodes)
    assert all(name.startswith("layers.3.") for name in nodes) and "layers.3.attn.qkv" not in nodes
    types = {
        node.name: np.dtype(node.inputs[0].dtype).name
        for step in lower_bundle(bundle, "fp16", float32_nodes=nodes)
        for node in step.graph.nodes
        if node.op == "MatMul" and ".mlp." in node.name
    }
    assert {name for name, dtype in types.items() if dtype == "float32"} == {"layers.3.mlp.fc1", "layers.3.mlp.fc2"}
    require("tensorrt_rtx")
    added = Added()
    build = plan_builder(BuildOptions("tensorrt-rtx", cache=None), lambda _: scenes, added)
    manifest = write_bundle(tmp_path, lambda stage: _rebuilt(bundle, stage, build))
    assert [plans.float32_nodes for plans in manifest.plans] == [nodes]


def _rebuilt(bundle: Bundle, stage: Path, build: Callable[[Bundle, Manifest | None, Progress], Manifest]) -> Manifest:
    copy_files(bundle, stage, bundle.manifest.files)
    return build(Bundle(stage, bundle.manifest), None, lambda *_: None)


def test_a_block_that_no_token_reaches_is_measured(tmp_path: Path) -> None:
    """At the bundle's ξ every token stops before the block that overflows, and at ξ = 1 every one meets it."""
    model = randomised(small_config(thresholds=(0.01, 0.01)))
    with torch.no_grad():
        layer = model.backbone.layers[2].mlp
        layer.fc1.weight.mul_(3e4)
        layer.fc2.weight.mul_(1 / 3e4)
    make_bundle(model, tmp_path)
    bundle = open_bundle(tmp_path)
    scenes = street_scenes(bundle.manifest, 1)
    assert not any(load(tmp_path)(scenes[0].image).kept)
    found = measure_accuracy(bundle, "fp16", scenes)
    assert set(found.differences) == {"stem", "block2", "block3", "decoder"}
    assert np.isinf(found.differences["block2"]) and np.isfinite(found.differences["stem"])
    with pytest.raises(DovitError, match="block2 overflows; use --precision bf16"):
        check_accuracy(found, "fp16")
    check_accuracy(measure_accuracy(bundle, "bf16", scenes), "bf16")


@pytest.mark.parametrize("frozen_before", [False, True])
def test_objects_that_the_caller_froze_stay_frozen(frozen_before: bool) -> None:
    gc.unfreeze()
    if frozen_before:
        gc.freeze()
    with _older_objects_frozen():
        assert gc.get_freeze_count() > 1000
    assert (gc.get_freeze_count() > 0) == frozen_before
    gc.freeze()


def test_a_dense_model_is_measured_once(tmp_path: Path) -> None:
    make_bundle(randomised(small_config(layers=())), tmp_path)
    bundle = open_bundle(tmp_path)
    heard: list[str] = []
    found = measure_accuracy(bundle, "fp16", street_scenes(bundle.manifest, 1), lambda text, _=None: heard.append(text))
    assert heard == ["float32, pass 1 of 1", "fp16, pass 1 of 1"]
    check_accuracy(found, "fp16")


def test_the_table_lists_every_part() -> None:
    """A part that was not measured is marked: in older bundles those that no token reached."""
    described = [
        PlanStep(name=name, step=name, kind="plan", inputs=(), outputs=()) for name in ("stem", "block2", "decoder")
    ]
    accuracy = Accuracy(
        scenes=2,
        lowering="",
        differences={"stem": 1e-3, "decoder": 2e-3},
        label_agreement=1.0,
        kept_agreement=(1.0,),
        miou=None,
    )
    plans = PlanSet(
        flavour="tensorrt-rtx",
        version="1",
        cuda=None,
        compute_capabilities=(),
        precision="fp16",
        batch=1,
        plugin_version=None,
        workspace_mib=None,
        optimisation_level=None,
        steps=tuple(described),
        accuracy=accuracy,
    )
    console = Console(record=True, width=160, file=io.StringIO())
    print_accuracy(console, plans)
    shown = console.export_text().splitlines()
    lines = [line for line in shown if any(p in line for p in ("stem", "block2", "decoder"))]
    assert [("1.0e-03" in line, "not measured" in line, "2.0e-03" in line) for line in lines] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_bounds() -> None:
    good = Accuracy(
        scenes=1,
        lowering="",
        differences={"stem": 1e-3, "block2": 2e-3},
        label_agreement=0.999,
        kept_agreement=(1.0,),
        miou=None,
    )
    check_accuracy(good, "fp16")
    far = good.model_copy(update={"differences": {"stem": 1e-3, "block2": 2 * BOUNDS["fp16"].difference}})
    with pytest.raises(
        DovitError, match=r"block2 differs by 6\.0e-02 of its largest value .bound 3e-02.; use --precision"
    ):
        check_accuracy(far, "fp16")
    with pytest.raises(DovitError, match=r"90\.00% of the labels agree .bound 97%"):
        check_accuracy(good.model_copy(update={"label_agreement": 0.9}), "fp16")
