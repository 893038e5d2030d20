"""dovit's own checkpoints of the backbones that other families bring."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models import BACKBONES, DECODERS, random_images, randomised, small_config
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from dovit.export.checkpoints import ReadOptions, load_model, save_model
from dovit.export.model import DoViT, ModelConfig
from dovit.runtime.errors import DovitError


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("family", BACKBONES)
def test_other_backbones_are_saved_and_read(family: str, suffix: str, tmp_path: Path) -> None:
    """Registers, SwiGLU and rotary positions. Rotary ones for another size are those of a model that was made for it."""
    model = randomised(small_config("segmenter-linear-taps", family=family))
    file = tmp_path / f"model{suffix}"
    save_model(model, file)
    read = load_model(file).model
    image = random_images(model.config)
    assert read.config == model.config and torch.equal(read(image).logits, model(image).logits)
    larger = load_model(file, ReadOptions(image_size=(96, 80))).model
    assert larger.config.grid == (6, 5)
    if model.config.backbone.rotary:
        same = randomised(small_config("segmenter-linear-taps", family=family, image_size=(96, 80)))
        image = random_images(same.config)
        assert torch.equal(larger(image, (1.0, 1.0)).logits, same(image, (1.0, 1.0)).logits)


@pytest.mark.parametrize("head", ["lens", "neighbours"])
def test_lenses_are_saved_and_read(head: str, tmp_path: Path) -> None:
    """--dense leaves them out; a file without lenses does not name them, so that versions without lenses read it. Likewise
    with kernels. A lens that sees neighbours serves any size."""
    model = randomised(small_config("setr-pup", head=head))
    file = tmp_path / "model.safetensors"
    save_model(model, file)
    read = load_model(file).model
    image = random_images(model.config)
    assert read.config == model.config and torch.equal(read(image).logits, model(image).logits)
    dense = load_model(file, ReadOptions(dense=True)).model
    without = copy.deepcopy(model)
    without.refinement = nn.Identity()  # the dense model has none, and with one ξ = 1 is only nearly the dense model
    assert torch.equal(dense(image).logits, without(image, (1.0, 1.0)).logits)
    assert not {"lens", "refinement"} & set(re.findall(r"\w+", small_config("setr-pup").model_dump_json()))
    kernels = [lens.get("kernel") for lens in (d["lens"] for d in model.config.model_dump(mode="json")["decisions"])]
    assert kernels == ([3, 5] if head == "neighbours" else [None, None])
    larger = load_model(file, ReadOptions(image_size=(96, 80))).model
    same = DoViT(small_config("setr-pup", head=head, image_size=(96, 80))).eval()
    same.load_state_dict(larger.state_dict())
    image = random_images(same.config)
    assert torch.equal(larger(image).logits, same(image).logits)


@pytest.mark.parametrize(
    ("lens", "sentence"),
    [
        ({"hidden": 16, "kernel": 2}, r"kernel: an even kernel would change the map.s size, found 2"),
        ({"hidden": 16, "kernel": 9}, r"kernel: Input should be less than or equal to 7, found 9"),
        ({"hidden": 16, "kernel": 0}, r"kernel: Input should be greater than or equal to 1, found 0"),
        ({"hidden": 16, "kernel": "3"}, r"kernel: Input should be a valid integer, found '3'"),
        ({"hidden": 0, "kernel": 3}, r"a lens of kernel 3 needs `hidden` channels, and has 0"),
        ({"kernel": 3}, r"a lens of kernel 3 needs `hidden` channels, and has 0"),
    ],
)
def test_kernels_that_no_lens_has_are_refused(lens: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    model = randomised(small_config(head="neighbours"))
    config = model.config.model_dump(mode="json")
    config["decisions"][1]["lens"] = lens
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"dovit": json.dumps(config)})
    with pytest.raises(DovitError, match=sentence) as refused:
        load_model(tmp_path / "model.safetensors")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("decoder", "layers", "refinement", "sentence"),
    [
        ("setr-mla", (2, 4), {"hidden": 16, "kernel": 3}, "refinement is for models with decisions, and decoders"),
        ("eomt", (2, 4), {"hidden": 16, "kernel": 3}, "refinement is for models with decisions, and decoders"),
        ("setr-naive", (), {"hidden": 16, "kernel": 3}, "refinement is for models with decisions, and decoders"),
        ("setr-naive", (2, 4), {"hidden": 16, "kernel": 4}, "an even kernel would change the map.s size, found 4"),
        ("setr-naive", (2, 4), {"hidden": 0, "kernel": 3}, "hidden: Input should be greater than or equal to 1"),
        ("setr-naive", (2, 4), {"hidden": 16, "kernel": 3}, r"refinement\.depthwise"),  # without its weights
    ],
)
def test_refinements_that_no_model_has_are_refused(
    decoder: str, layers: tuple[int, ...], refinement: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    model = randomised(small_config(decoder, layers=layers))
    config = model.config.model_dump(mode="json") | {"refinement": refinement}
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"dovit": json.dumps(config)})
    with pytest.raises(DovitError, match=sentence) as refused:
        load_model(tmp_path / "model.safetensors")
    assert len(str(refused.value).splitlines()) == 1


def test_a_lens_of_another_kernel_than_its_weights_is_refused(tmp_path: Path) -> None:
    model = randomised(small_config(head="neighbours"))
    config = model.config.model_dump(mode="json")
    config["decisions"][1]["lens"]["kernel"] = 7
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"dovit": json.dumps(config)})
    with pytest.raises(DovitError, match=r"lenses\.1\.neighbours\.depthwise\.weight"):
        load_model(tmp_path / "model.safetensors")


def _scalars(value: Any, *place: str | int) -> Iterator[tuple[str | int, ...]]:
    """The places of all numbers, truth values and texts of a configuration."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _scalars(one, *place, key)
    elif value is not None:
        yield place


def _wrong(value: Any) -> list[Any]:
    """What pydantic would take for `value` where it is not strict, but for 2.0 in the place of 2."""
    if isinstance(value, bool):
        return [int(value), str(value), "yes"]
    if isinstance(value, int | float):
        return [str(value), value == 1, [value]]
    return [value.encode()]


@pytest.mark.parametrize("decoder", DECODERS)
def test_values_of_another_type_are_refused(decoder: str) -> None:
    """Each number, truth value and text of a configuration, wherever it stands."""
    names, palette = tuple("abcdefg"), ((0, 0, 0), (1, 2, 3), *((4, 5, 6),) * 5)
    config = small_config(decoder, family="rotary-gated", class_names=names, palette=palette, slide_stride=(32, 48))
    text = config.model_dump_json()
    assert ModelConfig.model_validate(json.loads(text)) == config
    for place in _scalars(json.loads(text)):
        changed = json.loads(text)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        for wrong in _wrong(inner[place[-1]]):
            value, inner[place[-1]] = inner[place[-1]], wrong
            with pytest.raises(ValidationError):
                ModelConfig.model_validate(changed)
            inner[place[-1]] = value


def test_a_number_in_quotes_is_named(tmp_path: Path) -> None:
    """Cells of "4" patches, in the metadata of a .safetensors file."""
    model = randomised(small_config(merge=False, merge_cells=4))
    config = {**model.config.model_dump(mode="json"), "merge_cells": "4"}
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"dovit": json.dumps(config)})
    with pytest.raises(DovitError, match=r"merge_cells: Input should be a valid integer, found '4'"):
        load_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, suffix: str) -> None:
    model, path = randomised(small_config()), tmp_path / f"model.{suffix}"
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = 1e5
    with pytest.raises(DovitError, match="beyond those of float16"):
        save_model(model, path, half=True)
    save_model(model, path)
    before = path.read_bytes()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(DovitError, match="not finite"):
        save_model(model, path)
    assert path.read_bytes() == before
