"""The page that compares runs on the same samples: table, images with the runs as layers, every sample, curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medjax.files import write_atomically
from medjax.measures.statistics import Standing
from medjax.report import charts
from medjax.report.page import Curves, Metrics, Rows, column_of, curve_charts, mean_table, template, versions
from medjax.report.pictures import colour_bar
from medjax.report.table import columns, texts
from medjax.report.viewer import Setting, Shown, content, scores
from medjax.types import Metric

PLOTS = 2  # metrics whose samples are plotted against each other


def write(path: Path, *, task: str, split: str, names: Sequence[str], patients: int,
          data_range: tuple[float, float], units: str, metrics: Metrics, cells: Sequence[Sequence[str]],
          between: Mapping[str, Standing], rows: Rows, per_sample: Sequence[Rows], curves: Mapping[str, Curves],
          shown: Sequence[Shown], configs: Mapping[str, str]) -> None:
    """Writes the page to `path`, whole or not at all.

    `between` are the runs by the first of `metrics`, from the best to the worst, each compared with the best; `cells` is the
    table with heads, `rows` the means by method and metric, `per_sample` the same for each of the samples called `names`.
    `curves` and `configs` are those of each run.
    """
    runs = list(between)
    logged = dict.fromkeys(name for own in curves.values() for name in own)
    leading, others = curve_charts({name: {run: curves[run].get(name, []) for run in runs} for name in logged}, metrics)
    known = scores(names, per_sample, metrics)
    differences = scores(names, [_differences(runs, sample) for sample in per_sample], metrics)
    html = template("runs.html").render(
        runs=runs, task=task, split=split, n=len(names), patients=patients, cells=cells,
        headline=_headline(between, next(iter(metrics.values()))), columns=[column_of(metrics[m]) for m in columns(rows)],
        table=mean_table(rows, metrics), anatomical=any(sample.anatomical for sample in shown),
        viewer=content(shown, Setting(data_range, data_range, units, estimate=runs[0])),
        scores=known | {"rows": differences["rows"] | known["rows"]}, plots=_plots(runs, names, per_sample, metrics),
        legend=[{"name": run, "colour": charts.COLOURS[i % len(charts.COLOURS)]} for i, run in enumerate(runs)],
        curves=leading, more_curves=others, configs=configs, versions=versions(), colour_bar=colour_bar())
    write_atomically(path, html)


def _headline(between: Mapping[str, Standing], metric: Metric) -> charts.Markup:
    """The best run, and how far it is from the next; whether a test tells them apart."""
    runs = list(between)[:2]
    first, second = (between[run] for run in runs)
    value, gap = texts(metric, [first.mean, abs(first.mean - second.mean)])
    side = "below" if metric.lower_is_better else "above"
    parts = charts.Markup("{}: <b>{}</b> {}, {} {} {}").format(
        runs[0], f"{value} {metric.unit}".rstrip(), metric.title, f"{gap} {metric.unit}".rstrip(), side, runs[1])
    if np.isfinite(second.p) and np.isfinite(second.difference):
        parts += ", p < 0.001" if second.p < 0.001 else f", p = {second.p:.3f}"
    return parts


def _differences(runs: Sequence[str], sample: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of a sample's numbers, of the best run from each other one."""
    best = sample[runs[0]]
    return {f"{runs[0]} − {run}": {name: value - sample[run][name] for name, value in best.items() if name in sample[run]}
            for run in runs[1:]}


def _plots(runs: Sequence[str], names: Sequence[str], per_sample: Sequence[Rows], metrics: Metrics) -> list[dict[str, Any]]:
    """Every sample by the best run (up) and each other one (across), for the first metrics."""
    found = []
    for name in list(metrics)[:PLOTS]:
        values = {run: [sample[run].get(name, np.nan) for sample in per_sample] for run in runs}
        for run in runs[1:]:
            if np.isfinite(np.add(values[run], values[runs[0]])).sum() > 1:
                label = f"{metrics[name].heading}: {runs[0]} over {run}"
                found.append({"label": label, "svg": charts.scatter(names, values[run], values[runs[0]], label)})
    return found
