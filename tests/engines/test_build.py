"""Plans from TensorRT-RTX's own builder, on a machine without a GPU."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

import onnx
import pytest
from bundles import make_bundle
from installed import require
from models import DECODERS, randomised, small_config
from onnx import TensorProto, helper

from dovit import plugins
from dovit.engines.build import BuiltPlans, build_plans
from dovit.engines.building.request import BuildReport, BuildRequest
from dovit.engines.building.workers import build_all
from dovit.engines.options import BuildOptions
from dovit.runtime.bundle.open import Bundle, open_bundle, sha256
from dovit.runtime.bundle.plans import Precision, Profile
from dovit.runtime.bundle.program import read_program
from dovit.runtime.errors import DovitError, UsageError

require("tensorrt_rtx")
RTX = BuildOptions("tensorrt-rtx", cache=None, jobs=1)  # a worker more starts for longer than it builds


def built(bundle: Bundle, folder: Path, options: BuildOptions = RTX) -> BuiltPlans:
    folder.mkdir(exist_ok=True)
    return build_plans(bundle, folder, options)


HEADS = {"setr-naive": "fcn", "setr-mla": "setr-k3", "segmenter-mask": "lens", "setr-pup": "corrected"}
ARCHITECTURES = [(decoder, HEADS.get(decoder, "conv"), None) for decoder in DECODERS]
ARCHITECTURES += [
    ("segmenter-linear-taps", "lens", "rotary-gated"),
    ("eomt", "conv", "registers"),
    ("eomt", "conv", "rotary"),
]
ARCHITECTURES += [("setr-mla", "fcn-cells", None), ("segmenter-linear", "corrected-cells", "rotary")]
ARCHITECTURES += [("segmenter-linear", "neighbours-cells", "rotary")]


@pytest.mark.parametrize(("decoder", "head", "family"), ARCHITECTURES)
def test_every_architecture_in_every_precision(decoder: str, head: str, family: str | None, tmp_path: Path) -> None:
    make_bundle(randomised(small_config(decoder, head=head, family=family)), tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    for precision in get_args(Precision):
        done = built(bundle, tmp_path / precision, replace(RTX, precision=precision))
        plans = [step.plan for step in done.plans.steps if step.plan]
        assert done.built == len(plans) == len(done.files) - 1 >= 4  # and the program
        manifest = bundle.manifest.model_copy(update={"files": done.files})
        assert read_program(Bundle(tmp_path / precision, manifest), done.plans).arena_bytes > 0
        for plan in plans:
            file = tmp_path / precision / plan.file
            assert file.stat().st_size == done.files[plan.file].size > 10_000
            assert sha256(file) == done.files[plan.file].sha256
            assert plan.layers and plan.network_layers > len(plan.layers) and plan.activation_bytes > 0
            # TensorRT must recognise every attention: its fused kernels are what makes plans fast
            assert plan.fused_attentions == plan.attentions
        layers = 6 + (2 if decoder == "segmenter-mask" else 0)
        assert sum(plan.attentions for plan in plans) == layers
        assert sum(plan.parameters for plan in plans) == sum(step.parameters for step in bundle.manifest.steps)
        assert not list((tmp_path / precision).glob(".lowered-*"))


def test_a_folder_whose_name_is_no_utf_8_is_refused(small_bundle: Bundle, tmp_path: Path) -> None:
    """As every name beyond ASCII is to Python in a plain C locale. It ended in an error of the request's JSON."""
    folder = tmp_path / os.fsdecode(b"b\xfcndel")
    with pytest.raises(DovitError, match=r"b\\udcfcndel.*stem\.plan: TensorRT takes names in UTF-8 alone"):
        built(small_bundle, folder)


def test_what_the_plan_set_says(small_bundle: Bundle, tmp_path: Path) -> None:
    options = replace(RTX, profiles=2, compute_capabilities=("8.9", "12.0"), workspace_mib=512, optimisation_level=2)
    plans = built(small_bundle, tmp_path, options).plans
    import tensorrt_rtx

    assert (plans.version, plans.cuda) == (tensorrt_rtx.__version__, 13)
    assert plans.compute_capabilities == ("8.9", "12.0") and plans.name == "tensorrt-rtx fp16"
    assert plans.workspace_mib == 512 and plans.optimisation_level == 2 and plans.batch == 1
    assert plans.user_allocation  # REQUIRE_USER_ALLOCATION, without which TensorRT-RTX allows no capture
    kinds = [(step.name, step.kind) for step in plans.steps]
    assert kinds == [
        ("stem", "plan"),
        ("decide1", "decide"),
        ("gather1", "gather"),
        ("block2", "plan"),
        ("decide2", "decide"),
        ("gather2", "gather"),
        ("block3", "plan"),
        ("sequence/reconstruct", "reconstruct"),
        ("decoder", "plan"),
        ("labels", "labels"),
    ]
    profiles = {step.name: step.plan.profiles for step in plans.steps if step.plan}
    assert profiles["stem"] == profiles["decoder"] == ()
    assert profiles["block2"] == (Profile(least=1, best=8, most=8), Profile(least=9, best=24, most=24))
    assert [spec.name for spec in plans.steps[2].inputs] == [
        "tokens1",
        "index0",
        "full0",
        "stopped_sum0",
        "stopped_count0",
        "keep1",
    ]


def test_a_batch_of_two(small_bundle: Bundle, tmp_path: Path) -> None:
    plans = built(small_bundle, tmp_path, replace(RTX, batch=2)).plans
    assert plans.steps[0].inputs[0].shape == (2, 64, 96, 3) and plans.steps[-1].outputs[0].shape[0] == 2


def test_the_cache(small_bundle: Bundle, tmp_path: Path) -> None:
    cached = replace(RTX, cache=tmp_path / "cache")
    first = built(small_bundle, tmp_path / "first", cached)
    again = built(small_bundle, tmp_path / "again", cached)
    assert (first.built, again.built) == (4, 0)
    assert again.files == first.files and again.plans == first.plans
    assert all((tmp_path / "again" / name).is_file() for name in again.files)

    changed = [
        {"precision": "bf16"},
        {"batch": 2},
        {"profiles": 2},
        {"compute_capabilities": ("8.9",)},
        {"workspace_mib": 256},
        {"optimisation_level": 1},
    ]
    for number, change in enumerate(changed):
        other = built(small_bundle, tmp_path / f"other{number}", replace(cached, **change))
        assert other.built == (2 if change == {"profiles": 2} else 4), change  # stem and decoder have no profile
    make_bundle(randomised(small_config(), seed=5), tmp_path / "weights", (0, 8, 16, 24))
    assert built(open_bundle(tmp_path / "weights"), tmp_path / "reweighted", cached).built == 4


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove", "garble", "key"])
def test_a_damaged_cache_is_built_again(harm: str, small_bundle: Bundle, tmp_path: Path) -> None:
    cached = replace(RTX, cache=tmp_path / "cache")
    first = built(small_bundle, tmp_path / "first", cached)
    decoder = next(step.plan.file for step in first.plans.steps if step.name == "decoder" and step.plan)
    digest = first.files[decoder].sha256
    plan = tmp_path / "cache" / f"{digest}.plan"
    key = next(file for file in (tmp_path / "cache").glob("*.json") if digest in file.read_text())
    if harm == "truncate":
        os.truncate(plan, 100)
    elif harm == "flip":
        content = bytearray(plan.read_bytes())
        content[5000] ^= 1
        plan.write_bytes(content)
    elif harm == "remove":
        plan.unlink()
    elif harm == "garble":
        key.write_text(key.read_text()[:40])
    else:
        key.write_text('{"sha256": "../../escape", "report": {"kind": "done"}}')
    again = built(small_bundle, tmp_path / "again", cached)
    assert again.built == 1
    assert sha256(tmp_path / "again" / decoder) == again.files[decoder].sha256


def test_two_builds_share_a_cache(small_bundle: Bundle, tmp_path: Path) -> None:
    cached = replace(RTX, cache=tmp_path / "cache", jobs=1)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda name: built(small_bundle, tmp_path / name, cached), ["one", "two"]))
    assert all(set(done.files) for done in both)
    third = built(small_bundle, tmp_path / "three", cached)
    assert third.built == 0
    for done, folder in zip([*both, third], ["one", "two", "three"], strict=True):
        for name, entry in done.files.items():
            assert sha256(tmp_path / folder / name) == entry.sha256
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_cache_that_cannot_be_made(small_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DovitError, match="give --cache another folder"):
        built(small_bundle, tmp_path, replace(RTX, cache=tmp_path / "file" / "cache"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_capabilities": ("9.0",)}, r"does not build for 9\.0: choose from 7\.5, 8\.0"),
        ({"timing_cache": Path("x")}, "times nothing when it builds"),
        ({"batch": 0}, "--batch 0: give 1 or more"),
        ({"optimisation_level": 6}, "give 0 to 5"),
        ({"profiles": 9}, "give 1 to 3"),
    ],
)
def test_invalid_options_are_refused(options: dict, message: str, small_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        built(small_bundle, tmp_path, replace(RTX, **options))


def _model(path: Path, op: str, domain: str = "", **attributes: object) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], domain=domain, **attributes)], "g", [x], [y])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("dovit", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def _request(path: Path, name: str = "part", **changes: object) -> BuildRequest:
    given = {"name": name, "flavour": "tensorrt-rtx", "onnx": str(path), "out": str(path.with_suffix(".plan"))}
    return BuildRequest.model_validate(given | changes)


def test_a_builder_that_cannot_or_that_dies(tmp_path: Path) -> None:
    """NonZero is refused; a custom node kills the builder's process, but not ours; a missing file is an error too."""
    _model(tmp_path / "refused.onnx", "NonZero")
    _model(tmp_path / "custom.onnx", "TokenDecide", "dovit")
    with pytest.raises(DovitError, match=r"tensorrt-rtx cannot build part: .*(NonZero|INonZero)"):
        build_all([_request(tmp_path / "refused.onnx")], 1, lambda *_: None)
    with pytest.raises(DovitError, match=r"tensorrt-rtx cannot build part: .+"):
        build_all([_request(tmp_path / "custom.onnx")], 1, lambda *_: None)
    with pytest.raises(DovitError, match=r"tensorrt-rtx cannot build part: .+"):
        build_all([_request(tmp_path / "missing.onnx")], 1, lambda *_: None)


def test_a_full_disk(tmp_path: Path) -> None:
    _model(tmp_path / "good.onnx", "Relu")
    with pytest.raises(DovitError, match="cannot build part: the disk is full; free some space"):
        build_all([_request(tmp_path / "good.onnx", out="/dev/full")], 1, lambda *_: None)


def test_one_failure_ends_the_others(tmp_path: Path) -> None:
    _model(tmp_path / "good.onnx", "Relu")
    _model(tmp_path / "bad.onnx", "NonZero")
    requests = [_request(tmp_path / "bad.onnx", "bad")]
    requests += [_request(tmp_path / "good.onnx", f"good{k}", out=str(tmp_path / f"{k}.plan")) for k in range(6)]
    before = _workers()
    with pytest.raises(DovitError, match="cannot build bad"):
        build_all(requests, 2, lambda *_: None)
    assert _workers() <= before


def test_a_worker_that_is_killed_for_memory(tmp_path: Path) -> None:
    _model(tmp_path / "good.onnx", "Relu")
    before = _workers()

    def kill() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for pid in _workers() - before:
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.005)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(DovitError, match="was killed, most likely because memory ran out: try --jobs 1"):
        build_all([_request(tmp_path / "good.onnx")], 1, lambda *_: None)
    killer.join()


def _workers() -> set[int]:
    """Our child processes that build."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if b"dovit.engines.building.worker" in (entry / "cmdline").read_bytes():
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == os.getpid():
                    found.add(int(entry.name))
        except (OSError, ValueError, IndexError):
            continue
    return found


def test_full_tensorrts_branch_against_rtxs_interface(tmp_path: Path) -> None:
    """TensorRT cannot be installed everywhere: what is called of it alone is called of RTX here, whose interface is the same.
    Only the timing cache is left out, for which RTX needs a GPU. The plan carries the plugin library."""
    _model(tmp_path / "good.onnx", "Relu")
    library = plugins.library()
    if library is None:
        pytest.skip(f"left out: {plugins.left_out()}")
    request = _request(tmp_path / "good.onnx", flavour="tensorrt", plugin_library=str(library), workspace_mib=64)
    command = [sys.executable, "-m", "dovit.engines.building.worker", "tensorrt-rtx"]
    done = subprocess.run(command, input=request.model_dump_json() + "\n", capture_output=True, text=True, timeout=300)
    reports = [BuildReport.model_validate_json(line) for line in done.stdout.splitlines()]
    assert [report.kind for report in reports[:-1]] == ["progress"] * (len(reports) - 1) and len(reports) > 1
    assert reports[-1].kind == "done", reports[-1].error
    assert Path(request.out).stat().st_size > library.stat().st_size


def test_tensorrt_rtx_refuses_the_attention_operator_in_fp32(tmp_path: Path) -> None:
    """Opset 23 has attention as one operator. TensorRT-RTX takes it in fp16 and refuses it in fp32, while it recognises
    the decomposed form in every precision (above): so that is the form that plans are built from."""

    def model(dtype: int) -> Path:
        shape = [1, 2, "n", 64]
        q, k, v, out = (helper.make_tensor_value_info(name, dtype, shape) for name in ("q", "k", "v", "out"))
        node = helper.make_node("Attention", ["q", "k", "v"], ["out"])
        graph = helper.make_graph([node], "attention", [q, k, v], [out])
        file = tmp_path / f"attention{dtype}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), file)
        return file

    profile = {name: ((1, 2, 1, 64), (1, 2, 100, 64), (1, 2, 100, 64)) for name in "qkv"}
    [report] = build_all([_request(model(TensorProto.FLOAT16), profiles=[profile])], 1, lambda *_: None)
    assert report.kind == "done"
    with pytest.raises(DovitError, match="cannot build part"):
        build_all([_request(model(TensorProto.FLOAT), profiles=[profile])], 1, lambda *_: None)
