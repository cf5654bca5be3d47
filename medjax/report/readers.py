"""The page of a reader study, and the page of its result: each one HTML file that opens from disk, with nothing to fetch."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medjax.files import write_atomically
from medjax.report import charts
from medjax.report.page import template, versions
from medjax.types import UserError

LEVELS = 4095  # of an image's values over the window: 12 bits, as scanners store them
MOST_BYTES = 256 * 2**20  # of a page; browsers hold a text of up to twice that
RATINGS = {1: "not usable", 2: "poor", 3: "acceptable", 4: "good", 5: "excellent"}
CT_WINDOWS = {"lung": (-600, 1500), "soft tissue": (40, 400), "bone": (400, 1800)}
"""Level and width in HU that a reader of CT can choose."""


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
        packed[code], shape = pack(picture, window)
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


def pack(picture: Picture, window: tuple[float, float]) -> tuple[str, tuple[int, ...]]:
    """An image as text, and its shape `(D, H, W, C)`: 12-bit steps over the window, each less the one before it modulo
    2^16, the high bytes before the low ones; zlib, base64.
    """
    low, high = window
    values = np.asarray(picture.values, np.float64)
    values = values[None] if values.ndim == 3 else values
    if picture.anatomical:
        values = values[:, ::-1, ::-1]
    unit = np.clip(np.nan_to_num((values - low) / (high - low)), 0, 1)
    levels = (unit * LEVELS).round().astype(np.uint16).ravel()
    steps = np.diff(levels, prepend=np.uint16(0))
    split = np.concatenate([(steps >> 8).astype(np.uint8), (steps & 255).astype(np.uint8)])
    return base64.b64encode(zlib.compress(split.tobytes(), 6)).decode(), values.shape


def write_summary(path: Path, *, title: str, headline: str, sentence: str, tables: Sequence[Sequence[Sequence[str]]],
                  notes: Sequence[str], shares: Mapping[str, Sequence[float]], parts: Sequence[str]) -> None:
    """Writes the page of a result: a head and a sentence, `shares` of `parts` by row, tables (first their heads)."""
    write_atomically(path, template("readers_summary.html").render(
        title=title, headline=headline, sentence=sentence, tables=tables, notes=notes, parts=parts, versions=versions(),
        chart=charts.shares(shares, "answers")))
