"""The tests of the chain on a real GPU, run on the fake GPU, so that mistakes in them are found without one."""

from __future__ import annotations

import importlib.util
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from torch_chains import torch_chain

PARTS: list[tuple[str, dict[str, Any]]] = [
    *(
        ("identical_kept_sets", {"mode": mode, "decoder": "setr-mla", "head": "conv", "prefix": 2, "batch": batch})
        for mode, batch in (("graph", 1), ("segmented", 2))
    ),
    ("the_exact_schedule", {"decoder": "setr-naive", "head": "conv", "prefix": 1}),
    ("images_of_other_sizes", {"mode": "graph", "batch": 2}),
    ("images_of_other_sizes", {"mode": "segmented", "batch": 1}),
    ("given_counts", {}),
    ("labels_of_a_trained_model_in_half_precision", {"mode": "graph", "precision": "fp16"}),
    ("a_stream_keeps_the_order", {"mode": "graph"}),
    ("a_profile", {"exact": False}),
]


@pytest.mark.parametrize(("name", "arguments"), PARTS, ids=str)
def test_gpu_tests_run_on_the_fake_device(
    name: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(__file__).with_name("test_on_a_gpu.py")
    spec = importlib.util.spec_from_file_location("rehearsed", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    monkeypatch.setattr(module, "torch_chain", torch_chain)
    test = getattr(module, f"test_{name}")
    given = {"monkeypatch": monkeypatch} if "monkeypatch" in signature(test).parameters else {}
    test(**arguments, **given)
