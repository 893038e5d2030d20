"""The trained model in assets/: small, whole, and with easy tokens that stop first."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from dovit.evaluation.data.streets import Streets
from dovit.evaluation.evaluate import evaluate
from dovit.evaluation.segmenter import Setting
from dovit.export.checkpoints import load_model
from dovit.export.model import DoViT
from dovit.scenes.classes import PERSON, POLE, RIDER, ROAD, SIGN, SKY
from dovit.training.torch_segmenter import TorchSegmenter

ASSETS = Path(__file__).parents[2] / "assets"
SCENES = Streets(12, (192, 384), first=1_000_000)  # held out


@pytest.fixture(scope="module")
def model() -> DoViT:
    return load_model(ASSETS / "streets-tiny.safetensors").model


def test_file() -> None:
    path = ASSETS / "streets-tiny.safetensors"
    assert path.stat().st_size <= 6_000_000
    with safe_open(path, "np") as file:
        config = json.loads(file.metadata()["dovit"])
        kinds = {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118
    assert kinds == {"float16", "int64"}  # int64: batch norm's counter
    assert config["class_names"][:2] == ["road", "sidewalk"] and len(config["palette"]) == 19
    made_from = json.loads((ASSETS / "streets-tiny.json").read_text())
    assert config["backbone"]["embed_dim"] == made_from["backbone"]["embed_dim"]
    assert [d["layer"] for d in config["decisions"]] == [d["layer"] for d in made_from["decisions"]]


def test_half_of_the_macs_go_and_the_labels_stay(model: DoViT) -> None:
    segmenter = TorchSegmenter(model)
    dense, own = evaluate(segmenter, SCENES, [Setting("dense", (1.0,) * 3), segmenter.own])
    assert dense.confusion.summary()["PA"] > 85 and dense.confusion.summary()["mIoU"] > 30
    assert own.macs_ratio[0] < 0.6
    assert own.confusion.summary()["PA"] > dense.confusion.summary()["PA"] - 1


def test_sky_and_road_stop_first(model: DoViT) -> None:
    """Of the tokens that lie within sky or road most stop at the first decision, of those with small things in them few."""
    segmenter = TorchSegmenter(model)
    flat, fine = [], []
    for number in range(len(SCENES)):
        sample = SCENES[number]
        keep = segmenter.segment(sample.image, segmenter.own).keep_maps[0]
        patches = sample.labels.reshape(12, 16, 24, 16).swapaxes(1, 2).reshape(12, 24, -1)  # [h, w, pixels]
        inside = [(patches == label).all(axis=2) for label in (SKY, ROAD)]
        small = np.mean([patches == label for label in (PERSON, RIDER, SIGN, POLE)], axis=0).sum(axis=2) > 10
        flat += (~keep[inside[0] | inside[1]]).tolist()
        fine += (~keep[small]).tolist()
    assert len(flat) > 500 and len(fine) > 50
    assert np.mean(flat) > 0.6 and np.mean(fine) < 0.4
