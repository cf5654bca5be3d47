"""Image quality over dose: the table, the numbers as JSON and CSV, and one HTML page that opens from disk."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medjax.files import write_atomically
from medjax.measures.spectra import Curve
from medjax.report import charts
from medjax.report.page import template, versions

Numbers = Mapping[str, float]
Methods = Mapping[str, Numbers]  # by method
Curves = Mapping[str, Curve]  # by method

COLUMNS = {  # of the table and the charts: heading, decimals
    "psnr": ("PSNR dB", 2), "ssim": ("SSIM", 4), "cnr": ("CNR", 2), "d_prime": ("d′", 2), "auc": ("AUC", 3),
    "noise_hu": ("noise HU", 1), "nps_mean_frequency": ("NPS mean 1/mm", 3),
    "f50_contrast": ("TTF f50 1/mm", 3), "f50_bone": ("TTF bone f50 1/mm", 3), "bias_water": ("bias water HU", 2),
    "bias_soft_tissue": ("bias soft tissue HU", 2), "bias_bone": ("bias bone HU", 2),
    "bias_images_soft_tissue": ("images: bias soft tissue HU", 2), "bias_images_bone": ("images: bias bone HU", 2)}


def cells(found: Mapping[float, Methods]) -> list[list[str]]:
    """The table: a line of heads, then every method at every dose; d' with its interval."""
    some = [numbers for methods in found.values() for numbers in methods.values()]
    names = [name for name in COLUMNS if name in some[0]]
    lines = [["dose", "method", *(COLUMNS[name][0] for name in names)]]
    for dose, methods in found.items():
        lines += [[f"{dose:g}", row, *(_cell(name, numbers) for name in names)] for row, numbers in methods.items()]
    return lines


def _cell(name: str, numbers: Numbers) -> str:
    decimals = COLUMNS[name][1]
    text = _text(numbers[name], decimals)
    if name != "d_prime" or not math.isfinite(numbers[name]):
        return text
    return f"{text} ({_text(numbers['d_prime_low'], decimals)} … {_text(numbers['d_prime_high'], decimals)})"


def _text(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "−") if math.isfinite(value) else "–"


def to_csv(found: Mapping[float, Methods]) -> str:
    """One line for each method at each dose, all numbers; empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text)
    names = list(next(iter(next(iter(found.values())).values())))
    writer.writerow(["dose", "method", *names])
    for dose, methods in found.items():
        writer.writerows([dose, row, *("" if math.isnan(numbers[name]) else numbers[name] for name in names)]
                         for row, numbers in methods.items())
    return text.getvalue()


def write(path: Path, *, title: str, step: int, data: str, found: Mapping[float, Methods], shown: float,
          spectra: Curves, transfer: Mapping[str, Curves], notes: Sequence[str], config: str) -> None:
    """Writes the page to `path`, whole or not at all.

    `found` are numbers by dose and method, `spectra` the noise power and `transfer` the transfer functions by insert and
    method at the dose `shown`.
    """
    rows = list(next(iter(found.values())))
    order = sorted(rows, key=lambda row: (row != "model", row != "input"))
    legend = [{"name": row, "colour": charts.COLOURS[i % len(charts.COLOURS)]} for i, row in enumerate(order)]
    sections = [{"title": "Over dose", "charts": _over_dose(found, order)},
                {"title": f"Noise and sharpness at dose {shown:g}", "charts": _over_frequency(spectra, transfer, order)}]
    html = template("dose.html").render(
        title=title, step=step, data=data, table=cells(found), notes=notes, legend=legend, config=config,
        versions=versions(), sections=[section for section in sections if section["charts"]])
    write_atomically(path, html)


def _over_dose(found: Mapping[float, Methods], order: Sequence[str]) -> list[dict[str, Any]]:
    made = []
    for name, (label, _) in COLUMNS.items():
        series = {row: [(dose, methods[row][name]) for dose, methods in found.items()
                        if np.isfinite(methods[row].get(name, math.nan))] for row in order}
        made += _chart(label, "over dose", series)
    return made


def _over_frequency(spectra: Curves, transfer: Mapping[str, Curves], order: Sequence[str]) -> list[dict[str, Any]]:
    curves = {("noise power", "HU² mm² over 1/mm"): spectra} | {
        (f"TTF, {insert}", "over 1/mm"): by_row for insert, by_row in transfer.items()}
    made = []
    for (label, unit), by_row in curves.items():
        made += _chart(label, unit, {row: list(zip(by_row[row].frequency.tolist(), by_row[row].value.tolist(), strict=True))
                                     for row in order})
    return made


def _chart(label: str, unit: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> list[dict[str, Any]]:
    """A chart, or none where no method has a value; a method without one keeps its place, by which colours go."""
    if not any(series.values()):
        return []
    return [{"label": label, "unit": unit, "svg": charts.lines(series, label)}]
