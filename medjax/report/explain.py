"""Explanations of a run's results: pictures, the table, and one HTML page that opens from disk."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medjax.files import write_atomically
from medjax.measures.attribution import Curve
from medjax.measures.statistics import interval
from medjax.report import charts
from medjax.report.charts import COLOURS
from medjax.report.page import template, versions
from medjax.report.pictures import Panel, image_png

POSITIVE, NEGATIVE = (255, 122, 40), (60, 130, 255)  # colours of attributions by their sign
HEADS = ["map", "deletion area ↓", "insertion area ↑", "images"]


@dataclass(frozen=True)
class Shown:
    """One image `(H, W)` with maps of it by name, and its deletion and insertion curves; `facts` are said of it."""

    title: str
    image: np.ndarray
    maps: Mapping[str, np.ndarray]
    curves: Mapping[str, tuple[Curve, Curve]]
    facts: Sequence[str]
    window: tuple[float, float]
    spacing_mm: tuple[float, ...] = ()
    anatomical: bool = False


def cells(curves: Sequence[Mapping[str, tuple[Curve, Curve]]]) -> list[list[str]]:
    """The table: a line of heads, then every map with the mean areas over images, and 95 % intervals of several."""
    names = list(dict.fromkeys(name for one in curves for name in one))
    lines = [HEADS]
    for name in names:
        areas = [[pair[k].area for one in curves if (pair := one.get(name))] for k in (0, 1)]
        lines.append([name, *(_mean(np.array(values)) for values in areas), str(len(areas[0]))])
    return lines


def _mean(values: np.ndarray) -> str:
    low, high = interval(values)
    text = f"{values.mean():.3f}" + (f" ({low:.3f} … {high:.3f})" if math.isfinite(low) else "")
    return text.replace("-", "−")


def overlay(image: np.ndarray, values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """A map over an image, both `(H, W)`, as colours `(H, W, 3)` 0 … 255: orange positive, blue negative, by size."""
    low, high = window
    grey = np.clip((np.asarray(image, np.float64) - low) / max(high - low, 1e-12), 0, 1)[..., None] * 255
    size = np.abs(values) / max(float(np.percentile(np.abs(values), 99.8)), 1e-12)
    alpha = np.sqrt(np.clip(size, 0, 1))[..., None] * 0.85
    colour = np.where(values[..., None] >= 0, np.array(POSITIVE), np.array(NEGATIVE))
    return grey * (1 - alpha) + colour * alpha


def picture(shown: Shown, name: str) -> bytes:
    """The PNG of a map over its image; "" is the image alone."""
    coloured = overlay(shown.image, shown.maps.get(name, np.zeros(shown.image.shape)), shown.window)
    panel = Panel(shown.title, {name: coloured}, (0, 255), shown.spacing_mm, anatomical=shown.anatomical)
    return base64.b64decode(image_png(panel, name))


def write(path: Path, *, title: str, task: str, shown: Sequence[Shown], table: Sequence[Sequence[str]],
          notes: Sequence[str], config: str) -> None:
    """Writes the page to `path`, whole or not at all."""
    rows = list(dict.fromkeys(name for one in shown for name in one.curves))
    legend = [{"name": row, "colour": COLOURS[i % len(COLOURS)]} for i, row in enumerate(rows)]
    write_atomically(path, template("explain.html").render(
        title=title, task=task, table=table, notes=notes, legend=legend, images=[_image(one, rows) for one in shown],
        config=config, versions=versions()))


def _image(one: Shown, rows: Sequence[str]) -> dict[str, Any]:
    height, width = Panel(one.title, {"": one.image}, one.window, one.spacing_mm).extent_mm
    figures = [{"name": name or "image", "image": base64.b64encode(picture(one, name)).decode()} for name in ("", *one.maps)]
    made = []
    for k, label in enumerate(("deletion", "insertion")):
        series = {row: [(float(s), float(v)) for s, v in zip(one.curves[row][k].share, one.curves[row][k].left, strict=True)]
                  for row in rows if row in one.curves}
        made.append({"label": label, "unit": "score left over share of voxels",
                     "svg": charts.lines(series, label, linear=True)})
    return {"title": one.title, "facts": one.facts, "figures": figures, "aspect": f"{width:g} / {height:g}", "charts": made}
