"""The report page and the terminal table, read back the way a reader's browser and eyes would."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from medjax.measures._declared import metrics_of
from medjax.measures.statistics import Standing
from medjax.report.page import Panel, Shown, write
from medjax.report.table import aligned, standing_cells, table

ROWS = {
    "input": {"psnr": 26.07, "ssim": 0.61, "mse": 250.0},
    "nlm": {"psnr": 34.9, "ssim": 0.93, "mse": 33.0},
    "tv": {"psnr": 33.0, "ssim": 0.94, "mse": 40.0},
    "model": {"psnr": 38.11, "ssim": 0.97, "mse": 0.125},
}
METRICS = {metric.name: replace(metric, unit=metric.unit.format(units="units"))
           for metric in metrics_of(("psnr", "ssim", "mse"))}
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tags with their attributes, text by class, and whether every tag is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("class")))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.text.append((*self.open[-1], data.strip()))

    def images(self) -> dict[str, np.ndarray]:
        found = {}
        for tag, attributes in self.tags:
            if tag == "img":
                data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
                found[attributes["alt"]] = np.asarray(Image.open(io.BytesIO(data)))
        return found

    def of(self, tag: str, kind: str | None = None) -> list[str]:
        return [text for t, k, text in self.text if t == tag and text and (kind is None or k == kind)]


def panel(**changes) -> Panel:
    truth = np.arange(12.0).reshape(3, 4) * 10
    images = {"input": truth + 8, "nlm": truth - 4, "model": truth + 2, "truth": truth}
    usual = {"name": "head, axial 3", "images": images, "window": (0.0, 110.0), "spacing_mm": (2.0, 1.0)}
    return Panel(**usual | changes)


def page(tmp_path, **changes) -> tuple[Page, str]:
    per_sample = [{row: values | {"psnr": values["psnr"] + i} for row, values in ROWS.items()} for i in range(7)]
    curves = {"train/model/loss": [(10 * i, 0.1 * 0.9**i) for i in range(50)], "train/images_per_s": [(0, 5.0)],
              "eval/psnr": [(0, 20.0), (500, float("nan")), (1000, 38.0)]}
    arguments = {"title": "quickstart", "task": "denoise", "split": "test", "data_range": (0, 255),
                 "rows": ROWS, "per_sample": per_sample, "curves": curves, "panels": [panel()], "shown": [],
                 "standings": {}, "patients": 1, "config": "lr: 1e-3",
                 "names": [f"s{i}" for i in range(7)], "metrics": METRICS}
    write(tmp_path / "report.html", **arguments | changes)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    return Page(html), html


def test_page_is_whole_and_needs_no_network(tmp_path):
    found, html = page(tmp_path)
    assert found.open == []
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert not any(tag == "iframe" or "src" in a for tag, a in found.tags if tag != "img")
    assert [a["href"] for tag, a in found.tags if tag == "link"] == ["data:,"]
    assert "default-src 'none'" in html
    assert not re.search(r"https?://|url\(|@import", html)
    assert all(a["src"].startswith("data:") for tag, a in found.tags if tag == "img")
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in found.tags
    assert "prefers-color-scheme: dark" in html
    assert "lr: 1e-3" in "".join(found.of("pre"))


@pytest.mark.parametrize(("psnr", "sentence"), [
    (38.11, "model: 38.1 dB PSNR, 12.0 dB above the input, 3.2 dB above the best reference nlm"),
    (30.0, "model: 30.0 dB PSNR, 3.9 dB above the input, 4.9 dB below the best reference nlm"),
])
def test_headline(tmp_path, psnr, sentence):
    _, html = page(tmp_path, rows=ROWS | {"model": {"psnr": psnr}})
    heading = re.search("<h1>(.*?)</h1>", html, re.DOTALL)[1]
    assert re.sub("<.*?>", "", heading) == sentence


def test_best_values_are_bold_in_the_right_direction(tmp_path):
    found, _ = page(tmp_path, rows=ROWS | {"tv": {"psnr": 33.0, "ssim": 0.99, "mse": float("nan")}})
    assert found.of("td", "best") == ["0.9900", "38.11", "0.125"]
    assert [text for text in found.of("th") if text.endswith(("↑", "↓"))] == ["PSNR dB ↑", "SSIM ↑", "MSE units² ↓"]
    assert "–" in found.of("td")


def test_pictures_share_one_window_in_true_proportions(tmp_path):
    images = page(tmp_path)[0].images()
    truth = images["head, axial 3, truth"]
    height, width = truth.shape
    assert height / width == pytest.approx(3 * 2.0 / (4 * 1.0), rel=0.02)
    shown = truth[height // 6 :: height // 3, width // 8 :: width // 4]
    np.testing.assert_array_equal(shown, np.round(np.arange(12.0).reshape(3, 4) * 10 / 110 * 255))
    brighter = images["head, axial 3, input"][height // 6, width // 8]
    assert brighter == round(8 / 110 * 255)


def test_anatomical_images_show_the_right_on_the_left_and_anterior_up(tmp_path):
    plain = page(tmp_path)[0].images()
    turned, html = page(tmp_path, panels=[panel(anatomical=True)],
                        shown=[Shown("head", {"truth": np.zeros((3, 4, 1))}, anatomical=True)])
    for name, picture in turned.images().items():
        np.testing.assert_array_equal(picture, plain[name][::-1, ::-1])
    assert "patient’s right is on the left" in html


def test_errors_are_on_one_scale_from_zero(tmp_path):
    found, _ = page(tmp_path)
    errors = {name.rpartition(" ")[2]: picture for name, picture in found.images().items() if "error" in name}
    brightness = {name: picture[0, 0].astype(int).sum() for name, picture in errors.items()}
    assert brightness["input"] > brightness["nlm"] > brightness["model"] > 10
    assert "8" in found.of("span")
    assert not any("error of truth" in name for name in found.images())
    whole = page(tmp_path, panels=[panel(mask=np.zeros((3, 4), bool))])[0].images()
    assert whole["head, axial 3, error of input"].max() <= 5


@pytest.mark.parametrize(("width", "spacing", "label", "percent"), [
    (240, 0.9, "50 mm", 23.15), (100, 0.05, "1 mm", 20.0), (9, 5.0, "10 mm", 22.22)])
def test_scale_bar_is_a_round_length_drawn_once(tmp_path, width, spacing, label, percent):
    images = {name: np.zeros((8, width)) for name in ("input", "model", "truth")}
    found, _ = page(tmp_path, panels=[panel(images=images, spacing_mm=(spacing, spacing))])
    bars = [a["style"] for tag, a in found.tags if a.get("class") == "bar"]
    assert bars == [f"width: {percent:.2f}%"]
    assert label in found.of("span")


def test_intervals_have_a_table_charts_and_pictures(tmp_path):
    """Half-widths are on the scale of errors; white is where the error is larger than they are."""
    curves = {"std": [1.0, 2.0], "error": [1.1, 2.3], "share": [0, 0.5], "sparsification": [1.0, 0.8], "oracle": [1.0, 0.5]}
    found = {"level": 0.9, "coverage": 0.91, "coverage_low": 0.88, "coverage_high": 0.93, "patients": 5,
             "calibration_patients": 1, "guaranteed": 0.45, "width": 6.5, "slope": 1.2, "monotone": True, "ause": 0.1,
             "ause_random": 0.2, "curves": curves}
    width = np.full((3, 4), 8.0)
    width[0, 0] = 1.0  # the model's error is 2
    shown, _ = page(tmp_path, intervals=found, units="HU", panels=[panel(half_width=width)])
    cells = {*shown.of("td"), *shown.of("th")}
    assert {"91.0 %", "88.0 % … 93.0 %", "≥ 45.0 %", "6.5", "mean width HU"} <= cells
    assert "expected of any new patient, from 1 patient" in cells
    charts = [a["aria-label"] for tag, a in shown.tags if tag == "svg"]
    assert {"error over standard deviation", "error that remains"} <= set(charts)
    images = shown.images()
    outside, widths = images["head, axial 3, outside"], images["head, axial 3, half-width of the interval"]
    assert outside[0, 0] == 255
    assert outside[-1, -1] == 0
    np.testing.assert_array_equal(widths[-1, -1], images["head, axial 3, error of input"][-1, -1])  # both are 8
    one, _ = page(tmp_path, intervals=found | {"slope": None, "coverage_low": None}, panels=[])
    assert not {"error over standard deviation"} & {a.get("aria-label") for _, a in one.tags}


def test_photographs_are_shown_as_they_are(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (30, 20, 3)).astype(float)
    found, _ = page(tmp_path, panels=[Panel("cell", {"input": photo, "model": photo, "truth": photo}, (0, 255))])
    shown = found.images()["cell, truth"]
    step = shown.shape[0] // 30
    np.testing.assert_array_equal(shown[::step, ::step], photo)
    assert not [a for _, a in found.tags if a.get("class") == "bar"]


def test_what_the_user_named_is_text_not_markup(tmp_path):
    found, html = page(tmp_path, title="<script>alert(1)</script>", config="a < b", panels=[panel(name='x" onload="y')],
                       rows={"<i>": {"psnr": 1.0}, "model": {"psnr": 2.0}})
    assert "<script>alert" not in html
    assert "<i>" not in html
    assert not any("onload" in a for _, a in found.tags)
    assert "a < b" in found.of("pre")


def test_nothing_half_written_stays(tmp_path):
    broken = panel(images={"input": np.zeros((3, 4)), "truth": np.zeros((2, 2))})
    page(tmp_path)
    before = (tmp_path / "report.html").read_text()
    with pytest.raises(ValueError, match="broadcast"):
        page(tmp_path, panels=[broken])
    assert (tmp_path / "report.html").read_text() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_page_of_little(tmp_path):
    """No curves, no baseline, no panel, one sample, a perfect score: still a page."""
    one = [{"model": {"psnr": float("inf")}}]
    rows = {"input": {"psnr": 20.0}, "model": {"psnr": float("inf")}}
    found, _ = page(tmp_path, rows=rows, per_sample=one, curves={}, panels=[], names=["a"])
    assert "∞" in found.of("td")
    assert not any(tag == "svg" for tag, _ in found.tags)
    assert found.of("p")[0] == "quickstart · denoise · test split, 1 sample"


def test_loss_curve_is_straight_where_it_decays_exponentially(tmp_path):
    found, _ = page(tmp_path)
    charts = [a["aria-label"] for tag, a in found.tags if tag == "svg"]
    assert charts == ["PSNR", "SSIM", "MSE", "model loss", "validation PSNR", "images per s"]
    path = next(a["points"] for tag, a in found.tags if tag == "polyline")
    x, y = np.array([point.split(",") for point in path.split()], float).T
    np.testing.assert_allclose(y, np.polyval(np.polyfit(x, y, 1), x), atol=0.2)
    assert y[-1] > y[0]
    assert (np.diff(x) > 0).all()


def test_strip_boxes_are_the_quartiles(tmp_path):
    _, html = page(tmp_path)
    strip = re.search(r'<svg[^>]*aria-label="PSNR".*?</svg>', html, re.DOTALL)[0]
    dots = np.array(re.findall(r'<circle cx="([\d.]+)"', strip), float).reshape(3, 7)
    boxes = np.array(re.findall(r'class="box" x="([\d.]+)"[^>]*width="([\d.]+)"', strip), float)
    np.testing.assert_allclose(boxes[:, 0], np.percentile(dots, 25, axis=1), atol=0.15)
    np.testing.assert_allclose(boxes.sum(1), np.percentile(dots, 75, axis=1), atol=0.15)


def test_hardest_samples_are_the_worst_of_the_model(tmp_path):
    assert page(tmp_path)[0].of("code") == ["s0", "s1", "s2"]


def test_terminal_table():
    lines = table(ROWS | {"odd": {"psnr": float("nan")}}, METRICS).splitlines()
    assert lines[0].split() == ["PSNR", "dB", "↑", "SSIM", "↑", "MSE", "units²", "↓"]
    assert [line.split()[0] for line in lines[2:]] == [*ROWS, "odd"]
    assert lines[5].split() == ["model", "38.11*", "0.9700*", "0.125*"]
    assert lines[6].split() == ["odd", "–", "–", "–"]
    ends = [[m.start() for m in re.finditer(r"\.", line)] for line in lines[2:6]]
    assert all(end == ends[0] for end in ends)


def test_intervals_and_tests_stand_beside_the_means_where_there_are_patients(tmp_path):
    found = {"nlm": Standing(33.1234, 32.0, 34.2, 1.5, 0.0004), "model": Standing(34.6234, 33.5, 35.7)}
    _, html = page(tmp_path, standings=found, patients=12)
    assert "Over 12 patients" in html
    text = aligned(standing_cells(found, METRICS["psnr"], "model"))
    assert text.splitlines()[2].split() == ["nlm", "33.12", "32.00", "…", "34.20", "1.50", "<", "0.001"]
    assert text.splitlines()[3].split() == ["model", "34.62", "33.50", "…", "35.70", "–", "–"]
    _, html = page(tmp_path, standings=found, patients=1)
    assert "One patient: nothing is said of others" in html
    assert "33.12" not in html
