"""Bundles with plans for the stand-in for TensorRT in cpp/stand_in/: ONNX files in place of serialized engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from bundles import make_bundle

from dovit.engines.flavours import FLAVOURS
from dovit.engines.lowering.files import write_part
from dovit.engines.lowering.lower import LoweredStep, lower_bundle
from dovit.engines.planning.write import add_program
from dovit.engines.profiles import is_dynamic, profile_shapes, split_profiles
from dovit.export.model import DoViT
from dovit.runtime.bundle.manifest import FileEntry, Manifest
from dovit.runtime.bundle.open import Bundle, open_bundle, sha256
from dovit.runtime.bundle.plans import Flavour, Plan, PlanSet
from dovit.runtime.bundle.write import copy_files, write_bundle

Shape = tuple[int, ...]


def make_plan_bundle(model: DoViT, folder: Path, capacities: tuple[int, ...], flavour: Flavour, version: str) -> Path:
    """Write the bundle of `model` into `folder`, with fp32 plans for one image and its ONNX files beside them."""
    make_bundle(model, folder, capacities)
    old = open_bundle(folder)
    write_bundle(folder, lambda stage: _with_plans(old, stage, flavour, version))
    return folder


def describe(profiles: Sequence[Mapping[str, tuple[Shape, Shape]]]) -> str:
    """Profiles, each input's least and largest shape by its name, as the stand-in reads them: cpp/stand_in/onnx_plan.cpp."""

    def shape(sizes: Shape) -> str:
        return "x".join(map(str, sizes))

    parts = [
        " ".join(f"{name} {shape(least)} {shape(most)}" for name, (least, most) in profile.items())
        for profile in profiles
    ]
    return "".join(["dovit-profiles: ", *(f"{part} / " for part in parts), "; "]) if profiles else ""


def _with_plans(old: Bundle, stage: Path, flavour: Flavour, version: str) -> Manifest:
    copy_files(old, stage, old.manifest.files)
    (stage / flavour).mkdir()
    files, described = {}, []
    for step in lower_bundle(old, "fp32", batch=1):
        plan = None
        if step.described.kind == "plan":
            plan = _plan(old.manifest, step, stage, flavour)
            files[plan.file] = FileEntry(sha256=sha256(stage / plan.file), size=(stage / plan.file).stat().st_size)
        described.append(step.described.model_copy(update={"plan": plan}))
    plans = PlanSet(
        flavour=flavour,
        version=version,
        cuda=None,
        compute_capabilities=("8.9",)
        if FLAVOURS[flavour].needs_gpu
        else (),  # the stand-in's, unless it is told otherwise
        precision="fp32",
        batch=1,
        plugin_version=None,
        workspace_mib=None,
        optimisation_level=None,
        user_allocation=True,
        steps=tuple(described),
    )
    plans, program = add_program(old.manifest, plans, stage)
    return old.manifest.model_copy(update={"plans": (plans,), "files": old.manifest.files | files | program})


def _plan(manifest: Manifest, step: LoweredStep, stage: Path, flavour: Flavour) -> Plan:
    count = min(FLAVOURS[flavour].profiles, sum(c > 0 for c in manifest.capacities))
    profiles = split_profiles(manifest.capacities, manifest.tokens, count) if is_dynamic(step.described) else ()
    with TemporaryDirectory() as scratch:
        part = Path(scratch) / "part.onnx"
        write_part(step.graph, part)
        model = onnx.load(part)  # the weights as well: a plan is one file
        model.doc_string = describe(
            [
                {
                    name: (least, most)
                    for name, (least, _, most) in profile_shapes(manifest, step.described, one).items()
                }
                for one in profiles
            ]
        )
        content = model.SerializeToString()
    made = stage / flavour / f"{step.described.name}.plan"
    made.write_bytes(content)
    file = f"{flavour}/{step.described.name}-fp32-{sha256(made)[:12]}.plan"
    made.rename(stage / file)
    return Plan(
        file=file,
        profiles=profiles,
        parameters=step.parameters,
        network_layers=len(step.described.outputs),
        layers=(),
        attentions=0,
        fused_attentions=0,
        weight_bytes=len(content),
        activation_bytes=4096,
        build_seconds=0.0,
    )
