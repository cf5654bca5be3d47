"""A table of results for the terminal, and what is known of each metric."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from medjax.measures.image_quality import LOWER_IS_BETTER

Rows = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Metric:
    """How a metric is written; `decimals` None means as many as the smallest value needs."""

    name: str
    label: str
    unit: str = ""
    decimals: int | None = None

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller value is the better one."""
        return self.name in LOWER_IS_BETTER

    @property
    def arrow(self) -> str:
        """↑ where higher is better, ↓ where lower is."""
        return "↓" if self.lower_is_better else "↑"

    def texts(self, values: Sequence[float | None]) -> list[str]:
        """A column of values without their unit, with the same decimals; a dash where there is none."""
        decimals = _decimals(values) if self.decimals is None else self.decimals
        return [_text(value, decimals) for value in values]


def _decimals(values: Sequence[float | None]) -> int:
    """Three significant digits for the smallest, up to six decimals."""
    sizes = [abs(v) for v in values if v is not None and math.isfinite(v) and v]
    return min(max(2 - math.floor(math.log10(min(sizes))), 0), 6) if sizes else 0


def _text(value: float | None, decimals: int) -> str:
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    tiny = value != 0 and abs(value) < 10 ** (1 - decimals) and decimals > 4
    return (f"{value:.2e}" if tiny or abs(value) >= 1e7 else f"{value:.{decimals}f}").replace("-", "−")


METRICS = {m.name: m for m in (
    Metric("psnr", "PSNR", "dB", decimals=2),
    Metric("ssim", "SSIM", decimals=4),
    Metric("nmse", "NMSE"),
    Metric("mse", "MSE", "units²"),
    Metric("mae", "MAE", "units"),
    Metric("dice", "Dice", decimals=4),
    Metric("iou", "IoU", decimals=4),
    Metric("auc", "AUC", decimals=4),
    Metric("accuracy", "accuracy", decimals=4),
)}


def metric(name: str) -> Metric:
    """What is known of the metric called `name`; a plain number where nothing is."""
    return METRICS.get(name, Metric(name, name.replace("_", " ")))


def columns(rows: Rows) -> list[str]:
    """The metrics of all rows, in the order in which they first come."""
    return list(dict.fromkeys(name for row in rows.values() for name in row))


def best(rows: Rows, name: str, among: Iterable[str] | None = None) -> str | None:
    """The row with the best value of the metric; None where no row has a value."""
    values = {row: rows[row][name] for row in (rows if among is None else among) if name in rows[row]}
    values = {row: value for row, value in values.items() if value is not None and not math.isnan(value)}
    if not values:
        return None
    return (min if metric(name).lower_is_better else max)(values, key=values.__getitem__)


def table(rows: Rows) -> str:
    """The rows as aligned text, one column per metric with unit and arrow; a star marks the best value."""
    names = columns(rows)
    leaders = {name: best(rows, name) for name in names}
    heads = [" ".join(filter(None, (m.label, m.unit, m.arrow))) for m in map(metric, names)]
    texts = {name: metric(name).texts([values.get(name) for values in rows.values()]) for name in names}
    lines = [["", *(head + " " for head in heads)]]
    for i, row in enumerate(rows):
        lines.append([row, *(texts[name][i] + ("*" if leaders[name] == row else " ") for name in names)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(names) + 1)]
    aligned = ["  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
               for line in lines]
    rule = "─" * (sum(widths) + 2 * len(names))
    return "\n".join([aligned[0].rstrip(), rule, *(line.rstrip() for line in aligned[1:])])
