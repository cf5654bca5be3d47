"""Planted lesions: the table, the numbers as CSV, and one HTML page that opens from disk."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medjax.files import write_atomically
from medjax.measures.statistics import Standing
from medjax.report import charts
from medjax.report.charts import COLOURS
from medjax.report.page import template, versions
from medjax.report.pictures import Panel, colour_bar, image_png
from medjax.report.viewer import Setting, Shown, content, scores

HEADS = ["lesion", "method", "recovery", "lost", "invented", "d′", "p of recovery"]


@dataclass(frozen=True)
class Lesions:
    """Lesions of one contrast and diameter: what they are called, and numbers by method.

    `standings` are by measure ("recovery", "lost", "invented") and method, `d_prime` has the value and its interval.
    """

    name: str
    contrast: float
    diameter_mm: float
    standings: Mapping[str, Mapping[str, Standing]]
    d_prime: Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Crop:
    """One lesion: regions `(H, W)` by method with it and without it, the recovery by method, what is said of it."""

    title: str
    present: Mapping[str, np.ndarray]
    absent: Mapping[str, np.ndarray]
    recovery: Mapping[str, float]
    contrast: float
    spacing_mm: tuple[float, float]


def cells(found: Sequence[Lesions]) -> list[list[str]]:
    """The table: a line of heads, then every method for every kind of lesion, with 95 % intervals."""
    lines = [HEADS]
    for kind in found:
        recovery = kind.standings["recovery"]
        lines += [[kind.name, row, _between(recovery[row]), *(_percent(kind.standings[name][row]) for name in (
            "lost", "invented")), _d_prime(kind.d_prime[row]), _p(recovery[row].p)] for row in recovery]
    return lines


def _between(found: Standing) -> str:
    if not math.isfinite(found.low):
        return f"{found.mean:.2f}".replace("-", "−")
    return f"{found.mean:.2f} ({found.low:.2f} … {found.high:.2f})".replace("-", "−")


def _percent(found: Standing) -> str:
    mean, low, high = (100 * value for value in (found.mean, found.low, found.high))
    return f"{mean:.0f} % ({low:.0f} … {high:.0f})" if math.isfinite(low) else f"{mean:.0f} %"


def _d_prime(found: tuple[float, float, float]) -> str:
    value, low, high = found
    return f"{value:.2f} ({low:.2f} … {high:.2f})".replace("-", "−") if math.isfinite(value) else "–"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def to_csv(found: Sequence[Lesions]) -> str:
    """One line for each method and kind of lesion, all numbers; empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text)
    columns = [f"{name}{end}" for name in ("recovery", "lost", "invented") for end in ("", "_low", "_high", "_p")]
    writer.writerow(["lesion", "contrast", "diameter_mm", "method", *columns, "d_prime", "d_prime_low", "d_prime_high"])
    for kind in found:
        for row in kind.standings["recovery"]:
            values = [value for of in kind.standings.values() for value in (
                of[row].mean, of[row].low, of[row].high, of[row].p)]
            writer.writerow([kind.name, kind.contrast, kind.diameter_mm, row, *(
                "" if math.isnan(value) else value for value in [*values, *kind.d_prime[row]])])
    return text.getvalue()


def write(path: Path, *, title: str, task: str, step: int, data: str, found: Sequence[Lesions], crops: Sequence[Crop],
          shown: Shown, span: tuple[float, float], units: str, notes: Sequence[str], config: str) -> None:
    """Writes the page to `path`, whole or not at all. `shown` is an image with lesions, drawn over `span` in `units`."""
    rows = sorted(found[0].standings["recovery"], key=lambda row: (row != "model", row != "input"))
    legend = [{"name": row, "colour": COLOURS[i % len(COLOURS)]} for i, row in enumerate(rows)]
    html = template("lesions.html").render(
        title=title, task=task, step=step, data=data, table=cells(found), notes=notes, legend=legend,
        charts=_charts(found, rows), crops=[_crop(crop, units) for crop in crops], config=config, versions=versions(),
        viewer=content([shown], Setting(span, span, units)), scores=scores([shown.name], [{}], {}), colour_bar=colour_bar())
    write_atomically(path, html)


def _charts(found: Sequence[Lesions], rows: Sequence[str]) -> list[dict[str, Any]]:
    """Recovery, lost and d' over the size of the contrast, for each diameter."""
    made = []
    for name, label in (("recovery", "recovery"), ("lost", "share lost"), ("invented", "share invented"), ("d_prime", "d′")):
        for size in dict.fromkeys(kind.diameter_mm for kind in found):
            kinds = sorted((kind for kind in found if kind.diameter_mm == size), key=lambda kind: abs(kind.contrast))
            series = {row: [(abs(kind.contrast), value) for kind in kinds if math.isfinite(
                value := kind.d_prime[row][0] if name == "d_prime" else kind.standings[name][row].mean)] for row in rows}
            if any(series.values()):
                made.append({"label": f"{label}, {size:g} mm", "unit": "over contrast",
                             "svg": charts.lines(series, f"{label}, {size:g} mm", linear=True)})
    return made


def _crop(crop: Crop, units: str) -> dict[str, Any]:
    """A lesion's pictures: with it, and what differs from the image without it."""
    rows = sorted(crop.present, key=lambda row: (row != "truth", row != "model", row != "input"))
    truth, most = crop.absent["truth"], abs(crop.contrast)
    middle = float(np.median(truth))
    half = max(2 * most, float(np.percentile(np.abs(truth - middle), 90)))
    images = Panel(crop.title, dict(crop.present), (middle - half, middle + half), crop.spacing_mm)
    differences = Panel(crop.title, {row: crop.present[row] - crop.absent[row] for row in rows}, (-1.5 * most, 1.5 * most),
                        crop.spacing_mm)
    height, width = images.extent_mm
    figures = [{"name": row, "image": image_png(images, row), "difference": image_png(differences, row),
                "note": f"{100 * crop.recovery[row]:.0f} %".replace("-", "−") if row in crop.recovery else "planted"}
               for row in rows]
    return {"title": crop.title, "figures": figures, "aspect": f"{width:g} / {height:g}",
            "window": f"{middle - half:.4g} … {middle + half:.4g} {units}".replace("-", "−").strip()}
