import json
import os
import struct
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dovit.evaluation.data.open import open_data
from dovit.evaluation.data.read import read_labels
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import read_image
from dovit.runtime.palettes import palette_for

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
ZEROS = np.zeros((6, 8), np.uint8)
# From the Cityscapes specification (labels.py of cityscapesscripts): id of train id 0, 1, …; every other id is ignored.
CITYSCAPES_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def labels_of(*values: int) -> np.ndarray:
    labels = ZEROS.copy()
    labels.flat[: len(values)] = values
    return labels


def pair(root: Path, name: str, labels: np.ndarray = ZEROS, below: str = "", suffix: str = ".png") -> Path:
    save(root / "images" / below / f"{name}{suffix}", IMAGE)
    return save(root / "labels" / below / f"{name}.png", labels)


def city(
    root: Path, name: str, labels: np.ndarray | None = ZEROS, kind: str = "labelIds", split: str = "train"
) -> Path:
    save(root / "leftImg8bit" / split / "bonn" / f"{name}_leftImg8bit.png", IMAGE)
    path = root / "gtFine" / split / "bonn" / f"{name}_gtFine_{kind}.png"
    return path if labels is None else save(path, labels)


def ade(root: Path, name: str, labels: np.ndarray, split: str = "training") -> Path:
    save(root / "images" / split / f"{name}.jpg", IMAGE)
    return save(root / "annotations" / split / f"{name}.png", labels)


# --- Cityscapes


def test_cityscapes_ids_become_train_ids(tmp_path: Path) -> None:
    city(tmp_path, "bonn_0", labels_of(*range(34), 255))
    data = open_data(str(tmp_path), "train")
    expected = [CITYSCAPES_IDS.index(i) if i in CITYSCAPES_IDS else 255 for i in range(34)]
    assert data[0].labels.ravel()[:35].tolist() == [*expected, 255]
    assert (data.class_names, data.palette) == palette_for("cityscapes", 19)
    assert (len(data), data.classes) == (1, 19)
    np.testing.assert_array_equal(data[0].image, IMAGE)
    assert data[0].name.endswith("bonn_0_leftImg8bit.png")


def test_cityscapes_train_ids_are_used_as_they_are(tmp_path: Path) -> None:
    city(tmp_path, "bonn_0", labels_of(7, 8))
    city(tmp_path, "bonn_0", labels_of(18, 255), kind="labelTrainIds")
    city(tmp_path, "bonn_1", labels_of(7, 8))
    data = open_data(f"cityscapes:{tmp_path}", "train")
    assert [data[n].labels.ravel()[:2].tolist() for n in range(2)] == [[18, 255], [0, 1]]


@pytest.mark.parametrize(("kind", "value", "ids"), [("labelIds", 34, 34), ("labelTrainIds", 19, 19)])
def test_cityscapes_label_out_of_range(tmp_path: Path, kind: str, value: int, ids: int) -> None:
    path = city(tmp_path, "bonn_0", labels_of(value), kind)
    with pytest.raises(DovitError, match=f"{path}: label value {value} is neither below {ids} nor 255"):
        open_data(str(tmp_path), "train")[0]


def test_cityscapes_without_its_files(tmp_path: Path) -> None:
    path = city(tmp_path, "bonn_0", None)
    city(tmp_path, "bonn_1", None)
    with pytest.raises(DovitError, match=rf"{path}: no labels for .* and for 1 more; unpack gtFine_trainvaltest\.zip"):
        open_data(f"cityscapes:{tmp_path}", "train")
    with pytest.raises(DovitError, match=r"leftImg8bit/val: no images .* unpack leftImg8bit_trainvaltest\.zip"):
        open_data(f"cityscapes:{tmp_path}", "val")


def test_cityscapes_has_a_class_0(tmp_path: Path) -> None:
    city(tmp_path, "bonn_0")
    with pytest.raises(UsageError, match="label 0 is a class in Cityscapes"):
        open_data(str(tmp_path), "train", reduce_zero_label=True)


# --- ADE20K


@pytest.mark.parametrize("inside", ["", "ADEChallengeData2016"])
def test_ade20k(tmp_path: Path, inside: str) -> None:
    ade(tmp_path / inside, "ADE_train_2", labels_of(0, 1, 150, 255))
    ade(tmp_path / inside, "ADE_train_1", labels_of(2))
    ade(tmp_path / inside, "ADE_val_1", labels_of(3), "validation")
    train, val = open_data(str(tmp_path), "train"), open_data(f"ade20k:{tmp_path}", "val")
    assert (len(train), len(val), train.classes) == (2, 1, 150)
    assert (train.class_names, train.palette) == palette_for("ade20k", 150)
    assert train[0].labels.flat[0] == 1
    assert train[1].labels.ravel()[:5].tolist() == [255, 0, 149, 255, 255]
    assert val[0].labels.flat[0] == 2


def test_ade20k_reduced_before(tmp_path: Path) -> None:
    path = ade(tmp_path, "a", labels_of(0, 149, 255))
    assert open_data(str(tmp_path), "train", reduce_zero_label=False)[0].labels.ravel()[:3].tolist() == [0, 149, 255]
    save(path, labels_of(150))
    with pytest.raises(DovitError, match="label value 150 is neither below 150"):
        open_data(str(tmp_path), "train", reduce_zero_label=False)[0]
    save(path, labels_of(151))
    with pytest.raises(DovitError, match="label value 151 is neither below 151"):
        open_data(str(tmp_path), "train")[0]


def test_ade20k_without_images(tmp_path: Path) -> None:
    ade(tmp_path, "a", ZEROS)
    with pytest.raises(DovitError, match=r"images/validation: no images \*\.jpg; unpack ADEChallengeData2016\.zip"):
        open_data(str(tmp_path), "val")


# --- any folder


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp", ".bmp", ".tif"])
def test_flat_folder(tmp_path: Path, suffix: str) -> None:
    pair(tmp_path, "b", labels_of(200, 255), suffix=suffix)
    (tmp_path / "images" / f"._b{suffix}").write_bytes(b"what macOS leaves")
    for split in ("train", "val"):
        data = open_data(str(tmp_path), split)
        assert (len(data), data.classes, data.class_names, data.palette) == (1, None, None, None)
        assert data[0].labels.ravel()[:3].tolist() == [200, 255, 0]


def test_folder_with_splits(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        pair(tmp_path, name, below="train")
    pair(tmp_path, "d", below="val")
    train = open_data(f"folder:{tmp_path}", "train", classes=3)
    assert [Path(train[n].name).stem for n in range(len(train))] == ["a", "b", "c"]
    assert (len(open_data(str(tmp_path), "val")), train.classes) == (1, 3)


def test_folder_with_classes(tmp_path: Path) -> None:
    path = pair(tmp_path, "a", labels_of(1, 255))
    classes = {"names": ["sea", "land"], "colours": [[0, 0, 255], [0, 255, 0]]}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    data = open_data(str(tmp_path), "train")
    assert (data.classes, data.class_names, data.palette) == (2, ("sea", "land"), ((0, 0, 255), (0, 255, 0)))
    assert data[0].labels.flat[0] == 1
    save(path, labels_of(0, 2))
    with pytest.raises(DovitError, match=f"{path}: label value 2 is neither below 2 nor 255"):
        data[0]
    reduced = open_data(str(tmp_path), "train", reduce_zero_label=True)[0]
    assert reduced.labels.ravel()[:2].tolist() == [255, 1]
    with pytest.raises(UsageError, match="the data set has 2 classes, not 3"):
        open_data(str(tmp_path), "train", classes=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "expected JSON"), ('{"colours": 3}', "expected JSON"), ('{"colours": []}', "no classes in it")],
)
def test_damaged_classes(tmp_path: Path, text: str, message: str) -> None:
    pair(tmp_path, "a")
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DovitError, match=f"classes.json.*{message}"):
        open_data(str(tmp_path), "train")


def test_files_without_a_partner(tmp_path: Path) -> None:
    label = pair(tmp_path, "b")
    for name in ("a", "c", "d"):
        image = save(tmp_path / "images" / f"{name}.png", IMAGE)
    first, missing = tmp_path / "images" / "a.png", label.with_name("a.png")
    with pytest.raises(DovitError, match=f"{missing}: no labels for {first} and for 2 more; each image in"):
        open_data(str(tmp_path), "train")
    for name in ("a", "c", "d", "e"):
        save(label.with_name(f"{name}.png"), ZEROS)
    with pytest.raises(DovitError, match=r"labels/e\.png: no image for these labels; each image in"):
        open_data(str(tmp_path), "train")
    image.unlink()
    with pytest.raises(DovitError, match=r"labels/d\.png: no image for these labels nor for 1 more"):
        open_data(str(tmp_path), "train")


def test_two_images_of_one_name(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    pair(tmp_path, "a", suffix=".bmp")
    with pytest.raises(DovitError, match=r"a\.png: a\.bmp has the same name"):
        open_data(str(tmp_path), "train")


def test_folder_without_images(tmp_path: Path) -> None:
    pair(tmp_path, "a", below="train")
    with pytest.raises(DovitError, match="images/val: no images in it"):
        open_data(str(tmp_path), "val")


# --- reading


def test_damaged_files(tmp_path: Path) -> None:
    label = pair(tmp_path, "a", IMAGE[..., 0])
    data = open_data(str(tmp_path), "train")
    image = tmp_path / "images" / "a.png"
    whole = label.read_bytes()
    for content, message in (
        (whole[:-30], "the labels are damaged or cannot be read"),
        (b"text", "no image that Pillow can read"),
    ):
        label.write_bytes(content)
        with pytest.raises(DovitError, match=f"{label}: .*{message}"):
            data[0]
    label.unlink()
    with pytest.raises(DovitError, match=f"{label}: no such label file"):
        data[0]
    label.write_bytes(whole)
    image.write_bytes(image.read_bytes()[:-60])
    with pytest.raises(DovitError, match=f"{image}: the image is damaged or cut off"):
        data[0]
    image.unlink()
    with pytest.raises(DovitError, match=f"{image}: no such image"):
        data[0]


def test_two_sizes(tmp_path: Path) -> None:
    label = pair(tmp_path, "a", np.zeros((5, 7), np.uint8))
    with pytest.raises(DovitError, match=f"{label}: the labels have 7×5 pixels, its image 8×6"):
        open_data(str(tmp_path), "train")[0]


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DovitError, match="a pipe or device, not a regular file"):
        read_labels(tmp_path / "pipe.png")
    with pytest.raises(DovitError, match="a pipe or device, not a regular file"):
        read_image(tmp_path / "pipe.png")


def test_labels_in_colour(tmp_path: Path) -> None:
    label = pair(tmp_path, "a", IMAGE)
    with pytest.raises(DovitError, match=f"{label}: labels of mode RGB, not of one 8-bit channel"):
        open_data(str(tmp_path), "train")[0]


def test_a_palette_images_labels_are_its_indices(tmp_path: Path) -> None:
    image = Image.fromarray(labels_of(1, 2, 255))
    image.putpalette(RNG.integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "p.png"), labels_of(1, 2, 255))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_labels_of_fewer_bits(tmp_path: Path, bits: int) -> None:
    """As optimisers write small ids: their values count, not the grey that they stand for."""
    values = np.arange(16).reshape(2, 8) % 2**bits
    rows = ((values[..., None] >> np.arange(bits - 1, -1, -1)) & 1).reshape(2, -1).astype(np.uint8)
    packed = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    (tmp_path / "small.png").write_bytes(content)
    np.testing.assert_array_equal(read_labels(tmp_path / "small.png"), values)


# --- what open_data is given


@pytest.mark.parametrize("spec", ["{}", "{}/nowhere", "cityscapes:{}/nowhere", "cityscape:{}", "streets:"])
def test_no_data_set(tmp_path: Path, spec: str) -> None:
    expected = r"expected leftImg8bit/ and gtFine/ .*, images/training/ and annotations/training/ .*, or images/ and"
    with pytest.raises(UsageError, match=expected):
        open_data(spec.format(tmp_path), "train")


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ("images", "labels"),
        ("labels", "images"),
        ("leftImg8bit", "gtFine"),
        ("images/training", "annotations/training"),
    ],
)
def test_half_of_a_data_set(tmp_path: Path, there: str, missing: str) -> None:
    (tmp_path / there).mkdir(parents=True)
    with pytest.raises(UsageError, match=f"{tmp_path}: {missing}/ is missing beside {there}/; expected"):
        open_data(str(tmp_path), "train")


def test_an_empty_name_is_not_the_folder_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    monkeypatch.chdir(tmp_path)
    for spec in ("", "folder:", "cityscapes:"):
        with pytest.raises(
            UsageError, match=r"no folder is named \(an empty variable\?\); name a data set's: expected"
        ):
            open_data(spec, "train")


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    label = pair(tmp_path, "a", labels_of(0))
    monkeypatch.setattr("dovit.evaluation.data.read.Image.open", refuse)
    with pytest.raises(DovitError, match=f"{label}: may not be read; check its permissions"):
        read_labels(label)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UsageError, match=f"{tmp_path}: may not be read; check its permissions"):
        open_data(str(tmp_path), "train")


def test_a_file_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "data.zip").touch()
    with pytest.raises(UsageError, match=r"data.zip: a file, not a folder; name a data set's: expected"):
        open_data(str(tmp_path / "data.zip"), "train")


def test_streets_have_no_label_for_nothing() -> None:
    with pytest.raises(UsageError, match="streets:2: label 0 is a class of the streets"):
        open_data("streets:2", "train", size=(64, 96), reduce_zero_label=True)


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="split test: there are train and val"):
        open_data(str(tmp_path), "test")


class Scenes:
    classes = 8

    def __init__(self, count: int, size: tuple[int, int], first: int = 0) -> None:
        self.given = (count, size, first)


@pytest.fixture
def _scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("dovit.evaluation.data.streets")
    module.Streets = Scenes
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("_scenes")
@pytest.mark.parametrize(
    ("spec", "split", "count", "first"),
    [
        ("streets", "train", 2000, 0),
        ("streets", "val", 200, 1_000_000),
        ("streets:5", "train", 5, 0),
        ("streets:5", "val", 5, 1_000_000),
        ("streets:5@7", "val", 5, 7),
    ],
)
def test_streets(spec: str, split: str, count: int, first: int) -> None:
    assert open_data(spec, split, size=(64, 96)).given == (count, (64, 96), first)


@pytest.mark.usefixtures("_scenes")
def test_invalid_counts_of_streets_are_refused() -> None:
    for text in ("many", "0", "-1", "3@", "3@x", "3@-1", "@3", f"{10**30}@3"):
        with pytest.raises(UsageError, match=f"streets:{text}: expected streets:COUNT or streets:COUNT@FIRST"):
            open_data(f"streets:{text}", "train", size=(64, 96))
    with pytest.raises(UsageError, match="reach the val scenes"):
        open_data("streets:1000001", "train", size=(64, 96))
    with pytest.raises(UsageError, match="give one as size"):
        open_data("streets:5", "train")
    with pytest.raises(UsageError, match="the data set has 8 classes, not 19"):
        open_data("streets:5", "train", size=(64, 96), classes=19)
