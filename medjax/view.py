"""Writes a page that shows two images side by side: python -m medjax.view INPUT OUTPUT --output=view.html

The images are files of any format that medjax reads, or DICOM series in folders: what was given to `medjax.apply` and
what it wrote, or any two. An OUTPUT_interval beside OUTPUT is shown as half-width. Volumes with different grids are
compared on the grid of OUTPUT.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from medjax import cli
from medjax.classical.rigid import resample
from medjax.data.io import Study, discover
from medjax.report.comparison import write
from medjax.tasks._restoration import INTERVAL
from medjax.types import Record, UserError

PAGE = flags.DEFINE_string("output", "view.html", "The page that is written; a file of that name is replaced.")


def main(words: Sequence[str]) -> None:
    """Writes the page of the two images that are named."""
    if len(words) != 2:
        raise UserError("medjax.view", "give two images: INPUT OUTPUT")
    page = Path(PAGE.value).expanduser()
    if page.suffix.lower() != ".html":
        raise UserError("--output", f"{page} is no name of a page; give one that ends in .html")
    _, before = _read(words[0])
    study, after = _read(words[1])
    place = Path(words[1]).expanduser()
    beside = _interval_beside(place, study)
    width = None if beside is None else _read(str(beside))[1]
    if width is not None and width.image.shape[:-1] != after.image.shape[:-1]:
        raise UserError(beside, f"has the grid {_size(width)}, and {words[1]} {_size(after)}; move it elsewhere")
    one, note = before.in_units(), "Difference: output less input, without sign."
    if not _one_grid(before, after):
        one = _on_grid_of(words[0], before, after)
        note += " The input was interpolated linearly on the grid of the output."
    page.parent.mkdir(parents=True, exist_ok=True)
    write(page, one, after.in_units(), units=after.units or before.units, spacing_mm=after.spacing_mm,
          anatomical=after.affine is not None, half_width=None if width is None else width.in_units().mean(-1), note=note)
    print(f"written: {page}" + ("" if beside is None else f", with the half-widths of {beside}"))
    print("it opens in a browser, from disk")


def _read(path: str) -> tuple[Study, Record]:
    """The one image at `path`. Raises UserError for anything else."""
    studies = discover(path)
    if len(studies) > 1:
        names = ", ".join(study.place.as_posix() for study in studies[:3])
        raise UserError(path, f"holds {len(studies)} images; give one: {names} …")
    records = studies[0].read()
    if len(records) > 1:
        raise UserError(path, f"holds {len(records)} frames; give one image or volume")
    if records[0].image.shape[-1] not in (1, 3):
        raise UserError(path, f"has {records[0].image.shape[-1]} channels; give a grey or a colour image")
    return studies[0], records[0]


def _interval_beside(path: Path, study: Study) -> Path | None:
    """What `medjax.apply` calls the half-widths of the image at `path`, where there is such a file or folder."""
    suffix = study.suffix if path.is_file() else ""
    found = path.with_name(f"{path.name.removesuffix(suffix)}_{INTERVAL}{suffix}")
    return found if found.exists() else None


def _size(record: Record) -> str:
    return " x ".join(map(str, record.image.shape[:-1]))


def _one_grid(one: Record, other: Record) -> bool:
    """Whether voxels of the two are of one place; sizes alone say so where a file has no place in space."""
    if one.image.shape[:-1] != other.image.shape[:-1]:
        return False
    return one.affine is None or other.affine is None or np.allclose(one.affine, other.affine, atol=1e-3)


def _on_grid_of(path: str, moving: Record, fixed: Record) -> np.ndarray:
    """The moving volume's values on the fixed one's grid. Raises UserError where nothing says how they lie."""
    if moving.affine is None or fixed.affine is None or moving.ndim != 3 or fixed.ndim != 3:
        raise UserError(path, f"has the grid {_size(moving)}, the output {_size(fixed)}, and their files don't say where in "
                        "space they lie; give images on one grid")
    channels = [resample(moving.in_units((..., c)), moving.affine, fixed.image.shape[:-1], fixed.affine, np.eye(4))
                for c in range(moving.image.shape[-1])]
    found = np.stack(channels, -1)
    if np.ptp(found) == 0:
        raise UserError(path, "lies elsewhere in space than the output; give images of one place")
    return found


if __name__ == "__main__":
    cli.run_with_words(main, keeps_memory=False)
