"""Programs are read and checked: addresses outside the arena and unknown names are refused in a sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import randomised, small_config
from plan_bundles import make_plan_bundle
from pydantic import ValidationError

from dovit.runtime.bundle.open import Bundle, open_bundle
from dovit.runtime.bundle.program import Program, RunPlan, check_fits, read_program
from dovit.runtime.errors import DovitError

CAPACITIES = (0, 5, 11, 17, 24)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("program") / "bundle"
    model = randomised(small_config("setr-mla", 2, "fcn"))
    return open_bundle(make_plan_bundle(model, folder, CAPACITIES, "tensorrt-rtx", "1.7.1.116"))


@pytest.fixture(scope="module")
def written(bundle: Bundle) -> dict[str, Any]:
    [plans] = bundle.manifest.plans
    assert plans.program is not None and plans.program in bundle.manifest.files
    content: dict[str, Any] = json.loads(bundle.path(plans.program).read_text())
    return content


def kernel(program: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        operation
        for segment in program["segments"]
        for operation in segment["operations"]
        if operation.get("kernel") == name
    )
    return found


def set_tensor(name: str, **fields: object) -> Callable[[dict[str, Any]], None]:
    def change(program: dict[str, Any]) -> None:
        next(tensor for tensor in program["tensors"] if tensor["name"] == name).update(fields)

    return change


CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda p: p.update(version=2), "version"),
    (lambda p: p.update(batch="1"), "batch"),
    (lambda p: p.update(batch=True), "batch"),
    (lambda p: p.update(tokens=0), "tokens"),
    (lambda p: p.update(arena_bytes=-1), "arena_bytes"),
    (lambda p: p.update(arena_bytes=512), "the end of tensor"),
    (lambda p: p.update(result_bytes=p["arena_bytes"] + 1), "result_bytes"),
    (lambda p: p.update(result_bytes=256), "the end of result"),
    (lambda p: p.update(surprise=1), "surprise"),
    (lambda p: p["tensors"].append(p["tensors"][0]), "two tensors of one name"),
    (lambda p: p["tensors"].pop(0), "no tensor 'capacity1'"),
    (lambda p: p["segments"].pop(), "3 segments, 4 expected"),
    (lambda p: p["constants"][0].update(values=[0, 0]), "constant stopped_count0"),
    (lambda p: p["constants"][0].update(tensor="nowhere"), "no tensor 'nowhere'"),
    (lambda p: p["decisions"][0].update(keep="capacity1"), "what is read of capacity1"),
    (lambda p: p["decisions"][0].update(keep="slots1"), "the end of result slots1"),
    (lambda p: p["segments"][0]["operations"][0].update(kind="dance"), "segments.0.operations.0"),
    (lambda p: p["segments"][0]["operations"][0]["inputs"][0].update(shape=[1, 64, 96, 4]), "image of plan stem"),
    (lambda p: p["segments"][0]["operations"][0]["inputs"][0].update(shape=[{"kept_plus": -1}]), "inputs.0.shape.0"),
    (lambda p: p["segments"][1]["operations"][1].update(profiles=[24, 5]), "do not rise"),
    (lambda p: kernel(p, "gather").update(kernel="dance"), "has no kernel 'dance'"),
    (lambda p: kernel(p, "gather")["arguments"].pop("full"), "kernel gather takes type, tokens"),
    (
        lambda p: kernel(p, "gather")["arguments"].update(tokens={"tensor": "image", "offset": 1 << 40}),
        "tokens of gather1",
    ),
    (
        lambda p: kernel(p, "gather")["arguments"].update(tokens={"tensor": "nowhere", "offset": 0}),
        "no tensor 'nowhere'",
    ),
    (lambda p: kernel(p, "gather")["arguments"].update(tokens="thing"), "arguments.tokens"),
    (lambda p: kernel(p, "gather")["arguments"].update(batch=1 << 31), "arguments.batch"),
    (
        lambda p: p["segments"][1]["if_none_kept"].append(
            {"kind": "copy", "name": "c", "source": "image", "target": "no"}
        ),
        "no tensor 'no'",
    ),
    (set_tensor("image", offset=1), "offset"),
    (set_tensor("image", offset=1 << 40), "the end of tensor image"),
    (set_tensor("image", shape=[1 << 30, 1 << 30]), "the end of tensor image"),
    (set_tensor("labels", dtype="complex64"), "dtype"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[message for _, message in CHANGES])
def test_what_leaves_the_arena_is_refused(
    written: dict[str, Any], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    program = copy.deepcopy(written)
    change(program)
    with pytest.raises(ValidationError) as caught:
        Program.model_validate_json(json.dumps(program))
    first = caught.value.errors()[0]
    assert message in f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"capacities": (24, 24)}, None),
        ({"capacities": (5,) * 30 + (24,)}, "the capacities, in bytes"),
        ({"classes": 4}, "logits"),
        ({"patch": 32}, "tokens"),
        ({"decisions": ()}, "decisions"),
    ],
    ids=str,
)
def test_a_program_of_another_model_is_refused(bundle: Bundle, fields: dict[str, object], message: str | None) -> None:
    [plans] = bundle.manifest.plans
    program = read_program(bundle, plans)
    changed = bundle.manifest.model_copy(update=fields)
    if message is None:
        check_fits(program, changed, plans)
        return
    with pytest.raises(ValueError, match=message):
        check_fits(program, changed, plans)


def test_plans_that_the_program_does_not_know(bundle: Bundle) -> None:
    [plans] = bundle.manifest.plans
    program = read_program(bundle, plans)
    for change in ({"name": "other"}, {"plan": None}, {"inputs": ()}):
        steps = tuple(s.model_copy(update=change) if s.name == "block2" else s for s in plans.steps)
        with pytest.raises(ValueError, match="block2"):
            check_fits(program, bundle.manifest, plans.model_copy(update={"steps": steps}))
    with pytest.raises(ValueError, match="batch: 2 expected, got 1"):
        check_fits(program, bundle.manifest, plans.model_copy(update={"batch": 2}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"name": "nowhere"}, "there is no plan 'nowhere'"),
        ({"inputs": []}, "plan block2: tensors .* expected, got "),
        ({"profiles": []}, "plan block2 has . profiles, not 0"),
    ],
    ids=str,
)
def test_plans_that_run_where_no_token_is_kept(
    bundle: Bundle, written: dict[str, Any], change: dict[str, object], message: str | None
) -> None:
    """They are checked as the others are: such an image may come much later."""
    [plans] = bundle.manifest.plans
    changed = copy.deepcopy(written)
    plan = next(one for part in changed["segments"] for one in part["operations"] if one["name"] == "block2")
    changed["segments"][1]["if_none_kept"].append(plan | change)
    program = Program.model_validate_json(json.dumps(changed))
    if message is None:
        check_fits(program, bundle.manifest, plans)
        return
    with pytest.raises(ValueError, match=message):
        check_fits(program, bundle.manifest, plans)


def test_plans_without_a_program_say_how_to_get_one(bundle: Bundle) -> None:
    [plans] = bundle.manifest.plans
    with pytest.raises(DovitError) as caught:
        read_program(bundle, plans.model_copy(update={"program": None}))
    assert str(caught.value) == (
        f"{bundle.root}: the tensorrt-rtx fp32 plans have no program, for an older dovit has built them; build the plans again: "
        f"dovit-export --engine {bundle.root} --backend tensorrt-rtx --precision fp32"
    )


def test_a_broken_program_is_a_sentence(bundle: Bundle, tmp_path: Path) -> None:
    """A program with the right hash but invalid content."""
    [plans] = bundle.manifest.plans
    for content, message in (("{", "the field program is wrong"), ('{"version": 3}', "the field version is wrong")):
        (tmp_path / "program.json").write_text(content)
        with pytest.raises(DovitError, match=f"program.json: {message} .*; build the plans again: dovit-export"):
            read_program(Bundle(tmp_path, bundle.manifest), plans.model_copy(update={"program": "program.json"}))


def test_the_profile_is_the_first_that_holds_the_count(bundle: Bundle) -> None:
    run = RunPlan(kind="plan", name="a", inputs=(), outputs=(), profiles=(10, 50, 100))
    assert [run.profile(kept) for kept in (1, 10, 11, 50, 51, 100)] == [0, 0, 1, 1, 2, 2]
    assert run.model_copy(update={"profiles": ()}).profile(7) == 0
    program = read_program(bundle, bundle.manifest.plans[0])
    plans = {step.name: step.plan for step in bundle.manifest.plans[0].steps if step.plan}
    for _, operation in program.operations:
        if isinstance(operation, RunPlan):
            assert operation.profiles == tuple(profile.most for profile in plans[operation.name].profiles)  # type: ignore[union-attr]
