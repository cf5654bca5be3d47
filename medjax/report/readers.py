"""The page of a reader study, and the page of its result: each one HTML file that opens from disk, with nothing to fetch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medjax.files import write_atomically
from medjax.report import charts
from medjax.report.images import CT_WINDOWS, LEVELS, pack
from medjax.report.page import template, versions
from medjax.types import UserError

MOST_BYTES = 256 * 2**20  # of a page; browsers hold a text of up to twice that
RATINGS = {1: "not usable", 2: "poor", 3: "acceptable", 4: "good", 5: "excellent"}


@dataclass(frozen=True)
class Picture:
    """An image `(H, W, C)` or volume `(D, H, W, C)` in physical units, of one or three channels.

    `spacing_mm` is that of its rows and columns. What `anatomical` means is said at `medjax.report.pictures.Panel`.
    """

    values: np.ndarray
    spacing_mm: tuple[float, float]
    anatomical: bool


def write(path: Path, *, study: str, scale: str, question: str, window: tuple[float, float], units: str,
          cases: Sequence[tuple[str, Sequence[str]]], images: Sequence[tuple[str, Picture]]) -> None:
    """Writes the page of the study `study` to `path`, whole or not at all.

    `cases` are codes with the codes of their `images`, from the left; one image is rated, of two one is preferred. Values
    are kept in 4096 steps over `window`, which all images are first shown in. Raises UserError for too large a page.
    """
    packed: dict[str, str] = {}
    facts: dict[str, dict[str, object]] = {}
    size = 0
    for code, picture in images:
        packed[code], shape = pack(picture.values, window, picture.anatomical)
        facts[code] = {"shape": shape, "spacing": picture.spacing_mm}
        size += len(packed[code])
        if size > MOST_BYTES:
            raise UserError("--cases", f"the images take more than {MOST_BYTES >> 20} MB, which browsers do not open well; "
                            f"give fewer than {len(cases)}")
    content = {"study": study, "scale": scale, "window": window, "units": units, "levels": LEVELS, "images": facts,
               "windows": CT_WINDOWS if units == "HU" else {},
               "cases": [{"code": code, "images": shown} for code, shown in cases]}
    write_atomically(path, template("readers.html").render(
        question=question, scale=scale, count=len(cases), content=content, packed=packed, ratings=RATINGS,
        windows=content["windows"], sliced=any(len(picture.values.shape) == 4 for _, picture in images)))


def write_summary(path: Path, *, title: str, headline: str, sentence: str, tables: Sequence[Sequence[Sequence[str]]],
                  notes: Sequence[str], shares: Mapping[str, Sequence[float]], parts: Sequence[str]) -> None:
    """Writes the page of a result: a head and a sentence, `shares` of `parts` by row, tables (first their heads)."""
    write_atomically(path, template("readers_summary.html").render(
        title=title, headline=headline, sentence=sentence, tables=tables, notes=notes, parts=parts, versions=versions(),
        chart=charts.shares(shares, "answers")))
