"""What the viewer of a page shows: images by row, packed for `viewer.js`, and the scores of samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medjax.report.images import CT_WINDOWS, LEVELS, pack
from medjax.report.pictures import palette, round_up
from medjax.report.table import arrow, decimals
from medjax.types import Metric

MOST_BYTES = 16 * 2**20  # of a page's images, at two bytes a value
Span = tuple[float, float]


@dataclass(frozen=True)
class Shown:
    """One sample: its `images` `(H, W, C)` or `(D, H, W, C)` by row, in physical units and on one grid of `spacing_mm`.

    Where `mask` `(*space)` is False nothing counts, and no error is drawn. `half_width` `(*space)` is that of intervals.
    What `anatomical` means is said at `medjax.report.pictures.Panel`.
    """

    name: str
    images: Mapping[str, np.ndarray]
    spacing_mm: tuple[float, ...] = ()
    anatomical: bool = False
    mask: np.ndarray | None = None
    half_width: np.ndarray | None = None


@dataclass(frozen=True)
class Setting:
    """How samples are shown: values are kept over `span` and first shown in the window `window`, both (low, high) in
    `units`; errors are distances from the row `truth`, called `error`; half-widths are those of the row `estimate`.
    """

    span: Span
    window: Span
    units: str
    truth: str = "truth"
    estimate: str = "model"
    error: str = "error"


@dataclass(frozen=True)
class Content:
    """What a template needs: facts as JSON has them, and packed images by code."""

    facts: dict[str, Any]
    packed: dict[str, str] = field(default_factory=dict)


def content(shown: Sequence[Shown], setting: Setting, most: int = MOST_BYTES) -> Content:
    """The samples in their order, as many as fit in `most` bytes; of the first, if it is too large, its middle."""
    packed: dict[str, str] = {}
    samples: list[dict[str, Any]] = []
    for sample, first, whole in _fitting(shown, most):
        code = len(samples)
        images: dict[str, str] = {}
        shape: tuple[int, ...] = ()
        for row, image in sample.images.items():
            images[row] = f"{code}-{len(images)}"
            packed[images[row]], shape = pack(_shades(image), setting.span, sample.anatomical)
        facts: dict[str, Any] = {
            "name": sample.name, "images": images, "shape": shape[:3], "first": first, "whole": whole,
            "channels": {row: _shades(image).shape[-1] for row, image in sample.images.items()},
            "spacing": [*(1.0,) * (3 - len(sample.spacing_mm)), *sample.spacing_mm], "in_mm": bool(sample.spacing_mm),
            "anatomical": sample.anatomical, "limit": _limit(sample, setting.truth)}
        if sample.mask is not None and not sample.mask.all():
            packed[f"{code}-mask"], _ = pack(sample.mask[..., None], (0, 1), sample.anatomical)
            facts["mask"] = f"{code}-mask"
        if sample.half_width is not None:
            top = float(np.nanmax(sample.half_width)) or 1.0
            packed[f"{code}-half"], _ = pack(sample.half_width[..., None], (0, top), sample.anatomical)
            facts["half"] = {"image": f"{code}-half", "top": top}
        samples.append(facts)
    return Content({"samples": samples, "span": setting.span, "window": setting.window, "units": setting.units,
                    "levels": LEVELS, "presets": CT_WINDOWS if setting.units == "HU" else {}, "truth": setting.truth,
                    "estimate": setting.estimate, "error": setting.error,
                    "palette": [f"{r:02x}{g:02x}{b:02x}" for r, g, b in palette()]}, packed)


def scores(names: Sequence[str], per_sample: Sequence[Mapping[str, Mapping[str, float]]],
           metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """The scores of all samples by row and metric, for tables that sort and filter them."""
    rows = list(dict.fromkeys(row for sample in per_sample for row in sample))
    found = {row: {name: [sample.get(row, {}).get(name, np.nan) for sample in per_sample] for name in metrics
                   if any(name in sample.get(row, {}) for sample in per_sample)} for row in rows}
    known = [name for name in metrics if any(name in values for values in found.values())]
    each = {name: [value for values in found.values() for value in values.get(name, [])] for name in known}
    return {"names": list(names),
            "metrics": [{"name": name, "heading": metrics[name].heading, "arrow": arrow(metrics[name]),
                         "lower_is_better": metrics[name].lower_is_better, "decimals": decimals(metrics[name], each[name])}
                        for name in known],
            "rows": {row: {name: [_number(value) for value in column] for name, column in values.items()}
                     for row, values in found.items()}}


def _number(value: float) -> float | str | None:
    """A number as JSON has it: null for none, the word for infinity."""
    if np.isnan(value):
        return None
    return float(f"{value:.7g}") if np.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


def _fitting(shown: Sequence[Shown], most: int) -> Iterator[tuple[Shown, int, int]]:
    """The samples that fit, each with the number of its first slice (of an image: row), and how many there were."""
    used = 0
    for i, sample in enumerate(shown):
        size = 2 * sum(_shades(image).size for image in sample.images.values())
        length = next(iter(sample.images.values())).shape[0]
        kept = length if used + size <= most else 0 if i else max(1, length * most // size)
        if not kept:
            return
        used += size
        first = (length - kept) // 2
        part = slice(first, first + kept)
        yield (sample if kept == length else Shown(
            sample.name, {row: image[part] for row, image in sample.images.items()}, sample.spacing_mm, sample.anatomical,
            *(None if a is None else a[part] for a in (sample.mask, sample.half_width)))), first, length


def _limit(sample: Shown, truth: str) -> float | None:
    """The top of the error scale, as `medjax.report.pictures.Panel.error_limit` has it; None where there is no truth."""
    if truth not in sample.images:
        return None
    counted = slice(None) if sample.mask is None else np.asarray(sample.mask, bool)
    right = np.asarray(sample.images[truth], np.float64)
    errors = [np.abs(image - right).mean(-1)[counted] for row, image in sample.images.items() if row != truth]
    return round_up(max((float(np.nanpercentile(e, 99.5)) for e in errors if e.size), default=0.0))


def _shades(image: np.ndarray) -> np.ndarray:
    """One channel or three."""
    return image if image.shape[-1] == 3 else image[..., :1]
