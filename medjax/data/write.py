"""Records back into files: the format, geometry, units and dtype of the source kept."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medjax.data.formats import array, dicom, nifti, picture
from medjax.data.io import Study
from medjax.types import Record, UserError

WRITERS: dict[str, Callable[[Path, Sequence[np.ndarray], Sequence[Path]], None]] = {
    "nifti": nifti.write, "dicom": dicom.write, "picture": picture.write, "array": array.write}


def write(target: str | Path, images: Sequence[np.ndarray], like: Study) -> None:
    """`images`, one per record of `like.read()` and in their order, as `target`: a file, or a folder for a series.

    They are `(H, W, C)` or `(D, H, W, C)` in physical units, oriented as the records are. The file gets the source's
    format, header, dtype and rescale; integers are rounded and clipped. An image of another size (super-resolution)
    keeps the field of view. It is written under another name and renamed, so a half-written one is never seen.
    Raises UserError.
    """
    for image in images:
        if not np.isfinite(image).all():
            raise UserError(target, f"the result for {like.id} holds NaN or infinite values; nothing was written")
    with _place(target) as place:
        WRITERS[like.format](place, images, like.paths)


def write_on_grid(target: str | Path, image: np.ndarray, stored: Record, affine: np.ndarray) -> None:
    """`image` `(D, H, W, 1)` in physical units as a NIfTI file with another scan's `affine` (file's indices to RAS mm).

    It gets the dtype and scale of the record `stored` that it was made from; integers are rounded and clipped. It
    appears whole or not at all. Raises UserError.
    """
    with _place(target) as place:
        nifti.write_on_grid(place, image, stored, affine)


@contextmanager
def _place(target: str | Path) -> Iterator[Path]:
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield target
    except OSError as error:
        raise UserError(target, f"can't be written: {error.strerror or error}") from error
