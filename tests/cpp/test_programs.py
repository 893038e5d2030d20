"""One program, two readers: mutants with addresses outside the arena or unknown names are refused by both, others by neither."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from fuzz.common import mutate_json
from models import randomised, small_config
from native import run
from pydantic import ValidationError

from dovit.benchmarks.torch_plans import manifest_of, plans_of
from dovit.engines.planning.write import plan_program
from dovit.runtime.bundle.program import Program

pytestmark = pytest.mark.xdist_group("cpp")

COUNT = 400
# what C++ compares with the header's layouts when the program is loaded: test_gpu_refusals.py
KERNELS = ("has no kernel", "takes ")


def python_says(text: str) -> str:
    try:
        Program.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        return "kernels" if any(part in first for part in KERNELS) else first
    return "read"


def test_mutants_are_refused_by_both_or_none(build: Callable[[str], Path], tmp_path: Path) -> None:
    model = randomised(small_config("setr-mla", 2, "fcn"))
    manifest = manifest_of(model, (0, 5, 24))
    whole = json.loads(plan_program(manifest, plans_of(model, "fp16", 1).steps, 1).model_dump_json())
    files, expected = [], []
    for number in range(COUNT):
        try:
            text = json.dumps(mutate_json(whole, Random(number)))
            text.encode()
        except (RecursionError, UnicodeEncodeError):
            continue
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(text)
        expected.append(python_says(text))
    tool = build("release") / "tests" / "manifests"
    made = []
    for start in range(0, len(files), 500):
        made += run(tool, "program", *files[start : start + 500]).removesuffix("\n").split("\n")
    differing = [
        (file.name, e, m)
        for file, e, m in zip(files, expected, made, strict=True)
        if ((e == "read") != (m == "read") and e != "kernels") or (m != "read" and "build the plans again" not in m)
    ]
    assert not differing, f"{len(differing)} of {len(files)}: {differing[:5]}"
    assert 10 < expected.count("read") < len(expected) / 2
