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
from dovit.engines.planning.write import add_program
from dovit.engines.profiles import is_dynamic, profile_shapes, split_profiles
from dovit.runtime.bundle.manifest import FileEntry
from dovit.runtime.bundle.open import Bundle, sha256
from dovit.runtime.bundle.plans import Plan, PlanSet, Profile
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import real_path
from dovit.runtime.progress import Progress, no_progress

FIRST_WITH_FP8 = 8, 9  # compute capability


@dataclass(frozen=True)
class BuiltPlans:
    """A plan set, its files' entries for the manifest, and how much of it was new."""

    plans: PlanSet
    files: dict[str, FileEntry]
    built: int
    seconds: float  # lowering, writing and building, by the clock
    peak_bytes: int  # of the build process that needed most


@dataclass(frozen=True)
class _Part:
    """A plan to make: its step, what a worker is to be asked, and the cache's key for the answer."""

    step: LoweredStep
    request: BuildRequest
    key: str
    profiles: tuple[Profile, ...]


def build_plans(
    bundle: Bundle,
    folder: Path,
    options: BuildOptions,
    progress: Progress = no_progress,
    *,
    float32_nodes: tuple[str, ...] = (),
) -> BuiltPlans:
    """Build plans for every step of `bundle` into `folder`/tensorrt or `folder`/tensorrt-rtx. `float32_nodes`: names of nodes
    that stay float32.

    Plans that the cache holds are taken from there. Raises DovitError or UsageError where a plan cannot be built.
    """
    start = time.perf_counter()
    version = check_builder(options.flavour)
    capabilities = target_capabilities(options.flavour, options.compute_capabilities)
    if bundle.manifest.precision == "fp8":
        _check_fp8(capabilities)
    library = _plugin_library() if options.plugins else None
    progress("lowering")
    lowered = lower_bundle(
        bundle, options.precision, batch=options.batch, plugins=library is not None, float32_nodes=float32_nodes
    )

    (folder / options.flavour).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".lowered-") as scratch:
        parts = [
            _part(bundle, step, Path(scratch), folder, options, version, capabilities, library, float32_nodes)
            for step in lowered
            if step.described.kind == "plan"
        ]
        made, built = _make(parts, options, progress)

    plans: dict[str, Plan] = {}
    files: dict[str, FileEntry] = {}
    for part, (report, digest) in zip(parts, made, strict=True):
        name = f"{options.flavour}/{part.request.name}-{options.precision}-{digest[:12]}.plan"
        Path(part.request.out).rename(folder / name)
        files[name] = FileEntry(sha256=digest, size=(folder / name).stat().st_size)
        plans[part.request.name] = _plan(name, part, report)
    plan_set = PlanSet(
        flavour=options.flavour,
        version=version,
        cuda=cuda_of(options.flavour),
        compute_capabilities=capabilities,
        precision=options.precision,
        float32_nodes=float32_nodes,
        batch=options.batch,
        plugin_version=dovit.__version__ if library else None,
        workspace_mib=options.workspace_mib,
        optimisation_level=options.optimisation_level,
        user_allocation=all(report.user_allocation for report, _ in made),
        steps=tuple(step.described.model_copy(update={"plan": plans.get(step.described.name)}) for step in lowered),
    )
    if library is None:  # plans with plugins are for programs that run them by themselves
        plan_set, program = add_program(bundle.manifest, plan_set, folder)
        files |= program
    seconds = round(time.perf_counter() - start, 2)
    return BuiltPlans(plan_set, files, built, seconds, max((r.peak_bytes for r, _ in made), default=0))


def _check_fp8(capabilities: tuple[str, ...]) -> None:
    """Raises UsageError for GPUs without products of fp8."""
    if not capabilities or any(tuple(map(int, c.split("."))) < FIRST_WITH_FP8 for c in capabilities):
        found = ", ".join(capabilities) or "portable, which is 8.0 and newer"
        raise UsageError(
            f"plans of a bundle in fp8 need GPUs of compute capability 8.9 or newer, and these are for {found}: give "
            "--compute-capability 8.9,12.0, or export it with --precision int8"
        )


def _plugin_library() -> Path:
    plugins.load()  # raises an error that names what is missing
    library = plugins.library()
    assert library is not None
    return library


def _part(
    bundle: Bundle,
    step: LoweredStep,
    scratch: Path,
    folder: Path,
    options: BuildOptions,
    version: str,
    capabilities: tuple[str, ...],
    library: Path | None,
    float32_nodes: tuple[str, ...],
) -> _Part:
    manifest, described = bundle.manifest, step.described
    count = options.profiles or min(FLAVOURS[options.flavour].profiles, sum(c > 0 for c in manifest.capacities))
    profiles = split_profiles(manifest.capacities, manifest.tokens, count)  # checked even where no size is dynamic
    profiles = profiles if is_dynamic(described) else ()
    request = BuildRequest(
        name=described.name,
        flavour=options.flavour,
        onnx=str(scratch / f"{described.name}.onnx"),
        out=str(folder / options.flavour / f"{described.name}.plan"),
        profiles=tuple(profile_shapes(manifest, described, profile) for profile in profiles),
        compute_capabilities=capabilities,
        workspace_mib=options.workspace_mib,
        optimisation_level=options.optimisation_level,
        timing_cache=str(real_path(options.timing_cache)) if options.timing_cache else None,
        plugin_library=str(library) if library else None,
        user_allocation=library is None,  # TokenDecide without fixed_capacity has an output of data-dependent size
    )
    return _Part(step, request, _key(bundle, step, request, version, options, float32_nodes), profiles)


def _make(parts: list[_Part], options: BuildOptions, progress: Progress) -> tuple[list[tuple[BuildReport, str]], int]:
    """Every part's report and its plan's SHA-256, with the plan at the place that its request names; and how many were built."""
    plan_cache = PlanCache(options.cache)
    made = {part.request.name: plan_cache.get(part.key, Path(part.request.out)) for part in parts}
    missing = [part for part in parts if made[part.request.name] is None]
    for part in missing:
        _check_names(part.request)
    for part in missing:
        progress(f"writing {part.request.name} in {options.precision}")
        write_part(part.step.graph, Path(part.request.onnx))
    with _combined_progress(progress, [part.request.name for part in missing]) as report_progress:
        reports = build_all([part.request for part in missing], _jobs(options), report_progress)
    for part, report in zip(missing, reports, strict=True):
        plan = Path(part.request.out)
        digest = sha256(plan)
        plan_cache.put(part.key, plan, digest, report)
        made[part.request.name] = report, digest
    return [found for found in made.values() if found], len(missing)


def _check_names(request: BuildRequest) -> None:
    """TensorRT takes names in UTF-8, and so does the process that builds."""
    for file in filter(None, (request.out, request.timing_cache, request.plugin_library)):
        try:
            file.encode()
        except UnicodeEncodeError:
            raise DovitError(
                f"{file}: TensorRT takes names in UTF-8 alone, and this one is none in this locale: use a folder with another "
                "name, or set LC_ALL=C.UTF-8 if its name is UTF-8"
            ) from None


def _plan(file: str, part: _Part, report: BuildReport) -> Plan:
    return Plan(
        file=file,
        profiles=part.profiles,
        parameters=part.step.parameters,
        network_layers=report.network_layers,
        layers=report.layers,
        attentions=report.attentions,
        fused_attentions=report.fused_attentions,
        weight_bytes=report.weight_bytes,
        activation_bytes=report.activation_bytes,
        build_seconds=report.seconds,
    )


def _jobs(options: BuildOptions) -> int:
    """The number of concurrent builds: one for TensorRT, which measures kernels on the GPU while it builds."""
    if options.jobs is not None:
        return options.jobs
    return 1 if FLAVOURS[options.flavour].needs_gpu else default_jobs()


def _key(
    bundle: Bundle,
    step: LoweredStep,
    request: BuildRequest,
    version: str,
    options: BuildOptions,
    float32_nodes: tuple[str, ...],
) -> str:
    """What the plan is made of, as one hash: its ONNX (whose file names its weights by their hash), how that is lowered, and
    every setting of the builder."""
    source = next(s for s in bundle.manifest.steps if s.name == step.described.step)
    assert source.onnx is not None
    parts = {
        "onnx": bundle.manifest.files[source.onnx].sha256,
        "lowering": lowering_digest(),
        "precision": options.precision,
        "float32_nodes": [node.name for node in step.graph.nodes if node.name in float32_nodes],
        "batch": options.batch,
        "version": version,
        "described": step.described.model_dump(),
        "request": request.model_dump(exclude={"onnx", "out", "timing_cache", "plugin_library"}),
        "plugins": sha256(Path(request.plugin_library)) if request.plugin_library else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _combined_progress(progress: Progress, names: list[str]) -> Iterator[Callable[[str, float], None]]:
    """A callback for `build_all` that reports the mean fraction of all plans to `progress`."""
    done = dict.fromkeys(names, 0.0)
    lock = threading.Lock()

    def report_progress(name: str, fraction: float) -> None:
        with lock:
            done[name] = max(done[name], fraction)
            share = sum(done.values()) / len(done)
            running = ", ".join(n for n, f in done.items() if 0 < f < 1) or name
            progress(f"building {len(names)} plans: {running}", share)

    if names:
        progress(f"building {len(names)} plans", 0.0)
    yield report_progress
