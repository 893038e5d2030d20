from __future__ import annotations

import time
from functools import cache
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from dovit.evaluation.data.streets import Streets
from dovit.runtime.palettes import palette_for
from dovit.scenes import scene
from dovit.scenes.camera import Camera
from dovit.scenes.canvas import Canvas
from dovit.scenes.classes import CAR, PERSON, ROAD, SIGN, SKY
from dovit.scenes.people import random_person
from dovit.scenes.textures import Material
from dovit.scenes.vehicles import random_vehicle

SCENES = 60
SIZE = (96, 192)
NAMES, _ = palette_for("cityscapes", 19)


@cache
def scenes() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return tuple(scene(seed, *SIZE) for seed in range(SCENES))


def share(class_name: str) -> float:
    """In how many of the scenes a class has a pixel."""
    number = NAMES.index(class_name)
    return float(np.mean([(labels == number).any() for _, labels in scenes()]))


def test_a_seed_is_a_scene() -> None:
    image, labels = scene(3, 80, 120)
    scene(4, 64, 64)  # a scene does not depend on those drawn before it
    again, labels_again = scene(3, 80, 120)
    assert image.tobytes() == again.tobytes()
    assert labels.tobytes() == labels_again.tobytes()


def test_seeds_differ() -> None:
    labels = [labels for _, labels in scenes()]
    assert len({each.tobytes() for each in labels}) == SCENES
    assert np.mean([np.mean(a != b) for a, b in pairwise(labels)]) > 0.1  # and not by a few pixels


@pytest.mark.parametrize("size", [(64, 64), (65, 131), (97, 64), (111, 333), (192, 384)])
def test_sizes(size: tuple[int, int]) -> None:
    image, labels = scene(11, *size)
    assert image.shape == (*size, 3)
    assert labels.shape == size
    assert image.dtype == labels.dtype == np.uint8
    assert image.std() > 10


def test_only_the_19_classes() -> None:
    assert max(int(labels.max()) for _, labels in scenes()) <= 18


@pytest.mark.parametrize(
    ("class_name", "least"),
    [
        ("road", 1.0),
        ("sidewalk", 0.9),
        ("building", 0.95),
        ("sky", 0.95),
        ("vegetation", 0.9),
        ("pole", 0.8),
        ("car", 0.8),
        ("person", 0.8),
        ("traffic sign", 0.5),
        ("traffic light", 0.5),
        ("rider", 0.3),
        ("bicycle", 0.2),
        ("terrain", 0.2),
        ("wall", 0.15),
        ("fence", 0.15),
        ("truck", 0.1),
        ("bus", 0.1),
        ("motorcycle", 0.1),
    ],
)
def test_every_kind_occurs(class_name: str, least: float) -> None:
    assert share(class_name) >= least


def test_areas_are_a_streets() -> None:
    counts = sum(np.bincount(labels.ravel(), minlength=19) for _, labels in scenes())
    areas = dict(zip(NAMES, counts / counts.sum(), strict=True))
    assert 0.15 < areas["road"] < 0.5
    assert 0.1 < areas["building"] < 0.45
    assert 0.05 < areas["sky"] < 0.35
    assert 0.02 < areas["car"] < 0.2
    assert areas["traffic light"] < areas["person"] < areas["car"]


@pytest.mark.parametrize("seed", range(8))
def test_another_size_is_the_same_scene(seed: int) -> None:
    _, small = scene(seed, 128, 256)
    _, large = scene(seed, 256, 512)
    shrunk = np.asarray(Image.fromarray(large).resize((256, 128), Image.Resampling.NEAREST))
    assert np.mean(shrunk == small) > 0.9
    _, other = scene(seed + 100, 128, 256)
    assert np.mean(shrunk == other) < 0.9  # two scenes differ


def test_sky_is_above_road() -> None:
    for _, labels in scenes():
        rows = np.arange(labels.shape[0])[:, None].repeat(labels.shape[1], 1)
        assert rows[labels == SKY].mean() < rows[labels == ROAD].mean()
        assert rows[labels == SKY].max() < rows[labels == ROAD].max()
        assert rows[labels == ROAD].min() > 0.3 * labels.shape[0]  # none above the highest horizon


def blank() -> tuple[Canvas, Camera]:
    camera = Camera(horizon=120.0, centre=200.0, focal=260.0, height=1.5)
    return Canvas(256, 400, (200.0, 205.0, 210.0), 200.0), camera


@pytest.mark.parametrize("label", [CAR, PERSON])
def test_nearer_is_lower_and_larger(label: int) -> None:
    seen = []
    for z in (8.0, 16.0, 32.0):
        canvas, camera = blank()
        random = np.random.default_rng(5)  # the same thing at each distance
        if label == CAR:
            random_vehicle(random, 2.0, z, leaving=True, parked=True).draw(canvas, camera)
        else:
            random_person(random, 2.0, z).draw(canvas, camera)
        rows, _ = np.nonzero(np.asarray(canvas.labels) == label)
        seen.append((int(rows.max()), len(rows)))
    lowest, areas = zip(*seen, strict=True)
    assert lowest[0] > lowest[1] > lowest[2] > 120  # feet and wheels are below the horizon
    assert areas[0] > 2 * areas[1] > 4 * areas[2] > 0


class Sheet:
    """A sign over the whole image, `z` metres away, with a label of its own."""

    def __init__(self, z: float, label: int) -> None:
        self.z, self.label = z, label

    def draw(self, canvas: Canvas, camera: Camera) -> None:
        corners = [(0, 0), (canvas.width, 0), (canvas.width, canvas.height), (0, canvas.height)]
        canvas.polygon(corners, (0.0, 0.0, 0.0), self.label, Material.SMOOTH, self.z)


def test_what_is_near_hides_what_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    sheets = [Sheet(12.0, CAR), Sheet(5.0, SIGN), Sheet(30.0, PERSON)]
    module = import_module("dovit.scenes.scene")  # as an attribute of the package, it is the function
    monkeypatch.setattr(module, "random_things", lambda *_: sheets)
    _, labels = scene(0, 64, 64)
    assert (labels == SIGN).all()


def test_things_stand_on_the_ground() -> None:
    canvas, camera = blank()
    random_person(np.random.default_rng(0), 1.0, 10.0).draw(canvas, camera)
    rows, _ = np.nonzero(np.asarray(canvas.labels) == PERSON)
    assert abs(rows.max() - camera.at(1.0, 0, 10.0)[1]) <= 2
    assert 1.0 < (rows.max() - rows.min()) / camera.scale(10.0) < 2.0  # metres


@pytest.mark.parametrize("shape", ["polygon", "ellipse", "line"])
def test_a_shapes_colour_ends_where_its_label_does(shape: str) -> None:
    canvas, _ = blank()
    orange = (250.0, 120.0, 10.0)
    random = np.random.default_rng(2)
    points = [(float(x), float(y)) for x, y in random.uniform((-40, -40), (440, 300), (6, 2))]
    if shape == "polygon":
        canvas.polygon(points, orange, SIGN, Material.BRICK)
    elif shape == "ellipse":
        canvas.ellipse((100.3, 80.7), (60.2, 33.9), orange, SIGN, Material.BRICK)
    else:
        canvas.line(points, 5.4, orange, SIGN, Material.BRICK)
    coloured = (np.asarray(canvas.image) == orange).all(-1)
    assert coloured.any()
    assert not coloured.all()
    np.testing.assert_array_equal(coloured, np.asarray(canvas.labels) == SIGN)
    np.testing.assert_array_equal(coloured, np.asarray(canvas.materials) == Material.BRICK)


def jumps(image: np.ndarray, labels: np.ndarray, shift: int) -> float:
    """How much more the image changes from column to column where the labels, moved by `shift` columns, do."""
    change = np.abs(np.diff(image.astype(np.float32).mean(-1), axis=1))
    edges = np.diff(np.roll(labels, shift, axis=1).astype(int), axis=1) != 0
    inside = slice(8, -8)
    return float(change[:, inside][edges[:, inside]].mean() / change[:, inside].mean())


def test_edges_of_labels_are_edges_of_the_picture() -> None:
    by_shift = {s: float(np.mean([jumps(*each, s) for each in scenes()])) for s in (-2, -1, 0, 1, 2)}
    assert max(by_shift, key=lambda shift: by_shift[shift]) == 0
    assert by_shift[0] > 1.3 * max(by_shift[-2], by_shift[2])


def test_not_slower_than_can_be_trained_with() -> None:
    scene(0, 256, 512)  # textures are made once
    start = time.process_time()
    for seed in range(4):
        scene(seed, 256, 512)
    assert (time.process_time() - start) / 4 < 5 / 15


def test_as_a_data_set() -> None:
    data = Streets(3, (64, 96), first=7)
    assert len(data) == 3
    assert data.classes == 19
    assert data.class_names == NAMES
    sample = data[2]
    assert sample.name == "street 9"
    image, labels = scene(9, 64, 96)
    np.testing.assert_array_equal(sample.image, image)
    np.testing.assert_array_equal(sample.labels, labels)
    with pytest.raises(IndexError):
        data[3]
