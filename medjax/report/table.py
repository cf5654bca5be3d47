"""A table of results for the terminal, and how metrics are written."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medjax.measures.statistics import Standing
from medjax.types import Metric

Rows = Mapping[str, Mapping[str, float]]


def texts(metric: Metric, values: Sequence[float | None]) -> list[str]:
    """A column of values without their unit, with the same decimals; a dash where there is none."""
    places = decimals(metric, values)
    return [_text(value, places) for value in values]


def decimals(metric: Metric, values: Sequence[float | None]) -> int:
    """How many decimals a column of values is written with."""
    return _decimals(values) if metric.decimals is None else metric.decimals


def arrow(metric: Metric) -> str:
    """↑ where higher is better, ↓ where lower is."""
    return "↓" if metric.lower_is_better else "↑"


def _decimals(values: Sequence[float | None]) -> int:
    """Three significant digits for the smallest, up to six decimals."""
    sizes = [abs(v) for v in values if v is not None and math.isfinite(v) and v]
    return min(max(2 - math.floor(math.log10(min(sizes))), 0), 6) if sizes else 0


def _text(value: float | None, places: int) -> str:
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    tiny = value != 0 and abs(value) < 10 ** (1 - places) and places > 4
    return (f"{value:.2e}" if tiny or abs(value) >= 1e7 else f"{value:.{places}f}").replace("-", "−")


def columns(rows: Rows) -> list[str]:
    """The metrics of all rows, in the order in which they first come."""
    return list(dict.fromkeys(name for row in rows.values() for name in row))


def best(rows: Rows, metric: Metric, among: Iterable[str] | None = None) -> str | None:
    """The row with the best value of the metric; None where no row has a value."""
    values = {row: rows[row][metric.name] for row in (rows if among is None else among) if metric.name in rows[row]}
    values = {row: value for row, value in values.items() if value is not None and not math.isnan(value)}
    if not values:
        return None
    return (min if metric.lower_is_better else max)(values, key=values.__getitem__)


def standing_cells(found: Mapping[str, Standing], metric: Metric, leader: str) -> list[list[str]]:
    """Methods by one metric, each as its name, mean, interval, the distance to `leader` and p; a head comes first."""
    numbers = texts(metric, [x for s in found.values() for x in (s.mean, s.low, s.high, s.difference)])
    cells = [["", metric.heading, "95 % interval", f"{leader} − row", "p"]]
    for i, (row, standing) in enumerate(found.items()):
        mean, low, high, gap = numbers[4 * i:4 * i + 4]
        p = "–" if math.isnan(standing.p) else "< 0.001" if standing.p < 0.001 else f"{standing.p:.3f}"
        cells.append([row, mean, "–" if math.isnan(standing.low) else f"{low} … {high}", gap, p])
    return cells


def interval_cells(found: Mapping[str, Any], units: str) -> list[list[str]]:
    """What `medjax.measures.intervals.numbers` has, in words; a head comes first."""
    def of(patients: int) -> str:
        return f"{patients} patient" + "s" * (patients != 1)

    def percent(name: str) -> str:
        return f"{100 * found[name]:.1f} %"

    between = "–" if found["coverage_low"] is None else f"{percent('coverage_low')} … {percent('coverage_high')}"
    cells = [["", "value", "95 % interval"],
             [f"coverage of {100 * found['level']:g} % intervals, {of(found['patients'])}", percent("coverage"), between],
             [f"expected of any new patient, from {of(found['calibration_patients'])}", f"≥ {percent('guaranteed')}", "–"],
             [f"mean width {units}".rstrip(), f"{found['width']:.3g}", "–"]]
    if found["slope"] is not None:
        kind = "monotone" if found["monotone"] else "not monotone"
        cells += [[f"slope of error over standard deviation, {kind}", f"{found['slope']:.2f}", "–"],
                  ["sparsification error AUSE (random order "f"{found['ause_random']:.3f})", f"{found['ause']:.3f}", "–"]]
    return cells


def consistency_cells(found: Mapping[str, Any]) -> list[list[str]]:
    """What `medjax.evaluation.consistency` has, in words; a head comes first."""
    cells = [["", f"residual over the {found['unit']}", "95 % interval", "largest"]]
    for row, numbers in found["rows"].items():
        between = "–" if numbers["low"] is None else f"{numbers['low']:.3f} … {numbers['high']:.3f}"
        cells.append([row, f"{numbers['mean']:.3f}", between, f"{numbers['largest']:.3f}"])
    return cells


def attack_cells(attacks: Mapping[str, Any]) -> list[list[str]]:
    """What `medjax.measures.membership.Attack.numbers` has by the name of an attack, in words; a head comes first."""
    def text(value: Mapping[str, float] | None) -> str:
        return "too few" if value is None else f"{value['value']:.2f} ({value['low']:.2f} … {value['high']:.2f})"

    first = next(iter(attacks.values()))
    heads = [f"found at {100 * float(rate):g} % false alarms" for rate in first["found"]]
    people = f"{first['members']} against {first['others']} patients"
    return [[people, "AUC (95 % interval)", *heads],
            *([name, text(found["auc"]), *map(text, found["found"].values())] for name, found in attacks.items())]


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Lines of cells, of which the first is the head, as text in columns."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
             for line in cells]
    return "\n".join([lines[0], "─" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def table(rows: Rows, metrics: Mapping[str, Metric]) -> str:
    """The rows as aligned text, one column per metric with unit and arrow; a star marks the best value."""
    names = columns(rows)
    leaders = {name: best(rows, metrics[name]) for name in names}
    heads = [f"{m.heading} {arrow(m)}" for m in (metrics[name] for name in names)]
    cells = {name: texts(metrics[name], [values.get(name) for values in rows.values()]) for name in names}
    lines = [["", *(head + " " for head in heads)]]
    for i, row in enumerate(rows):
        lines.append([row, *(cells[name][i] + ("*" if leaders[name] == row else " ") for name in names)])
    return aligned(lines)
