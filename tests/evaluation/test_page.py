"""The HTML report: its numbers and pictures, no network requests, names that look like HTML, and the page in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import needs_browser, rendered
from bundles import make_bundle
from models import random_images, randomised, small_config, spreading_thresholds
from PIL import Image

from dovit.evaluation.data.dataset import Sample
from dovit.evaluation.evaluate import evaluate
from dovit.evaluation.page.figures import sweep_figures
from dovit.evaluation.page.gallery import SHOWN, Gallery
from dovit.evaluation.page.write import write_page
from dovit.evaluation.segmenter import BundleSegmenter, Setting
from dovit.runtime.loading import load
from dovit.runtime.result import Result

HOSTILE = '</script><script>window.hostile=1</script><img src=x onerror="window.hostile=1">'
NAMES = (HOSTILE, *(f"class {number} <b>" for number in range(1, 7)))
PALETTE = tuple((40 * number, 255 - 30 * number, 7 * number) for number in range(7))
IMAGES = 8


class Images:
    """Random images with random labels; the first rows have none."""

    class_names = NAMES
    palette = PALETTE
    classes = 7

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, number: int) -> Sample:
        image = random_images(small_config(image_size=(80, 112)), seed=number)[0].numpy()
        labels = np.random.default_rng(number).integers(0, 7, (80, 112)).astype(np.uint8)
        labels[:9] = 255
        return Sample(f"{number}{HOSTILE}\u202e", np.ascontiguousarray(image), labels)


class Page(HTMLParser):
    """Addresses, text outside scripts, the rows of tables and the number of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.pictures: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag == "img":
            found = dict(attrs)
            self.pictures[found["alt"] or ""] = found["src"] or ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and self.tags[-1] not in ("script", "style"):
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The page, the outcomes, the galleries, and every result as the evaluation saw it."""
    folder = tmp_path_factory.mktemp("report")
    model = randomised(small_config())
    make_bundle(model, folder / "engines")
    segmenter = BundleSegmenter(load(folder / "engines"))
    some = spreading_thresholds(model, random_images(model.config, batch=4))
    settings = [Setting(f"ξ {HOSTILE}", some), Setting("ξ = 1", (1.0,) * len(some))]
    galleries = [Gallery(segmenter.cost, PALETTE, model.config.image_size) for _ in settings]
    results: dict[tuple[int, str], tuple[Sample, Result]] = {}

    def look(place: int, sample: Sample, result: Result, costs: list[list[tuple[int, int]]]) -> None:
        galleries[place].add(sample, result, costs)
        results[place, sample.name] = sample, result

    outcomes = evaluate(segmenter, Images(), settings, observe=look)
    page = folder / "report.html"
    about = {"data": HOSTILE}
    write_page(page, outcomes, galleries, title=HOSTILE, about=about, names=NAMES, palette=PALETTE)
    return page, outcomes, galleries, results


def test_gallery_has_the_images_of_the_most_and_fewest_tokens_and_the_worst(report) -> None:  # type: ignore[no-untyped-def]
    _, _, galleries, results = report
    of_first = {name: found for (place, name), found in results.items() if place == 0}
    tokens = {name: sum(result.kept) for name, (_, result) in of_first.items()}
    assert len(set(tokens.values())) > 2
    right = {name: (r.labels == s.labels)[s.labels != 255].mean() for name, (s, r) in of_first.items()}
    gallery = galleries[0]
    assert len(gallery.fewest) == len(gallery.most) == len(gallery.worst) == SHOWN
    assert [sum(e.tokens[1:]) for e in gallery.fewest] == sorted(tokens.values())[:SHOWN]
    assert [sum(e.tokens[1:]) for e in gallery.most] == sorted(tokens.values(), reverse=True)[:SHOWN]
    assert [e.accuracy for e in gallery.worst] == pytest.approx([100 * v for v in sorted(right.values())[:SHOWN]])
    mean = np.mean([(r.tokens, *r.kept) for _, r in of_first.values()], axis=0)
    assert gallery.mean_tokens == pytest.approx(mean.tolist())


def test_page_fetches_nothing_and_shows_names_as_text(report) -> None:  # type: ignore[no-untyped-def]
    page, *_ = report
    text = page.read_text()
    found = Page(text)
    assert found.addresses and all(address.startswith("data:image/") for address in found.addresses)
    assert "link" not in found.tags and "iframe" not in found.tags
    assert "window.hostile=1</script>" not in text and "<img src=x" not in text and "\u202e" not in text
    assert found.tags.count("title") == 1 and "default-src 'none'" in text


def test_tables_have_the_numbers_of_the_results(report) -> None:  # type: ignore[no-untyped-def]
    page, outcomes, *_ = report
    rows = Page(page.read_text()).rows
    for outcome in outcomes:
        summary = outcome.confusion.summary()
        row = next(row for row in rows if row[0] == outcome.setting.name)
        assert row[1:4] == [f"{summary[key]:.2f}" for key in ("mIoU", "PA", "mPA")]
        assert row[6:8] == [f"{100 * share:.1f}" for share in outcome.macs_ratio]
        for number, iou in enumerate(outcome.confusion.iou):
            assert any(row[:2] == [NAMES[number], f"{100 * iou:.2f}"] for row in rows), (number, iou)


def test_pictures_are_the_labels_in_their_colours_and_the_truth_beside_them(report) -> None:  # type: ignore[no-untyped-def]
    page, _, galleries, results = report
    pictures = Page(page.read_text()).pictures
    entry = galleries[1].worst[0]  # the later setting's pictures replace those of the first under the same name
    sample, result = next(found for (place, name), found in results.items() if place == 1 and name[0] == entry.name[0])
    expected = np.asarray(PALETTE, np.uint8)[result.labels]
    truth = np.where((sample.labels == 255)[..., None], 0, np.asarray(PALETTE, np.uint8)[sample.labels % 7])
    for caption, colours in (("labels", expected), ("truth", truth)):
        data = pictures[f"{entry.name}: {caption}"].partition(",")[2]
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")), colours)


def test_each_setting_of_a_sweep_has_its_place_on_the_axis(report) -> None:  # type: ignore[no-untyped-def]
    """Equal texts would be one place: settings may differ in one decision's ξ alone."""
    _, [outcome, _], *_ = report
    swept = [
        replace(outcome, setting=Setting.of(thresholds)) for thresholds in ((0.9, 0.95), (0.9, 0.98), (0.97, 0.97))
    ]
    for _, figure in sweep_figures(swept)[:2]:
        for line in figure.data:
            assert list(line.x) == ["0.9/0.95", "0.9/0.98", "0.97"]


@needs_browser
def test_browser_shows_values_on_hover(report, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    page, outcomes, *_ = report
    shown = tmp_path / "report.html"
    hover = """<script>
        document.body.dataset.names = JSON.stringify([...document.querySelectorAll(".name b")].map(b => b.textContent));
        setTimeout(() => {
            Plotly.Fx.hover("sweep-0", [{curveNumber: 0, pointNumber: 1}]);
            setTimeout(() => {
                document.body.dataset.hover = document.querySelector("#sweep-0 .hoverlayer").textContent;
                document.body.dataset.drawn = document.querySelectorAll(".main-svg").length;
                document.body.dataset.hostile = String(window.hostile);
            }, 500);
        }, 500);
    </script>"""
    shown.write_text(page.read_text().replace("</body>", hover + "</body>"))
    (body,) = re.findall(r"<body[^>]*>", rendered(shown, tmp_path / "profile"))
    parser = HTMLParser()
    found: dict[str, str | None] = {}
    parser.handle_starttag = lambda tag, attrs: found.update(attrs)  # type: ignore[method-assign]
    parser.feed(body)
    miou = max(outcomes, key=lambda o: o.setting.thresholds).confusion.summary()["mIoU"]
    assert f"{miou:.2f} %" in (found["data-hover"] or "")
    assert int(found["data-drawn"] or 0) >= 6  # each figure has one or more
    assert found["data-hostile"] == "undefined"
    assert HOSTILE in json.loads(found["data-names"] or "")[0]
