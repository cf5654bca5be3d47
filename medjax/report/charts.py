"""Small charts as SVG text; colours come from the page's style sheet, so they follow light and dark."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from markupsafe import Markup, escape

Points: TypeAlias = Sequence[tuple[float, float]]
Scale: TypeAlias = Callable[[float], float]  # a value's place in the chart

WIDTH, HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 34
_MOST_POINTS = 400
COLOURS = ("var(--model)", "var(--input)", "var(--rival)", "var(--extra)", "#a0559b", "#c2413b", "#3a9d9d", "#8a8a3c")
"""Of the curves of a chart, by their place, on pages whose charts have many."""


def lines(series: Mapping[str, Points], label: str, linear: bool = False) -> Markup:
    """Curves over the step, dose or frequency, from 0, by name; the vertical axis is logarithmic where every value is
    positive and they span more than a factor of three, unless `linear`.
    """
    series = {name: _thin(points) for name, points in series.items()}
    x = np.array([step for points in series.values() for step, _ in points], float)
    y = np.array([value for points in series.values() for _, value in points], float)
    log = not linear and bool(y.min() > 0 and y.max() > 3 * y.min())
    low, high = _limits(y, log)
    first, last = 0.0, x.max() or 1.0
    across = _scale(first, last, _LEFT, WIDTH - _RIGHT, log=False)
    up = _scale(low, high, HEIGHT - _BOTTOM, _TOP, log)
    parts = [_y_axis(_log_ticks(low, high) if log else _ticks(low, high), up), _x_axis(_ticks(first, last), across)]
    for i, points in enumerate(series.values()):
        if len(points) == 1:
            parts.append(f'<circle class="c{i}" cx="{across(points[0][0]):.1f}" cy="{up(points[0][1]):.1f}" r="3"/>')
        path = " ".join(f"{across(step):.1f},{up(value):.1f}" for step, value in points)
        parts.append(f'<polyline class="line c{i}" points="{path}"/>')
    return _svg(parts, label)


def scatter(names: Sequence[str], across_of: Sequence[float], up_of: Sequence[float], label: str) -> Markup:
    """One dot for each name, by a value across and one up, on one scale; the line is where the two are equal."""
    finite = [(name, x, y) for name, x, y in zip(names, across_of, up_of, strict=True) if np.isfinite(x) and np.isfinite(y)]
    low, high = _limits(np.array([value for _, *pair in finite for value in pair], float), log=False)
    size = WIDTH - _LEFT - _RIGHT  # a square
    bottom = _TOP + size
    across = _scale(low, high, _LEFT, WIDTH - _RIGHT, log=False)
    up = _scale(low, high, bottom, _TOP, log=False)
    ticks = _ticks(low, high)
    parts = [_y_axis(ticks, up), _x_axis(ticks, across, height=bottom + _BOTTOM),
             f'<line class="equal" x1="{across(low):.1f}" y1="{up(low):.1f}" x2="{across(high):.1f}" y2="{up(high):.1f}"/>']
    parts += [f'<circle data-sample="{escape(name)}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3.4">'
              f'<title>{escape(name)}: {_number(x)}, {_number(y)}</title></circle>' for name, x, y in finite]
    return _svg(parts, label, bottom + _BOTTOM)


def strips(values: Mapping[str, Sequence[float]], label: str, classes: Sequence[str]) -> Markup:
    """One row per name: every sample a dot, quartiles a box, the median a line."""
    finite = {name: np.sort(np.array([v for v in row if np.isfinite(v)], float)) for name, row in values.items()}
    everything = np.concatenate(list(finite.values()))
    low, high = _limits(everything, log=False)
    across = _scale(low, high, 90, WIDTH - _RIGHT, log=False)
    step = 46
    height = _TOP + step * len(finite) + _BOTTOM - 8
    parts = [_x_axis(_ticks(low, high), across, height=height, grid=True)]
    for i, ((name, row), kind) in enumerate(zip(finite.items(), classes, strict=True)):
        middle = _TOP + step * (i + 0.5)
        parts.append(f'<text class="name" x="0" y="{middle + 4:.1f}">{escape(_shorten(name))}</text>')
        if row.size:
            parts += _strip(row, kind, middle, across)
    return _svg(parts, label, height)


def shares(rows: Mapping[str, Sequence[float]], label: str) -> Markup:
    """One bar per name, divided into shares that add up to 1; each part has the class `s0`, `s1`, … of its place."""
    step, left = 30, 90
    parts = []
    for i, (name, row) in enumerate(rows.items()):
        top, x = _TOP + step * i, float(left)
        parts.append(f'<text class="name" x="0" y="{top + 14:.1f}">{escape(_shorten(name))}</text>')
        for k, share in enumerate(row):
            width = share * (WIDTH - _RIGHT - left)
            parts.append(f'<rect class="s{k}" x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="20"/>')
            if share >= 0.12:
                parts.append(f'<text class="on" x="{x + width / 2:.1f}" y="{top + 14:.1f}" text-anchor="middle">'
                             f'{100 * share:.0f} %</text>')
            x += width
    return _svg(parts, label, _TOP + step * len(rows) + 4)


def _strip(row: np.ndarray, kind: str, middle: float, across: Scale) -> list[str]:
    """Dots spread up and down in a fixed pattern, so that the page is the same whenever it is written."""
    offsets = ((np.arange(row.size) * 0.618034) % 1 - 0.5) * 22
    dots = [f'<circle cx="{across(v):.1f}" cy="{middle + o:.1f}" r="2.6"/>' for v, o in zip(row, offsets, strict=True)]
    lower, median, upper = (across(q) for q in np.percentile(row, [25, 50, 75]))
    top, width = middle - 14, max(upper - lower, 1)
    box = (f'<rect class="box" x="{lower:.1f}" y="{top:.1f}" width="{width:.1f}" height="28" rx="3"/>'
           f'<line class="median" x1="{median:.1f}" x2="{median:.1f}" y1="{top:.1f}" y2="{top + 28:.1f}"/>')
    return [f'<g class="{kind}">', box, '<g class="dots">', *dots, "</g></g>"]


def _svg(parts: Sequence[str], label: str, height: float = HEIGHT) -> Markup:
    body = "".join(parts)
    return Markup(f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{body}</svg>')


def _y_axis(ticks: Sequence[float], up: Scale) -> str:
    return "".join(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{up(t):.1f}" y2="{up(t):.1f}"/>'
                   f'<text x="{_LEFT - 8}" y="{up(t) + 4:.1f}" text-anchor="end">{_number(t)}</text>' for t in ticks)


def _x_axis(ticks: Sequence[float], across: Scale, height: float = HEIGHT, grid: bool = False) -> str:
    bottom = height - _BOTTOM + 8 if grid else height - _BOTTOM
    marks = []
    for tick in ticks:
        x = f"{across(tick):.1f}"
        if grid:
            marks.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}"/>')
        marks.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{_number(tick)}</text>')
    return "".join(marks)


def _scale(low: float, high: float, start: float, stop: float, log: bool) -> Scale:
    if log:
        low, high = math.log(low), math.log(high)
    return lambda v: start + ((math.log(v) if log else v) - low) / (high - low) * (stop - start)


def _limits(values: np.ndarray, log: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if log:
        margin = (high / low) ** 0.05
        return low / margin, high * margin
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the limits, about four."""
    rough = (high - low) / 4
    decade = 10.0 ** math.floor(math.log10(rough))
    step = min((1, 2, 5, 10), key=lambda s: abs(s * decade - rough)) * decade
    return [round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Decades; with 2 and 5 between them where there are few, and every other one where there are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    few = math.log10(high / low) < 2
    every = 1 + (last - first) // 6
    marks = [s * 10.0**d for d in range(first, last + 1, 1 if few else every) for s in ((1, 2, 5) if few else (1,))]
    return [mark for mark in marks if low <= mark <= high]


def _number(value: float) -> str:
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, _, power = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(power)}".replace("-", "−")
    if abs(value) >= 1000 and value % 100 == 0:
        return f"{value / 1000:g}k"
    return f"{value:.6g}".replace("-", "−")


def _thin(points: Points) -> Points:
    """Means over equal bins where there are more points than the eye can tell apart; what is not finite is left out."""
    found = np.array([p for p in points if np.isfinite(p[1])], float).reshape(-1, 2)
    if len(found) <= _MOST_POINTS:
        return [tuple(p) for p in found]
    return [tuple(part.mean(0)) for part in np.array_split(found, _MOST_POINTS)]


def _shorten(name: str) -> str:
    return name if len(name) <= 12 else name[:11] + "…"
