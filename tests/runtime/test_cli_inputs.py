"""Images on the command line, and which files they mean; outputs that are never overwritten by accident."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dovit.runtime.cli.inputs import Input, find_inputs, page_count, read_suffixes
from dovit.runtime.cli.outputs import check_outputs, plan_pictures
from dovit.runtime.draw import save
from dovit.runtime.errors import UsageError
from dovit.runtime.images import read_pages


def found(*given: Path, **options: object) -> list[str]:
    return [str(one.below / one.file.name) for one in find_inputs(map(str, given), **options)]  # type: ignore[arg-type]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "notes.txt", "c.png", "below/d.webp", "below/further/e.tif", "out/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "deeper.png").mkdir()
    return tmp_path


def test_files_folders_and_globs(tree: Path) -> None:
    assert found(tree) == ["a.JPG", "b.png", "c.png"]
    assert found(tree / "*.png") == ["b.png", "c.png"]
    assert found(tree / "c.png", tree / "*.png", tree / "b.png") == ["c.png", "b.png"]
    assert found(tree / "gone.png") == ["gone.png"]  # reading it says that it is missing, and the others still run


def test_recursion_keeps_the_folders_and_leaves_out_where_outputs_go(tree: Path) -> None:
    names = ["a.JPG", "b.png", "c.png", "below/d.webp", "below/further/e.tif"]
    assert found(tree, recursive=True) == [*names, "out/a.png"]
    assert found(tree, recursive=True, skip=tree / "out") == names


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").touch()
    assert found(tmp_path / "a[1].png") == ["a[1].png"]


def test_what_cannot_be_an_input_is_a_sentence(tree: Path) -> None:
    (tree / "hollow").mkdir()
    for text, sentence in {
        str(tree / "hollow"): "--recursive looks into its folders",
        str(tree / "*.bmp"): "no file matches",
        "-": "not read from standard input",
        "https://example.org/a.png": "URLs are not fetched",
    }.items():
        with pytest.raises(UsageError, match=sentence):
            find_inputs([text])


def test_a_missing_path_is_refused_where_all_must_exist(tree: Path) -> None:
    assert found(tree / "c.png", tree / "*.png", must_exist=True) == ["c.png", "b.png"]
    for name, sentence in {"gone/": "no such file or folder", "a" * 300: "cannot be read .File name too long."}.items():
        text = f"{tree}/{name}"
        assert len(find_inputs([text])) == 1
        with pytest.raises(UsageError, match=f"{name}: {sentence}; check the path"):
            find_inputs([str(tree), text], must_exist=True)


def test_suffixes_are_what_pillow_reads() -> None:
    assert {".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".webp", ".bmp", ".ppm"} <= read_suffixes()
    assert not {".pdf", ".mpg", ".txt"} & read_suffixes()
    Image.init()
    for suffix, kind in ((".avif", "AVIF"), (".jp2", "JPEG2000"), (".jxl", "JXL")):
        assert (suffix in read_suffixes()) == (kind in Image.OPEN)


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp"])
def test_pages(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    first, *others = [Image.new("RGB", (8, 6), (40 * k, 0, 0)) for k in range(3)]
    first.save(file, save_all=True, append_images=others, **({"lossless": True} if suffix == "webp" else {}))
    assert page_count(file) == 3
    pages = list(read_pages(file))
    assert [page.shape for page in pages] == [(6, 8, 3)] * 3
    np.testing.assert_allclose([page[0, 0, 0] for page in pages], [0, 40, 80], atol=1)


def test_one_page_and_what_cannot_be_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(b"II*\0 and no more")
    assert page_count(tmp_path / "a.png") == page_count(tmp_path / "b.tif") == page_count(tmp_path / "gone.tif") == 1


def test_outputs_of_pages_have_different_names() -> None:
    inputs = [Input(Path("a.tif")), Input(Path("a.p2.png")), Input(Path("x/a.png"), Path("x"))]
    pictures = plan_pictures(inputs, [3, 1, 1], Path("out"), [".png"])
    outputs = [str(picture.output(".png")) for picture in pictures]
    assert outputs == ["out/a.png", "out/a.p2.png", "out/a.p3.png", "out/a_p2_png.png", "out/x/a.png"]


def test_only_an_output_of_the_same_image_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("out")

    def check(file: str, *, overwrite: bool = False) -> None:
        [picture] = plan_pictures([Input(Path(file))], [1], Path("out"), [".png"])
        check_outputs([picture], [".png"], overwrite=overwrite)
        save(Image.new("L", (2, 2)), picture.output(".png"), picture.source)

    check("x/a.png")
    check(str(tmp_path / "x" / "a.png"))  # the same, typed in another way
    with pytest.raises(
        UsageError, match=r"out/a\.png is there and was made from x/a\.png: give --out .*or --overwrite"
    ):
        check("y/a.png")
    check("y/a.png", overwrite=True)
    check("y/a.png")
    Image.new("L", (2, 2)).save("out/a.png")
    with pytest.raises(UsageError, match="was not written by dovit-run"):
        check("y/a.png")
