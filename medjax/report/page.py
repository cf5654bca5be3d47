"""The report of an evaluation: one HTML page that opens from disk, with nothing to fetch."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from medjax.files import write_atomically
from medjax.measures.removed import LEVEL
from medjax.measures.statistics import Standing
from medjax.report import charts
from medjax.report.pictures import Panel, colour_bar, error_png, half_width_png, image_png, outside_png, removed_png
from medjax.report.table import arrow, attack_cells, best, columns, consistency_cells, interval_cells, standing_cells, texts
from medjax.report.viewer import Setting, Shown, content, scores
from medjax.types import Metric

__all__ = ["Panel", "Shown", "write"]

Rows = Mapping[str, Mapping[str, float]]
Metrics = Mapping[str, Metric]
Curves = Mapping[str, Sequence[tuple[int, float]]]
PACKAGES = ("medjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def write(path: Path, *, title: str, task: str, split: str, names: Sequence[str], data_range: tuple[float, float],
          metrics: Metrics, rows: Rows, per_sample: Sequence[Rows], curves: Curves, panels: Sequence[Panel],
          shown: Sequence[Shown], standings: Mapping[str, Standing], patients: int, config: str,
          intervals: Mapping[str, Any] | None = None, consistency: Mapping[str, Any] | None = None, units: str = "",
          attacks: Mapping[str, Any] | None = None, private: str = "") -> None:
    """Writes the page to `path`, whole or not at all.

    `rows` are the means by method ("input", the references, "model") and metric; the first metric leads. `per_sample`
    is the same for each sample, `names` what the samples are called. `metrics` says what each metric is. `shown` are the
    samples of the viewer, in the order in which they are kept until the page is full. `standings` are
    the methods over the `patients` by the first metric. `curves` are what the run logged, by name (`train/...`,
    `eval/...`), as (step, value). `intervals` are what `medjax.measures.intervals.numbers` has of the model's, in `units`;
    `consistency` what `medjax.evaluation.consistency` has of reconstructions. `attacks` are those of membership inference by
    name (`Attack.numbers`), `private` says what privacy was spent.
    """
    leading, others = curve_charts({name: {name: points} for name, points in curves.items()}, metrics)
    html = template("page.html").render(
        title=title, task=task, split=split, n=len(names), data_range=_interval(data_range),
        headline=headline(rows, metrics), columns=[column_of(metrics[name]) for name in columns(rows)],
        table=mean_table(rows, metrics), patients=patients,
        standings=standing_cells(standings, metrics[columns(rows)[0]], "model") if standings else [],
        intervals=_intervals(intervals, units) if intervals else None,
        consistency={"cells": consistency_cells(consistency), "unit": consistency["unit"]} if consistency else None,
        panels=[_panel(panel, metrics) for panel in panels],
        anatomical=any(sample.anatomical for sample in shown), strips=_strips(rows, per_sample, metrics),
        hardest=_hardest(rows, per_sample, names, metrics), curves=leading, more_curves=others,
        viewer=content(shown, Setting(data_range, data_range, units)), scores=scores(names, per_sample, metrics),
        removed=f"{100 * LEVEL:g} %" if any(panel.removed is not None for panel in panels) else "",
        config=config, versions=versions(), colour_bar=colour_bar(), attacks=attack_cells(attacks) if attacks else [],
        private=private)
    write_atomically(path, html)


def headline(rows: Rows, metrics: Metrics) -> charts.Markup:
    """The result in a sentence: the model's leading metric, and how far it is from the input and the best reference."""
    name = columns(rows)[0]
    m = metrics[name]
    if "model" not in rows:
        return charts.Markup("{} by {} methods").format(m.title, len(rows))
    value = rows["model"][name]
    parts: list[str] = [charts.Markup("<b>{}</b> {}").format(f"{_short(value, m.unit)} {m.unit}".strip(), m.title)]
    rival = best(rows, m, _references(rows))
    for row, words in (("input", "the input"), (rival, f"the best reference {rival}")):
        if row is not None and name in rows.get(row, {}):
            parts.append(_distance(value - rows[row][name], m.unit, words))
    return charts.Markup("model: ") + charts.Markup(", ").join(parts)


def column_of(metric: Metric) -> dict[str, str]:
    """What stands over a metric's column."""
    return {"label": metric.title, "unit": metric.unit, "arrow": arrow(metric)}


def _distance(difference: float, unit: str, words: str) -> str:
    side = "above" if difference >= 0 else "below"
    return f"{_short(abs(difference), unit)} {unit} {side} {words}".replace("  ", " ")


def _short(value: float, unit: str) -> str:
    return f"{value:.1f}" if unit == "dB" else f"{value:.3g}"


def _with_unit(metric: Metric, value: float) -> str:
    return f"{texts(metric, [value])[0]} {metric.unit if metric.unit == 'dB' else metric.title}"


def _references(rows: Rows) -> list[str]:
    return [row for row in rows if row not in ("input", "model")]


def mean_table(rows: Rows, metrics: Metrics) -> list[dict[str, Any]]:
    """The means of every row, with the best of each column."""
    names = columns(rows)
    leaders = {name: best(rows, metrics[name]) for name in names}
    written = {name: texts(metrics[name], [values.get(name) for values in rows.values()]) for name in names}
    return [{"name": row, "cells": [{"text": written[name][i], "best": leaders[name] == row} for name in names]}
            for i, row in enumerate(rows)]


def _panel(panel: Panel, metrics: Metrics) -> dict[str, Any]:
    height, width = panel.extent_mm
    compared = "truth" in panel.images
    figures = [{
        "name": name, "image": image_png(panel, name), "below": f"error of {name}",
        "error": error_png(panel, name) if compared and name != "truth" else "",
        "note": _caption(panel.scores.get(name, {}), metrics) or (
            "" if name != "truth" else f"window {_interval(panel.window)}"),
    } for name in panel.images]
    if panel.half_width is not None and compared:
        figures.append({"name": "outside", "image": outside_png(panel), "error": half_width_png(panel),
                        "below": "half-width of the interval",
                        "note": "of the interval; below, its half-width"})
    if panel.removed is not None:
        share = float((panel.removed != 0)[... if panel.mask is None else panel.mask].mean())
        figures.append({"name": "removed", "image": removed_png(panel), "error": "", "below": "",
                        "note": f"by the model, or added, beyond the noise: {100 * share:.1f} % of the voxels"})
    length, fraction = panel.scale_bar
    bar = {"percent": f"{100 * fraction:.2f}", "label": f"{length:g} mm"} if panel.spacing_mm else None
    return {"name": panel.name, "figures": figures, "aspect": f"{width:g} / {height:g}", "bar": bar,
            "limit": f"{panel.error_limit():g}" if compared else ""}


def _caption(scores: Mapping[str, float], metrics: Metrics) -> str:
    """The first two metrics that their units tell apart."""
    first = {metrics[name].unit or name: name for name in reversed(list(scores))}
    return ", ".join([_with_unit(metrics[name], scores[name]) for name in scores if name in first.values()][:2])


def _intervals(found: Mapping[str, Any], units: str) -> dict[str, Any]:
    """The table of intervals and their charts; those of errors by standard deviation where that varies."""
    shown: list[dict[str, Any]] = []
    curves = found["curves"]
    if found["slope"] is not None:
        end = max(curves["std"])
        by_std = {"error": list(zip(curves["std"], curves["error"], strict=True)), "right": [(0.0, 0.0), (end, end)]}
        kept = {name: list(zip(curves["share"], curves[name], strict=True)) for name in ("sparsification", "oracle")}
        shown = [{"label": label, "unit": unit, "svg": charts.lines(series, label, linear=True)} for label, unit, series in (
            ("error over standard deviation", units, by_std), ("error that remains", "of all", kept))]
    return {"cells": interval_cells(found, units), "charts": shown}


def _strips(rows: Rows, per_sample: Sequence[Rows], metrics: Metrics) -> list[dict[str, Any]]:
    """The distributions of input, best reference and model, for the first three metrics."""
    found = []
    rival = best(rows, metrics[columns(rows)[0]], _references(rows))
    kinds = {"input": "input"} | ({rival: "rival"} if rival else {}) | {"model": "model"}
    for name in columns(rows)[:3]:
        values = {row: [v for v in _column(per_sample, row, name) if np.isfinite(v)] for row in kinds}
        values = {row: finite for row, finite in values.items() if finite}
        if values:
            m = metrics[name]
            found.append({"label": m.title, "unit": f"{m.unit} {arrow(m)}".strip(),
                          "svg": charts.strips(values, m.title, [kinds[row] for row in values])})
    return found


def _hardest(rows: Rows, per_sample: Sequence[Rows], names: Sequence[str], metrics: Metrics) -> list[dict[str, str]]:
    """The three samples that the model does worst."""
    name = columns(rows)[0]
    scores = dict(zip(names, _column(per_sample, "model", name), strict=True))
    scores = {sample: value for sample, value in scores.items() if np.isfinite(value)}
    if len(scores) < 6:
        return []
    worst = sorted(scores, key=scores.__getitem__, reverse=metrics[name].lower_is_better)[:3]
    return [{"id": sample, "text": _with_unit(metrics[name], scores[sample])} for sample in worst]


def _column(per_sample: Sequence[Rows], row: str, name: str) -> list[float]:
    return [sample.get(row, {}).get(name, np.nan) for sample in per_sample]


def curve_charts(curves: Mapping[str, Curves], metrics: Metrics) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Charts of losses and validation metrics, and of everything else, by what was logged; each of one curve or several."""
    leading: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for name, series in curves.items():
        if not any(np.isfinite(value) for points in series.values() for _, value in points):
            continue
        phase, _, rest = name.partition("/")
        m = metrics.get(rest, Metric(rest))
        label = f"validation {m.title}" if phase == "eval" else rest.replace("/", " ").replace("_", " ")
        chart = {"label": label, "unit": m.unit, "svg": charts.lines(series, label)}
        (leading if phase == "eval" or rest.endswith("loss") else others).append(chart)
    return leading, others


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:g}\N{NO-BREAK SPACE}…\N{NO-BREAK SPACE}{bounds[1]:g}".replace("-", "−")


def versions() -> str:
    """The versions of Python and of what results depend on, a line each."""
    lines = [f"python {platform.python_version()}, {platform.platform()}"]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return "\n".join(lines)


def template(name: str) -> jinja2.Template:
    """A page of this folder; what it is rendered with is escaped, and must be all that it names."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # rows and presets have an order
    return environment.get_template(name)
