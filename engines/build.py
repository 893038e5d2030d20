"""From a bundle's ONNX files to plans for all of its steps."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dovit
from dovit import plugins
from dovit.engines.building.cache import PlanCache
from dovit.engines.building.request import BuildReport, BuildRequest
from dovit.engines.building.workers import build_all, default_jobs
from dovit.engines.flavours import FLAVOURS, check_builder, cuda_of, target_capabilities
from dovit.engines.lowering.digest import lowering_digest
from dovit.engines.lowering.files import write_part
from dovit.engines.lowering.lower import LoweredStep, lower_bundle
from dovit.engines.options import BuildOptions
from dovit.engines.profiles import is_dynamic, profile_shapes, split_profiles
from dovit.runtime.bundle.manifest import FileEntry, Manifest
from dovit.runtime.bundle.open import Bundle, sha256
from dovit.runtime.bundle.plans import Plan, PlanSet, PlanStep, Profile
from dovit.runtime.progress import Progress, silent


@dataclass(frozen=True)
class BuiltPlans:
    """A plan set, its files' entries for the manifest, and how much of it was new."""

    plans: PlanSet
    files: dict[str, FileEntry]
    built: int
    seconds: float  # lowering, writing and building, by the clock
    peak_bytes: int  # of the build process that needed most


def build_plans(bundle: Bundle, folder: Path, options: BuildOptions, progress: Progress = silent) -> BuiltPlans:
    """Build plans for every step of `bundle` into `folder`/tensorrt or `folder`/tensorrt-rtx.

    Plans that the cache holds are taken from there. Raises DovitError or UsageError where a plan cannot be built.
    """
    start = time.perf_counter()
    version = check_builder(options.flavour)
    capabilities = target_capabilities(options.flavour, options.compute_capabilities)
    facts = FLAVOURS[options.flavour]
    library = plugins.library() if facts.plugins else None
    profiles = split_profiles(
        bundle.manifest.capacities, bundle.manifest.tokens,
        options.profiles or min(facts.profiles, sum(c > 0 for c in bundle.manifest.capacities)),
    )  # fmt: skip
    progress("lowering")
    lowered = lower_bundle(bundle, options.precision, batch=options.batch, plugins=library is not None)

    plan_cache = PlanCache(options.cache)
    made: dict[str, tuple[Path, BuildReport, str]] = {}
    (folder / options.flavour).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".lowered-") as scratch:
        requests: dict[str, BuildRequest] = {}
        keys: dict[str, str] = {}
        for step in lowered:
            if step.described.kind != "plan":
                continue
            name = step.described.name
            request = BuildRequest(
                name=name,
                flavour=options.flavour,
                onnx=str(Path(scratch) / f"{name}.onnx"),
                out=str(folder / options.flavour / f"{name}.plan"),
                profiles=_shapes(bundle.manifest, step.described, profiles),
                compute_capabilities=capabilities,
                workspace_mib=options.workspace_mib,
                optimisation_level=options.optimisation_level,
                timing_cache=str(options.timing_cache.resolve()) if options.timing_cache else None,
                plugin_library=str(library) if library else None,
            )
            keys[name] = _key(bundle, step, request, version, options)
            found = plan_cache.get(keys[name], Path(request.out))
            if found:
                made[name] = Path(request.out), *found
                continue
            progress(f"writing {name} in {options.precision}")
            write_part(step.graph, Path(request.onnx))
            requests[name] = request
        with _announced(progress, list(requests)) as heard:
            reports = build_all(list(requests.values()), _jobs(options), heard)
        for request, report in zip(requests.values(), reports, strict=True):
            digest = sha256(Path(request.out))
            plan_cache.put(keys[request.name], Path(request.out), digest, report)
            made[request.name] = Path(request.out), report, digest

    files: dict[str, FileEntry] = {}
    steps = []
    for step in lowered:
        described = step.described
        if described.kind == "plan":
            path, report, digest = made[described.name]
            file = f"{options.flavour}/{described.name}-{options.precision}-{digest[:12]}.plan"
            path.rename(folder / file)
            files[file] = FileEntry(sha256=digest, size=(folder / file).stat().st_size)
            plan = _plan(file, step.parameters, report, profiles if is_dynamic(described) else ())
            described = described.model_copy(update={"plan": plan})
        steps.append(described)
    plan_set = PlanSet(
        flavour=options.flavour,
        version=version,
        cuda=cuda_of(options.flavour),
        compute_capabilities=capabilities,
        precision=options.precision,
        batch=options.batch,
        plugin_version=dovit.__version__ if library else None,
        workspace_mib=options.workspace_mib,
        optimisation_level=options.optimisation_level,
        steps=tuple(steps),
    )
    seconds = round(time.perf_counter() - start, 2)
    return BuiltPlans(plan_set, files, len(requests), seconds, max((r.peak_bytes for r in reports), default=0))


def _shapes(manifest: Manifest, step: PlanStep, profiles: tuple[Profile, ...]) -> tuple[Any, ...]:
    if not is_dynamic(step):
        return ()
    return tuple(profile_shapes(manifest, step, profile) for profile in profiles)


def _plan(file: str, parameters: int, report: BuildReport, profiles: tuple[Profile, ...]) -> Plan:
    return Plan(
        file=file,
        profiles=profiles,
        parameters=parameters,
        network_layers=report.network_layers,
        layers=report.layers,
        attentions=report.attentions,
        fused_attentions=report.fused_attentions,
        weight_bytes=report.weight_bytes,
        activation_bytes=report.activation_bytes,
        build_seconds=report.seconds,
    )


def _jobs(options: BuildOptions) -> int:
    """TensorRT times kernels while it builds: builds beside each other would spoil each other's figures."""
    if options.jobs is not None:
        return options.jobs
    return 1 if FLAVOURS[options.flavour].needs_gpu else default_jobs()


def _key(bundle: Bundle, step: LoweredStep, request: BuildRequest, version: str, options: BuildOptions) -> str:
    """What the plan is made of, as one hash: its ONNX (whose file names its weights by their hash), how that is lowered, and
    all that the builder is told."""
    source = next(s for s in bundle.manifest.steps if s.name == step.described.step)
    assert source.onnx is not None
    parts = {
        "onnx": bundle.manifest.files[source.onnx].sha256,
        "lowering": lowering_digest(),
        "precision": options.precision,
        "batch": options.batch,
        "version": version,
        "described": step.described.model_dump(),
        "request": request.model_dump(exclude={"onnx", "out", "timing_cache", "plugin_library"}),
        "plugins": sha256(Path(request.plugin_library)) if request.plugin_library else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _announced(progress: Progress, names: list[str]) -> Iterator[Callable[[str, float], None]]:
    """Turns the workers' fractions into one."""
    done = dict.fromkeys(names, 0.0)
    lock = threading.Lock()

    def heard(name: str, fraction: float) -> None:
        with lock:
            done[name] = max(done[name], fraction)
            share = sum(done.values()) / len(done)
            running = ", ".join(n for n, f in done.items() if 0 < f < 1) or name
            progress(f"building {len(names)} plans: {running}", share)

    if names:
        progress(f"building {len(names)} plans", 0.0)
    yield heard
