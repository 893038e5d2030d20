"""What libdovit_runtime refuses to run on a GPU, each with its reason: machines, plans for other GPUs, and invalid programs."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpu_images import GRAPH, ROUNDED, Call
from gpu_process import (
    Setup,
    gpu_process,
    refusal,
    refusal_as_it_is,
    refusal_of,
)
from native import tensorrt_rtx

from dovit.export.model import DoViT
from dovit.runtime import DovitError
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.bundle.program import read_program
from dovit.runtime.machine import find_gpu

pytestmark = pytest.mark.xdist_group("cpp")


def change(setup: Setup, tmp_path: Path, **fields: object) -> Setup:
    """The bundle with other fields in its plan set."""
    folder = tmp_path / "changed"
    shutil.copytree(setup.bundle, folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["plans"][0] |= fields
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return replace(setup, bundle=folder)


PLENTY = 1 << 40


@pytest.mark.parametrize(
    ("options", "machine", "status", "message"),
    [
        ({}, (0, 12080, 8, 9, PLENTY), 1, "no NVIDIA GPU was found"),
        ({"device": b"cuda:2"}, (2, 12080, 8, 9, PLENTY), 1, "no NVIDIA GPU number 2 was found: this machine has 2"),
        ({"graph": GRAPH}, (1, 12060, 8, 9, PLENTY), 1, "SWITCH nodes need CUDA 12.8, and this driver runs 12.6"),
        ({}, (1, 12080, 7, 5, PLENTY), 1, "which means 8.0 and newer, this GPU"),
        (
            {},
            (1, 12080, 9, 0, PLENTY),
            1,
            "TensorRT-RTX 1.7.1.116 runs on compute capability 7.5, 8.0, 8.6, 8.9, 12.0, 12.1, this GPU (",
        ),
        ({}, (1, 12080, 8, 9, 1 << 10), 1, "close what else uses it"),
        ({"precision": b"fp16"}, None, 1, "no tensorrt-rtx fp16 plans in this bundle (there are: tensorrt-rtx fp32)"),
        ({"tensorrt": b"/nowhere/libtensorrt_rtx.so.1"}, None, 1, "TensorRT-RTX's library cannot be opened"),
        ({"plugins": b"/nowhere/libdovit_plugins.so"}, None, 1, "the kernels' library cannot be opened"),
        ({"device": b"cpu"}, None, 2, "runs on a GPU, not on device cpu"),
        ({"schedule": ROUNDED}, None, 2, "schedule rounded is for a CPU: choose exact or bucketed for plans"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_unsupported_machine_gets_the_reason(
    setup: Setup, on_gpu: Call, options: dict[str, Any], machine: tuple[int, ...] | None, status: int, message: str
) -> None:
    found = on_gpu(refusal, setup, options, machine)
    assert found[0] == status and message in found[1], found


def test_an_older_driver_runs_segments(setup: Setup, on_gpu: Call) -> None:
    assert on_gpu(refusal, setup, {}, (1, 12040, 8, 9, PLENTY)) == (0, "")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"version": "1.8.0.1"},
            "the bundle's version says TensorRT-RTX 1.8.0.1, 1.7.1.116 is installed; rebuild the plans: ",
        ),
        ({"compute_capabilities": ["12.0"]}, "the bundle's compute_capabilities say 12.0, this GPU"),
        ({"user_allocation": False}, "plans were built without REQUIRE_USER_ALLOCATION, and cannot be captured"),
        ({"cuda": 13}, "the bundle's cuda says 13, this machine's driver runs CUDA 12.8 at most: update the driver"),
        ({"plugin_version": "1"}, "plans have the token pass inside (--plugins)"),
        ({"batch": 2}, "plans take 2 images at a time, and a session of libdovit_runtime one"),
        ({"steps": []}, "does not fit bundle.json (there is no plan stem); build the plans again"),
        (
            {"program": None},
            "plans have no program, for an older dovit has built them; build the plans again: dovit-export",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_plans_for_other_machines_are_refused(
    setup: Setup, on_gpu: Call, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    status, sentence = on_gpu(refusal, change(setup, tmp_path, **fields), {}, (1, 12080, 8, 9, PLENTY))
    assert status == 1 and message in sentence, sentence


def program_of(setup: Setup) -> dict[str, Any]:
    """The program of the bundle's plan set, as JSON."""
    [plans] = json.loads((setup.bundle / "bundle.json").read_text())["plans"]
    program: dict[str, Any] = json.loads((setup.bundle / plans["program"]).read_text())
    return program


def with_program(setup: Setup, folder: Path, program: dict[str, Any]) -> Setup:
    """The bundle with another program, and its hash."""
    folder.mkdir()
    content = json.dumps(program).encode()
    (folder / "program.json").write_bytes(content)
    manifest = json.loads((setup.bundle / "bundle.json").read_text())
    manifest["plans"][0]["program"] = "program.json"
    manifest["files"] = {
        name: entry for name, entry in manifest["files"].items() if not Path(name).name.startswith("program-")
    } | {"program.json": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}}
    for name in manifest["files"]:
        if name != "program.json":
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).hardlink_to(setup.bundle / name)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return replace(setup, bundle=folder)


def broken(program: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`program` with each number far too large or negative, each text another one, and each list one shorter, wherever that
    leaves memory or names what does not exist."""

    def walk(at: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], object]]:
        if isinstance(at, dict):
            for key, value in at.items():
                yield from walk(value, (*path, key))
        elif isinstance(at, list):
            if path[-1] in ("tensors", "segments", "decisions", "inputs", "outputs"):
                yield path, at[:-1]
            for key, value in enumerate(at):
                yield from walk(value, (*path, key))
        elif isinstance(at, str):
            yield path, "nowhere"
        elif isinstance(at, int) and path[-1] not in ("first", "last"):
            yield path, -1
            if path[-1] not in ("arena_bytes",) and "profiles" not in path:
                yield path, 1 << 50

    # numeric arguments and the constants' values are not checked, as the planner wrote them: only their types are
    promised = {"values", "scratch"}
    for path, value in walk(program, ()):
        if path[-1] == "name" or promised & {*path} or ("arguments" in path and value == -1 and path[-1] != "offset"):
            continue
        changed = copy.deepcopy(program)
        at: Any = changed
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        yield changed


def test_programs_that_leave_the_arena_are_refused(setup: Setup, on_gpu: Call, tmp_path: Path) -> None:
    """By both languages: nothing on the device is used."""
    changed = list(broken(program_of(setup)))
    assert len(changed) > 300
    for number, program in enumerate(changed):
        if number % 25:  # test_programs.py has thousands; here what a session says
            continue
        one = with_program(setup, tmp_path / str(number), program)
        bundle = open_bundle(one.bundle)
        with pytest.raises(DovitError, match="build the plans again"):
            read_program(bundle, bundle.manifest.plans[0])
        status, sentence = on_gpu(refusal, one, {})
        assert status == 1 and ("build the plans again" in sentence or "has no kernel" in sentence), sentence
        shutil.rmtree(one.bundle)


def test_plans_that_run_where_no_token_is_kept_are_checked(setup: Setup, on_gpu: Call, tmp_path: Path) -> None:
    """By both languages, at loading: the first image that keeps no token may come much later."""
    for number, (change, message) in enumerate(
        [
            ({"name": "nowhere"}, "there is no plan '?nowhere"),
            ({"inputs": []}, "plan block2"),
            ({"profiles": []}, "(plan block2 has . profiles|profiles of plan block2)"),
        ]
    ):
        program = program_of(setup)
        plan = next(one for part in program["segments"] for one in part["operations"] if one["name"] == "block2")
        program["segments"][1]["if_none_kept"].append(plan | change)
        one = with_program(setup, tmp_path / str(number), program)
        expected = rf"does not fit bundle.json \({message}.*; build the plans again"
        bundle = open_bundle(one.bundle)
        with pytest.raises(DovitError, match=expected):
            read_program(bundle, bundle.manifest.plans[0])
        status, sentence = on_gpu(refusal, one, {})
        assert status == 1 and re.search(expected, sentence), sentence


def test_arguments_of_another_library_are_refused(setup: Setup, on_gpu: Call, tmp_path: Path) -> None:
    program = program_of(setup)
    launch = next(o for s in program["segments"] for o in s["operations"] if o.get("kernel") == "gather")
    launch["arguments"]["older"] = launch["arguments"].pop("prefix")
    status, sentence = on_gpu(refusal, with_program(setup, tmp_path / "one", program), {})
    assert status == 1 and "the kernel gather takes type, tokens, " in sentence and "not type" in sentence


def test_a_plan_that_is_not_valid_here_is_refused_before_it_is_loaded(setup: Setup, on_gpu: Call) -> None:
    status, message = on_gpu(refusal_of, setup, "getEngineValidity")
    assert status == 1 and message.endswith(
        ": TensorRT-RTX does not take this plan: UNSUPPORTED_CC, OLD_CUDA_DRIVER"
    ), message


def test_without_a_driver(setup: Setup, make: Callable[..., tuple[Setup, DoViT]]) -> None:
    """In a process of its own, without the stand-in for the driver."""
    if not isinstance(find_gpu(), str):
        pytest.skip("this machine has a driver")
    real = tensorrt_rtx()
    if real is None:
        pytest.skip("TensorRT-RTX is not installed")
    with gpu_process() as call:
        # the real library, for the stand-in's brings its driver
        libraries = replace(setup.libraries, cuda=Path("libc.so.6"))
        nothing = replace(setup, libraries=libraries, tensorrt=real[0])
        status, sentence = call(refusal_as_it_is, nothing)
    assert status == 1 and "plans need an NVIDIA GPU: no NVIDIA GPU was found (libcuda.so.1: " in sentence
    assert sentence.endswith("install its driver; backend onnxruntime runs on a CPU")
