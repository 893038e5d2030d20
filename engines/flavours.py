"""TensorRT and TensorRT-RTX behind one interface; all differences between them are in this module."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import get_args

from dovit.runtime.bundle.plans import Flavour
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.machine import Gpu, find_gpu
from dovit.runtime.plans import MODULES, TITLES, known_capabilities


@dataclass(frozen=True)
class FlavourFacts:
    """What a builder of this flavour can do and needs."""

    name: Flavour
    oldest: tuple[int, int]
    needs_gpu: bool  # it tries kernels out on the GPU that the plan will run on
    plugins: bool
    timing_cache: bool
    # how many profiles to split the token counts into. TensorRT chooses kernels for each profile's best shape; RTX compiles
    # for the shapes that come, and one profile is all it needs
    profiles: int

    @property
    def title(self) -> str:
        """Its name in sentences."""
        return TITLES[self.name]

    @property
    def module(self) -> str:
        """Its Python module."""
        return MODULES[self.name]

    @property
    def install(self) -> str:
        """The extra that brings it."""
        return f"dovit[{self.name}]"


FLAVOURS: dict[Flavour, FlavourFacts] = {
    "tensorrt": FlavourFacts("tensorrt", (10, 7), needs_gpu=True, plugins=True, timing_cache=True, profiles=4),
    "tensorrt-rtx": FlavourFacts(
        "tensorrt-rtx",
        (1, 7),  # in 1.4 to 1.6 every context holds more than 1 GiB of host memory
        needs_gpu=False,
        plugins=False,
        timing_cache=False,
        profiles=1,
    ),
}
BUILD_PACKAGES = ("onnx", "onnx_graphsurgeon", "polygraphy")


def load_module(flavour: Flavour) -> ModuleType:
    """The flavour's Python module. Raises DovitError where it is missing or too old."""
    facts = FLAVOURS[flavour]
    try:
        module = importlib.import_module(facts.module)
        version = str(module.__version__)
    except (ImportError, OSError, AttributeError) as error:
        found = re.sub(r"\s+", " ", str(error))[:160]
        raise DovitError(
            f"{facts.title} is not installed here ({found}): pip install '{facts.install}', or choose another --backend"
        ) from None
    if version_of(version) < facts.oldest:
        oldest = ".".join(map(str, facts.oldest))
        raise DovitError(
            f"{facts.title} {version} is too old, {oldest} or newer is needed: pip install -U '{facts.install}'"
        )
    return module


def version_of(version: str) -> tuple[int, int]:
    """Major and minor of a version such as 1.7.1.116."""
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


def check_builder(flavour: Flavour) -> str:
    """The version of a flavour that can build here. Raises DovitError with what is missing."""
    facts = FLAVOURS[flavour]
    version = str(load_module(flavour).__version__)
    for package in BUILD_PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            raise DovitError(f"building needs the package {package}: pip install '{facts.install}'") from None
    gpu = find_gpu()
    if facts.needs_gpu and isinstance(gpu, str):
        raise DovitError(
            f"{facts.title} builds on the GPU that the plan will run on, but {gpu}; "
            f"--backend tensorrt-rtx builds without one"
        )
    return version


def choose_flavour(backend: str) -> Flavour | None:
    """The flavour that `--backend` asks for; None for ONNX Runtime alone. `auto` takes the first that can build here."""
    if backend == "onnxruntime":
        return None
    if backend != "auto":
        if backend not in FLAVOURS:
            raise UsageError(f"unknown backend {backend!r}: choose auto, onnxruntime, {' or '.join(FLAVOURS)}")
        return next(flavour for flavour in get_args(Flavour) if flavour == backend)
    for flavour in FLAVOURS:
        try:
            check_builder(flavour)
        except DovitError:
            continue
        return flavour
    return None


def target_capabilities(flavour: Flavour, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The compute capabilities to record and to build for: `wanted`, where the flavour can; else its default.

    Raises UsageError with the capabilities that there are.
    """
    facts = FLAVOURS[flavour]
    if facts.needs_gpu:
        gpu = find_gpu()
        assert isinstance(gpu, Gpu), "check_builder comes first"
        if any(capability != gpu.compute_capability for capability in wanted):
            raise UsageError(
                f"{facts.title} builds for the GPU that is present ({gpu.name}, {gpu.compute_capability}); "
                f"leave --compute-capability out, or use --backend tensorrt-rtx"
            )
        return (gpu.compute_capability,)
    known = known_capabilities(load_module(flavour)) or ()
    for capability in wanted:
        if capability not in known:
            raise UsageError(f"{facts.title} does not build for {capability}: choose from {', '.join(known)}")
    return wanted


def cuda_of(flavour: Flavour) -> int | None:
    """CUDA's major version that the installed flavour was made for; None where its package does not name it."""
    stem = FLAVOURS[flavour].module.replace("_", "[-_]")
    for distribution in metadata.distributions():
        found = re.fullmatch(rf"{stem}[-_]cu(\d+)([-_]libs)?", distribution.metadata["Name"] or "", re.IGNORECASE)
        if found:
            return int(found[1])
    return None
