import json
from pathlib import Path

import pytest

from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.palettes import default_palette, palette_for


def test_cityscapes() -> None:
    names, colours = palette_for("cityscapes", 19)
    assert names is not None and len(names) == len(colours) == 19
    assert (names[0], colours[0]) == ("road", (128, 64, 128))
    assert (names[13], colours[13]) == ("car", (0, 0, 142))
    assert (names[18], colours[18]) == ("bicycle", (119, 11, 32))


def test_ade20k() -> None:
    names, colours = palette_for("ade20k", 150)
    assert names is not None and len(names) == len(colours) == 150
    assert (names[0], colours[0]) == ("wall", (120, 120, 120))
    assert (names[149], colours[149]) == ("flag", (92, 0, 255))


@pytest.mark.oracle
@pytest.mark.usefixtures("mmsegmentation")
@pytest.mark.parametrize(("spec", "dataset"), [("cityscapes", "CityscapesDataset"), ("ade20k", "ADE20KDataset")])
def test_built_in_palettes_are_mmsegmentations(spec: str, dataset: str) -> None:
    from mmseg import datasets

    meta = getattr(datasets, dataset).METAINFO
    names, colours = palette_for(spec, len(meta["classes"]))
    assert names == tuple(meta["classes"])
    assert colours == tuple(map(tuple, meta["palette"]))


def test_a_file_with_and_without_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"names": ["sky", "été"], "colours": [[0, 0, 255], [1, 2, 3]]}), encoding="utf-8")
    assert palette_for(str(file), 2) == (("sky", "été"), ((0, 0, 255), (1, 2, 3)))
    file.write_text(json.dumps({"colours": [[0, 0, 255], [1, 2, 3]]}))
    assert palette_for(str(file), 2) == (None, ((0, 0, 255), (1, 2, 3)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("not json", "expected JSON as"),
        ("[[1, 2, 3], [4, 5, 6]]", "expected JSON as"),
        ('{"colours": [[1, 2], [3, 4]]}', "expected JSON as"),
        ('{"colours": [[1, 2, 3], [4, 5, 256]]}', "from 0 to 255"),
        ('{"colours": [[1, 2, 3], [4, 5, -1]]}', "from 0 to 255"),
        ('{"colours": [[1, 2, 3]]}', "has 1 classes, the model has 2"),
        ('{"names": ["one"], "colours": [[1, 2, 3], [4, 5, 6]]}', "has 1 names for 2 colours"),
    ],
)
def test_a_file_that_is_no_palette_gets_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(DovitError, match=sentence) as caught:
        palette_for(str(file), 2)
    assert "\n" not in str(caught.value)


def test_unknown_palettes_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="palette citiscapes: neither cityscapes nor ade20k, nor a file"):
        palette_for("citiscapes", 19)
    with pytest.raises(UsageError, match="palette cityscapes has 19 classes, the model has 150"):
        palette_for("cityscapes", 150)
    with pytest.raises(DovitError, match="cannot be read"):
        palette_for(str(tmp_path), 2)


def test_default_colours_are_vocs_without_its_black_and_all_differ() -> None:
    assert default_palette(4) == ((128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert default_palette(20)[-1] == (0, 64, 128)  # VOC's class 20, the TV
    assert len(set(default_palette(2000))) == 2000
    assert default_palette(0) == ()
