"""A ranking as a picture: the mean of every method with its interval over patients."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from medjax.measures.statistics import Standing
from medjax.report.table import arrow
from medjax.types import Metric


def draw(path: Path, found: Mapping[str, Standing], metric: Metric) -> None:
    """Writes a PNG: methods from the best down, a dot for the mean, a line for the interval where there is one."""
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(found)), layout="constrained")
    axes = figure.subplots()
    for place, standing in enumerate(found.values()):
        axes.plot([standing.low, standing.high], [place, place], color="tab:blue", linewidth=2)
        axes.plot(standing.mean, place, "o", color="tab:blue")
    axes.set_yticks(np.arange(len(found)), list(found))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"{metric.heading} {arrow(metric)}")
    figure.savefig(path, dpi=150, format="png")
