"""The export as one function: checkpoint → ONNX steps → plans → bundle in place, leaving out what is there already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dovit.export.source import is_same, source_of
from dovit.runtime.bundle.manifest import MANIFEST_NAME, Manifest, Source
from dovit.runtime.bundle.open import Bundle, open_bundle, with_bundle
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.bundle.write import copy_files, write_bundle, write_manifest
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.progress import Progress, no_progress

if TYPE_CHECKING:
    from dovit.export.checkpoints.settings import Setting
    from dovit.export.compare import Comparison, Reference
    from dovit.export.quantization.request import QuantizationRequest
    from dovit.export.verify import Pass

# (the bundle so far, the set of that kind that the old bundle has, progress) → the bundle's manifest with a new set
PlanBuilder = Callable[[Bundle, Manifest | None, Progress], Manifest]


@dataclass
class Exported:
    """The result of an export. Without passes, the ONNX files are those that were there, or were not compared."""

    manifest: Manifest
    format: str
    notes: list[str]
    passes: list[Pass] = field(default_factory=list)
    settings: tuple[Setting, ...] = ()
    reused: bool = False
    comparison: Comparison | None = None


def export(
    checkpoint: Path,
    out: Path,
    options: dict[str, Any],
    capacities: tuple[int, ...] | None,
    palette: str | None,
    *,
    check: bool = True,
    reference: Reference | None = None,
    quantization: QuantizationRequest | None = None,
    plans: PlanBuilder | None = None,
    keep_onnx: bool = True,
    force: bool = False,
    progress: Progress = no_progress,
) -> Exported:
    """Export `checkpoint` into the folder `out`. `options` are those of ReadOptions, `palette` as `palette_for` takes it.

    `reference`: logits of the user's own framework, which the float32 bundle must have. `quantization`: then its products are
    quantized. `plans` adds TensorRT plans; those of other
    flavours and precisions stay where the ONNX files stay. Without `keep_onnx` the bundle holds plans alone. What an earlier
    export of the same checkpoint with the same options left in `out` is taken as it is, unless `force`. Raises DovitError or
    UsageError, and then leaves `out` as it was.
    """
    progress("comparing with an earlier export")
    digest = quantization.digest() if quantization else None
    source = source_of(checkpoint, options, capacities, palette, verified=check, quantization=digest)
    exported: Exported | None = None

    def fill(stage: Path) -> Manifest:
        nonlocal exported
        anew = force or (quantization and reference)  # logits are compared with the float32 bundle
        old = None if anew else _usable(out, source)  # only now: another export may have been waited for
        if old:
            manifest = _take_onnx(old, stage)
            exported = Exported(manifest, "unchanged", [], reused=True)
        else:
            from dovit.export.fresh import make_onnx

            fresh = make_onnx(checkpoint, stage, options, capacities, palette, check=check, progress=progress)
            manifest = fresh.manifest.model_copy(update={"source": source})
            exported = Exported(manifest, fresh.format, fresh.notes, fresh.passes, fresh.settings)
        if reference:
            from dovit.export.compare import compare

            write_manifest(stage, manifest)
            exported.comparison = compare(stage, reference, progress)
        if quantization and not old:
            manifest = _quantized(Bundle(stage, manifest), quantization, stage, progress)
        return _with_plans(manifest, old, stage, plans, keep_onnx=keep_onnx, progress=progress)

    manifest = write_bundle(out, fill)
    assert exported is not None
    exported.manifest = manifest
    return exported


def add_plans(
    engine: Path, out: Path, plans: PlanBuilder, *, keep_onnx: bool = True, progress: Progress = no_progress
) -> Exported:
    """Build plans for the bundle in `engine`, and write it with them to `out`, which may be the same folder. Raises DovitError
    or UsageError, and then leaves `out` as it was."""

    def take(old: Bundle, stage: Path) -> tuple[Bundle, Manifest]:
        for step in old.manifest.steps:
            old.onnx(step)  # raises, with the bundle's own path, where there is none
        return old, _take_onnx(old, stage)

    def fill(stage: Path) -> Manifest:
        old, manifest = with_bundle(engine, lambda bundle: take(bundle, stage))
        return _with_plans(manifest, old, stage, plans, keep_onnx=keep_onnx, progress=progress)

    if engine != out:  # before a folder is made for it
        open_bundle(engine)
    return Exported(write_bundle(out, fill), "unchanged", [], reused=True)


def quantize_bundle(
    engine: Path,
    out: Path,
    quantization: QuantizationRequest,
    plans: PlanBuilder | None = None,
    *,
    keep_onnx: bool = True,
    progress: Progress = no_progress,
) -> Exported:
    """Quantize the float32 bundle in `engine` into the folder `out`, another one. Raises DovitError or UsageError, and then
    leaves `out` as it was."""
    if engine.resolve() == out.resolve():
        raise UsageError(
            f"{engine}: its float32 files would be lost; give --out another folder for the quantized bundle"
        )

    def fill(stage: Path) -> Manifest:
        made = with_bundle(engine, lambda bundle: _quantized(bundle, quantization, stage, progress))
        manifest = made.model_copy(update={"source": None})  # which is that of the float32 bundle
        return _with_plans(manifest, None, stage, plans, keep_onnx=keep_onnx, progress=progress)

    open_bundle(engine)  # before a folder is made for it
    return Exported(write_bundle(out, fill), "quantized", [])


def compare_bundle(engine: Path, reference: Reference, progress: Progress = no_progress) -> Exported:
    """Hold the bundle in `engine`, which stays as it is, against `reference`. Raises DovitError where they differ."""
    from dovit.export.compare import compare

    return Exported(
        open_bundle(engine).manifest, "unchanged", [], reused=True, comparison=compare(engine, reference, progress)
    )


def _quantized(bundle: Bundle, request: QuantizationRequest, stage: Path, progress: Progress) -> Manifest:
    """The quantized files of `bundle` in `stage`, without those of the float32 bundle that may have been made there."""
    from dovit.export.quantization.bundle import quantize
    from dovit.export.quantization.images import load_images

    for step in bundle.manifest.steps:
        bundle.onnx(step)  # raises where there is none
    manifest = quantize(bundle, request.kind, load_images(bundle.manifest, request), stage, progress)
    for name in bundle.manifest.files.keys() - manifest.files.keys():
        (stage / name).unlink(missing_ok=True)
    return manifest


def _usable(out: Path, source: Source) -> Bundle | None:
    """The bundle in `out`, where it is whole and was made of the same."""
    if not (out / MANIFEST_NAME).is_file():
        return None
    try:
        bundle = open_bundle(out)
    except DovitError:
        return None
    complete = all(step.onnx for step in bundle.manifest.steps)
    return bundle if complete and is_same(bundle.manifest.source, source) else None


def _take_onnx(old: Bundle, stage: Path) -> Manifest:
    """The old bundle without its plans."""
    plans = {name for plan_set in old.manifest.plans for name in plan_set.files}
    files = {name: entry for name, entry in old.manifest.files.items() if name not in plans}
    copy_files(old, stage, files)
    return old.manifest.model_copy(update={"plans": (), "files": files})


def _with_plans(
    manifest: Manifest,
    old: Bundle | None,
    stage: Path,
    plans: PlanBuilder | None,
    *,
    keep_onnx: bool,
    progress: Progress,
) -> Manifest:
    if plans:
        write_manifest(stage, manifest)
        manifest = plans(Bundle(stage, manifest), old.manifest if old else None, progress)
    if old:
        manifest = _keep_others(manifest, old, stage)
    return manifest if keep_onnx else _without_onnx(manifest)


def _keep_others(manifest: Manifest, old: Bundle, stage: Path) -> Manifest:
    """`manifest` with those of the old bundle's plan sets that were not built anew."""
    new = {plan_set.name for plan_set in manifest.plans}
    kept: list[PlanSet] = [plan_set for plan_set in old.manifest.plans if plan_set.name not in new]
    names = [name for plan_set in kept for name in plan_set.files if name not in manifest.files]
    copy_files(old, stage, names)
    files = manifest.files | {name: old.manifest.files[name] for name in names}
    return manifest.model_copy(update={"plans": (*kept, *manifest.plans), "files": files})


def _without_onnx(manifest: Manifest) -> Manifest:
    if not manifest.plans:
        raise DovitError("without ONNX files and without plans a bundle would be empty: choose a --backend with plans")
    plans = {name for plan_set in manifest.plans for name in plan_set.files}
    steps = tuple(step.model_copy(update={"onnx": None, "openvino": ()}) for step in manifest.steps)
    files = {name: entry for name, entry in manifest.files.items() if name in plans}
    return manifest.model_copy(update={"steps": steps, "files": files, "source": None})
