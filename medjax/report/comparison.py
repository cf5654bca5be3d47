"""The page of two images on one grid: the viewer of a report, with what differs between them."""

from pathlib import Path

import numpy as np

from medjax.files import write_atomically
from medjax.report.images import LEVELS
from medjax.report.page import template
from medjax.report.pictures import colour_bar
from medjax.report.viewer import Setting, Shown, Span, content, scores
from medjax.types import Metric

INPUT, OUTPUT = "input", "output"
NAME = "images"
MOST_BYTES = 160 * 2**20  # of the page's images; browsers hold a text of up to 512 MB


def write(path: Path, before: np.ndarray, after: np.ndarray, *, units: str, spacing_mm: tuple[float, ...], anatomical: bool,
          half_width: np.ndarray | None, note: str) -> None:
    """Writes the page of two images `(H, W, C)` or `(D, H, W, C)` in `units` to `path`, whole or not at all.

    `half_width` `(*space)` is that of intervals around the second one. What `anatomical` means is said at
    `medjax.report.pictures.Panel`.
    """
    shown = Shown(NAME, {INPUT: before, OUTPUT: after}, spacing_mm, anatomical, None, half_width)
    span = _span(before, after)
    low, high = (float(value) for value in np.nanpercentile(after, (0.5, 99.5)))
    setting = Setting(span, (low, high) if low < high else span, units, truth=INPUT, estimate=OUTPUT, error="difference")
    distance = np.abs(np.asarray(after, np.float64) - before)
    numbers = {"mean": float(np.nanmean(distance)), "rms": float(np.sqrt(np.nanmean(distance**2))),
               "most": float(np.nanmax(distance))}
    metrics = {name: Metric(name, label, units, lower_is_better=True) for name, label in (
        ("mean", "mean absolute difference"), ("rms", "root mean square difference"), ("most", "largest difference"))}
    write_atomically(path, template("comparison.html").render(
        viewer=content([shown], setting, MOST_BYTES), scores=scores([NAME], [{OUTPUT: numbers}], metrics), note=note,
        colour_bar=colour_bar()))


def _span(before: np.ndarray, after: np.ndarray) -> Span:
    """The range of values; of whole numbers in up to 4096 steps one in which each is a step."""
    low = min(float(np.nanmin(image)) for image in (before, after))
    high = max(float(np.nanmax(image)) for image in (before, after))
    whole = all(np.array_equal(image, np.rint(image)) for image in (before, after))
    return low, low + LEVELS if whole and high - low <= LEVELS else high if high > low else low + 1
