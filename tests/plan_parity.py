"""The plans of a bundle against ONNX Runtime on the same lowered graphs, by Polygraphy's comparator; for a GPU.

Run as a program, because Polygraphy reads which flavour it serves when it is imported:
    python plan_parity.py BUNDLE tensorrt-rtx COUNT…      prints one JSON line for every plan and token count
Instead of a flavour: `same` or `spoiled`, ONNX Runtime in the plans' place, with the same weights or with others.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dovit.engines.lowering.files import write_part
from dovit.engines.lowering.lower import lower_bundle
from dovit.engines.profiles import is_dynamic
from dovit.runtime.bundle.dimensions import kept_dims
from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.bundle.plans import PlanSet, PlanStep

# (plan's path, its lowered ONNX file) → a Polygraphy runner
RunnerFor = Callable[[Path, Path], Any]


def compare(bundle: Bundle, plans: PlanSet, counts: list[int], runner_for: RunnerFor) -> list[dict[str, Any]]:
    """Largest difference of each plan from ONNX Runtime, relative to the largest value, at every token count."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.comparator import Comparator

    found = []
    with TemporaryDirectory() as scratch:
        for step, lowered in zip(plans.steps, lower_bundle(bundle, plans.precision), strict=True):
            if step.plan is None:
                continue
            file = Path(scratch) / f"{step.name}.onnx"
            write_part(lowered.graph, file)
            for count in counts if is_dynamic(step) else counts[-1:]:
                runners = [
                    OnnxrtRunner(SessionFromOnnx(str(file)), name="reference"),
                    runner_for(bundle.path(step.plan.file), file),
                ]
                results = Comparator.run(runners, data_loader=[feed(bundle, step, count)])
                (_, [reference]), (_, [made]) = list(results.items())
                worst = max(_difference(made[name], reference[name]) for name in reference)
                found.append({"plan": step.name, "tokens": count, "difference": worst})
    return found


def feed(bundle: Bundle, step: PlanStep, count: int) -> dict[str, np.ndarray]:
    """Random inputs of `step` for an image of which every decision keeps `count` tokens."""
    random = np.random.default_rng(count)
    dims = {}
    for number in range(1, len(bundle.manifest.decisions) + 1):
        dims |= kept_dims(bundle.manifest, number, count)
    feed = {}
    for spec in step.inputs:
        shape = spec.resolve(dims)
        if spec.dtype == "uint8":
            feed[spec.name] = random.integers(0, 256, shape, np.uint8)
        elif spec.dtype == "int32":
            feed[spec.name] = np.arange(shape[1], dtype=np.int32)[None]
        else:
            feed[spec.name] = random.normal(0, 1, shape).astype(spec.dtype)
    return feed


def _difference(made: np.ndarray, reference: np.ndarray) -> float:
    made, reference = (np.asarray(a).astype(np.float64) for a in (made, reference))
    if made.dtype.kind == "u":
        return float((made != reference).mean())
    return float(np.abs(made - reference).max() / (np.abs(reference).max() or 1))


def main() -> None:
    """See above."""
    bundle, who = open_bundle(sys.argv[1]), sys.argv[2]
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = str(int(who != "tensorrt"))
    if who in STAND_INS:
        plans, runner_for = bundle.manifest.plans[0], STAND_INS[who]
    else:
        plans, runner_for = next(p for p in bundle.manifest.plans if p.flavour == who), _plan_runner
    for line in compare(bundle, plans, [int(text) for text in sys.argv[3:]], runner_for):
        print(json.dumps(line))


def _plan_runner(plan: Path, _: Path) -> Any:
    from polygraphy.backend.common import BytesFromPath
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    return TrtRunner(EngineFromBytes(BytesFromPath(str(plan))), name="plan")


def _same(_: Path, file: Path) -> Any:
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    return OnnxrtRunner(SessionFromOnnx(str(file)), name="plan")


def _spoiled(_: Path, file: Path) -> Any:
    """The same with every weight half as large again."""
    import onnx

    model = onnx.load(file)
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT16 and len(weight.dims) > 1:
            values = onnx.numpy_helper.to_array(weight)
            weight.CopyFrom(onnx.numpy_helper.from_array(values * np.float16(1.5), weight.name))
    onnx.save(model, file.with_suffix(".spoiled.onnx"))
    return _same(_, file.with_suffix(".spoiled.onnx"))


STAND_INS: dict[str, RunnerFor] = {"same": _same, "spoiled": _spoiled}  # in the plans' place, to try the harness itself


if __name__ == "__main__":
    main()
