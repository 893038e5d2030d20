"""Our lowering beside NVIDIA ModelOpt's AutoCast, on the same float32 parts: `python -m dovit.benchmarks.autocast FOLDER`.

Every architecture in miniature, one with activations beyond float16, two decoders of real width, the trained model in assets/.
Both ways' ONNX files are built by TensorRT-RTX (without a GPU) and emulated alike. Prints a table, writes FOLDER/autocast.json.
"""

from __future__ import annotations

import collections
import importlib
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from dovit.engines.accuracy import Scene
from dovit.engines.building.request import BuildReport, BuildRequest
from dovit.engines.building.workers import build_all
from dovit.engines.lowering.emulate import emulate
from dovit.engines.lowering.files import write_part
from dovit.engines.lowering.lower import lower_bundle
from dovit.engines.lowering.precision import LOW_TYPES, NORMS
from dovit.engines.profiles import is_dynamic, profile_shapes, split_profiles
from dovit.engines.scenes import FIRST, street_scenes
from dovit.export.model import config
from dovit.export.run import export
from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.bundle.plans import PlanStep, Precision
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.chain import Chain, ChainResult
from dovit.runtime.engine import OnnxRuntimeEngine
from dovit.runtime.errors import DovitError
from dovit.runtime.session import decision_maps
from dovit.training.streets import scene

ROOT = Path(__file__).resolve().parents[1]
INSTALL = "pip install --no-deps nvidia-modelopt onnxslim lief nvidia-ml-py tqdm"  # its [onnx] extra wants another ONNX Runtime
COMPARED, CALIBRATION = 8, 2  # scenes

Options = dict[str, Any]
RULES: Options = {  # what AutoCast can be told of our rules: norms, softmax over classes and pixel values in float32
    "op_types_to_exclude": sorted(NORMS),
    "nodes_to_exclude": [r"head\d+\.(Softmax|ReduceMax|GatherElements)", r"embed\.(Sub|Div)"],
}
WAYS: dict[str, Options | None] = {
    "dovit": None,
    "autocast without data": {"calibrate": False},
    "autocast": {},
    "autocast, float32 io": {"keep_io_types": True},
    "autocast, float32 io, told": {"keep_io_types": True, **RULES},
}


COLUMNS = (
    "model", "precision", "way", "plans made", "built", "attentions fused", "network layers", "casts", "scratch MB",
    "inputs and outputs of another type than ours", "worst difference", "confidence", "logits", "labels equal",
    "tokens kept alike", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A bundle, what float32 makes of its scenes, and the ONNX files of its float32 plans."""

    bundle: Bundle
    chain: Chain
    scenes: list[Scene]
    results: list[ChainResult]
    plans: dict[str, tuple[PlanStep, Path]]


def main() -> None:
    """See above."""
    if util.find_spec("modelopt") is None:
        sys.exit(f"AutoCast is a part of NVIDIA ModelOpt, which is not installed here: {INSTALL}")
    if len(sys.argv) != 2 or not (ROOT / "tests").is_dir():
        sys.exit("usage, in a checkout, whose tests have the models: python -m dovit.benchmarks.autocast FOLDER")
    G_LOGGER.severity = G_LOGGER.ERROR  # it warns of every bfloat16 that is read
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    with TemporaryDirectory() as scratch, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as autocast:
        for name, bundle in _bundles(Path(scratch)):
            subject = _subject(bundle, Path(scratch) / name)
            for precision in LOW_TYPES:
                for way, options in WAYS.items():
                    row = _measure(subject, precision, options, Path(scratch) / name, autocast)
                    rows.append({"model": name, "precision": precision, "way": way, **row})
                    print(_line(rows[-1]), flush=True)
    packages = ("nvidia-modelopt", "onnx", "onnxruntime", "onnx-graphsurgeon", "tensorrt-rtx-cu13")
    ratios = {f"{way}, {p}": _ratio(rows, p, way) for p in LOW_TYPES for way in WAYS}
    print("", *(f"{key}: {value:.2f} of dovit's rms" for key, value in ratios.items()), sep="\n")
    report = {"versions": {p: _version(p) for p in packages}, "scenes": COMPARED, "rms_ratios": ratios, "rows": rows}
    (out / "autocast.json").write_text(json.dumps(report, allow_nan=False) + "\n")


def _bundles(folder: Path) -> Iterator[tuple[str, Bundle]]:
    sys.path.insert(0, str(ROOT / "tests"))
    small, bundles = importlib.import_module("models"), importlib.import_module("bundles")
    import torch

    def made(name: str, model: Any) -> tuple[str, Bundle]:
        bundles.make_bundle(model, folder / name / "bundle")
        return name, open_bundle(folder / name / "bundle")

    def configured(kind: str, **changes: Any) -> Any:
        model = small.randomised(small.small_config(kind, **changes))
        images = torch.from_numpy(np.stack([scene(FIRST + k, *model.config.image_size)[0] for k in range(COMPARED)]))
        return small.small_config(kind, **changes, thresholds=small.spreading_thresholds(model, images))

    for decoder in small.DECODERS:
        yield made(decoder, small.randomised(configured(decoder)))
    yield made("setr-naive, fcn heads", small.randomised(configured("setr-naive", head="fcn")))
    model = small.randomised(configured("setr-naive"))
    with torch.no_grad():  # about the same model but for the values between two products, which float16 cannot hold
        mlp = model.backbone.layers[2].mlp
        mlp.fc1.weight *= 1e5
        mlp.fc1.bias *= 1e5
        mlp.fc2.weight /= 1e5
    yield made("setr-naive, large values", model)
    wide = {"embed_dim": 384, "image_size": (512, 512), "classes": 19}
    mla = config.SetrMlaDecoder(taps=(1, 3, 5, 6), channels=256, head_channels=128)
    yield made("setr-mla, 512×512", small.randomised(configured("setr-mla", decoder=mla, **wide)))
    mask = config.SegmenterMaskDecoder(embed_dim=384, layers=2, heads=6, mlp_dim=1536)
    yield made("segmenter-mask, 512×512", small.randomised(configured("segmenter-mask", decoder=mask, **wide)))
    trained = folder / "streets-tiny" / "bundle"
    export(ROOT / "assets/streets-tiny.safetensors", trained, {}, None, None, check=False)
    yield "streets-tiny", open_bundle(trained)


def _subject(bundle: Bundle, folder: Path) -> Subject:
    plans, engines, described = {}, [], []
    for step in lower_bundle(bundle, "fp32"):
        file = folder / f"{step.described.name.replace('/', '-')}.onnx"
        write_part(step.graph, file)
        engines.append(OnnxRuntimeEngine(step.described.name, file, prepack=False))
        described.append(step.described)
        if step.described.kind == "plan":
            plans[step.described.name] = step.described, file
    chain = Chain(bundle.manifest, engines, described)
    scenes = list(street_scenes(bundle.manifest, COMPARED + CALIBRATION))
    results = [_pass(chain, s, keep_tensors=True) for s in scenes]
    for name, (plan, _) in plans.items():  # the last scenes calibrate: nothing is compared on them
        (folder / "data" / name).mkdir(parents=True)
        for number, (s, result) in enumerate(zip(scenes[COMPARED:], results[COMPARED:], strict=True)):
            known = _known(s, result)
            if all(spec.name in known for spec in plan.inputs):
                fed: dict[str, Any] = {spec.name: known[spec.name] for spec in plan.inputs}
                np.savez(folder / "data" / name / f"{number}.npz", **fed)
    return Subject(bundle, chain, scenes[:COMPARED], results[:COMPARED], plans)


def _measure(
    subject: Subject, precision: Precision, options: Options | None, folder: Path, autocast: ProcessPoolExecutor
) -> dict[str, Any]:
    """Every plan of `subject` in `precision`: how it was made, what the builder says, how far from float32 it is."""
    start = time.perf_counter()
    lowered = {step.described.name: step for step in lower_bundle(subject.bundle, precision)}
    share = (time.perf_counter() - start) / len(subject.plans)  # all plans are lowered at once
    engines: dict[str, OnnxRuntimeEngine] = {}
    plans: list[dict[str, Any]] = []
    for name, (_, source) in subject.plans.items():
        file = folder / f"{name}-low.onnx"
        plan: dict[str, Any] = {"name": name}
        plans.append(plan)
        start = time.perf_counter()
        try:
            if options is None:
                write_part(lowered[name].graph, file)
                plan["seconds"] = share + time.perf_counter() - start
            else:
                plan["seconds"] = autocast.submit(_autocast, source, file, precision, options).result()
        except Exception as error:
            plan["error"] = _first_line(error)
            continue
        plan |= _facts(file, lowered[name].described) | _build(subject.bundle, lowered[name].described, file)
        engines[name] = _emulated(file, name)
        plan["differences"] = _differences(subject, lowered[name].described, engines[name], plan["types"])
    row: dict[str, Any] = {"plans": plans}
    if len(engines) == len(plans):
        row |= _agreement(subject, precision if not (options or {}).get("keep_io_types") else "fp32", engines)
    return row


def _autocast(source: Path, file: Path, precision: Precision, options: Options) -> float:
    """In a process of its own: it wants other settings of ONNX Runtime. Returns seconds, without those of the import."""
    from modelopt.onnx.autocast import convert_to_mixed_precision
    from modelopt.onnx.autocast.logging_config import configure_logging

    configure_logging("CRITICAL")
    told = dict(options)
    data = str(source.parent / "data" / source.stem) if told.pop("calibrate", True) else None
    start = time.perf_counter()
    try:
        model = convert_to_mixed_precision(str(source), precision, calibration_data=data, **told)
    except Exception as error:  # some cannot be pickled
        raise RuntimeError(_first_line(error)) from None
    onnx.save(model, file)
    return time.perf_counter() - start


def _facts(file: Path, wanted: PlanStep) -> dict[str, Any]:
    """Types of inputs and outputs, where they are not as our runtime has them, and what is computed in which type."""
    model = onnx.shape_inference.infer_shapes(onnx.load(file))
    graph = model.graph
    types = {v.name: _type(v.type.tensor_type.elem_type) for v in (*graph.value_info, *graph.input, *graph.output)}
    types |= {tensor.name: _type(tensor.data_type) for tensor in graph.initializer}
    ops: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    casts = 0
    for node in graph.node:
        made = types.get(node.output[0], "unknown")
        if node.op_type == "Cast" and {types.get(node.input[0]), made} <= {"float32", "float16", "bfloat16"}:
            casts += 1
        elif made in ("float32", "float16", "bfloat16", "unknown"):
            ops[made][node.op_type] += 1
    interface = {v.name: types[v.name] for v in (*graph.input, *graph.output)}
    other = [s.name for s in (*wanted.inputs, *wanted.outputs) if interface[s.name] != s.dtype]
    return {
        "types": interface, "other_types": other, "casts": casts, "opset": model.opset_import[0].version,
        "ops": {made: dict(sorted(counts.items())) for made, counts in ops.items()},
    }  # fmt: skip


def _build(bundle: Bundle, step: PlanStep, file: Path) -> dict[str, Any]:
    manifest = bundle.manifest
    (profile,) = split_profiles(manifest.capacities, manifest.tokens, 1)
    shapes = (profile_shapes(manifest, step, profile),) if is_dynamic(step) else ()
    request = BuildRequest(
        name=step.name, flavour="tensorrt-rtx", onnx=str(file), out=str(file.with_suffix(".plan")), profiles=shapes
    )
    try:
        (report,) = build_all([request], 1, lambda _name, _fraction: None)
    except DovitError as error:
        return {"build_error": _first_line(error)}
    kept = {"network_layers", "attentions", "fused_attentions", "weight_bytes", "activation_bytes"}
    return {**report.model_dump(include=kept & set(BuildReport.model_fields)), "engine_layers": len(report.layers)}


def _emulated(file: Path, name: str) -> OnnxRuntimeEngine:
    graph = gs.import_onnx(onnx.shape_inference.infer_shapes(onnx.load(file)))
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant):
            np.asarray(tensor.values)  # read, it says its type in numpy's terms
        elif tensor.dtype == onnx.TensorProto.BFLOAT16:
            tensor.dtype = np.dtype(ml_dtypes.bfloat16)
    emulate(graph)
    emulated = file.with_name(f"{file.stem}-emulated.onnx")
    write_part(graph, emulated)
    return OnnxRuntimeEngine(name, emulated, prepack=False)  # as in the accuracy check of dovit-export


def _differences(
    subject: Subject, step: PlanStep, engine: OnnxRuntimeEngine, types: dict[str, str]
) -> dict[str, dict[str, float | None]]:
    """Per output the largest difference from float32, relative to its largest value, and the root mean square of all,
    relative to that of the values; None where it is not finite. Fed with what float32 feeds it, in the type that it reads."""
    largest: dict[str, float] = collections.defaultdict(float)
    squares: dict[str, np.ndarray] = collections.defaultdict(lambda: np.zeros(2))
    for s, result in zip(subject.scenes, subject.results, strict=True):
        known = _known(s, result)
        if any(spec.name not in known for spec in step.inputs):
            continue
        fed = {spec.name: known[spec.name] for spec in step.inputs}
        fed = {n: a if a.dtype != np.float32 else a.astype(types[n]).astype(np.float32) for n, a in fed.items()}
        made = engine.run(fed, dict.fromkeys(spec.name for spec in step.outputs))
        for output, array in made.items():
            if array.dtype == np.float32 and output in known:
                off, exact = np.float64(array) - known[output], np.float64(known[output])
                largest[output] = np.maximum(
                    largest[output], np.abs(off).max(initial=0) / (np.abs(exact).max(initial=0) or 1)
                )
                squares[output] += (off**2).sum(), (exact**2).sum()
    found = {n: {"largest": v, "rms": float(np.sqrt(squares[n][0] / (squares[n][1] or 1)))} for n, v in largest.items()}
    return {n: {key: float(v) if np.isfinite(v) else None for key, v in d.items()} for n, d in found.items()}


def _agreement(subject: Subject, between: Precision, engines: dict[str, OnnxRuntimeEngine]) -> dict[str, Any]:
    """Passes of their own from image to labels; the token pass works in the type `between` the plans."""
    manifest = subject.bundle.manifest
    steps, all_engines = [], []
    with TemporaryDirectory() as scratch:
        for number, step in enumerate(lower_bundle(subject.bundle, between)):
            engine = engines.get(step.described.name)
            if engine is None:
                if between != "fp32":
                    emulate(step.graph)
                write_part(step.graph, Path(scratch) / f"{number}.onnx")
                engine = OnnxRuntimeEngine(step.described.name, Path(scratch) / f"{number}.onnx", prepack=False)
            all_engines.append(engine)
            steps.append(step.described.model_copy(
                update={"inputs": _widened(step.described.inputs), "outputs": _widened(step.described.outputs)}
            ))  # fmt: skip
        chain = Chain(manifest, all_engines, steps)
        labels, kept = [], []
        for s, reference in zip(subject.scenes, subject.results, strict=True):
            made = _pass(chain, s)
            labels.append(float((made.labels == reference.labels).mean()))
            maps = [decision_maps(r.decisions, manifest.tokens, len(manifest.decisions))[0] for r in (made, reference)]
            kept.append(float((maps[0] == maps[1]).mean()))
    return {"labels_equal": float(np.mean(labels)), "kept_equal": float(np.mean(kept))}


def _pass(chain: Chain, s: Scene, *, keep_tensors: bool = False) -> ChainResult:
    every = range(chain.manifest.tokens + 1)
    return chain.run(s.image[None], chain.manifest.thresholds, every, keep_tensors=keep_tensors)


def _known(s: Scene, result: ChainResult) -> dict[str, np.ndarray]:
    return {**result.tensors, "image": s.image[None], "logits": result.logits}


def _widened(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    low = {dtype.name for dtype in LOW_TYPES.values()}
    return tuple(s.model_copy(update={"dtype": "float32"}) if s.dtype in low else s for s in specs)


def _ratio(rows: list[dict[str, Any]], precision: Precision, way: str) -> float:
    """The geometric mean, over all outputs of all plans that both ways have, of this way's rms difference over ours."""
    of: dict[str, dict[tuple[str, ...], float]] = collections.defaultdict(dict)
    for row in rows:
        for plan in row["plans"] if row["precision"] == precision else ():
            for output, found in plan.get("differences", {}).items():
                if found["rms"]:
                    of[row["way"]][row["model"], plan["name"], output] = found["rms"]
    return float(np.exp(np.mean([np.log(of[way][k] / of["dovit"][k]) for k in of[way].keys() & of["dovit"].keys()])))


def _type(number: int) -> str:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number)).name if number else "unknown"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _line(row: dict[str, Any]) -> str:
    """One row of a Markdown table."""
    plans = [p for p in row["plans"] if "error" not in p]

    def total(key: str) -> int:
        return sum(p.get(key, 0) for p in plans)

    def worst(prefix: str) -> str:
        seen = [d["largest"] for p in plans for n, d in p["differences"].items() if n.startswith(prefix)]
        return "∞" if None in seen else f"{max(seen):.1e}" if seen else "-"

    def share(key: str) -> str:
        return f"{row[key]:.2%}" if key in row else "-"

    cells = [
        row["model"], row["precision"], row["way"], f"{len(plans)}/{len(row['plans'])}",
        f"{sum('network_layers' in p for p in plans)}", f"{total('fused_attentions')}/{total('attentions')}",
        f"{total('network_layers')}", f"{total('casts')}", f"{total('activation_bytes') / 1e6:.1f}",
        f"{sum(len(p['other_types']) for p in plans)}", worst(""), worst("confidence"), worst("logits"),
        share("labels_equal"), share("kept_equal"), f"{sum(p['seconds'] for p in plans):.2f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
