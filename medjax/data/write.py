"""Records back into files: the format, geometry, units and dtype of the source kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medjax.data.formats import nifti
from medjax.data.io import Study
from medjax.types import UNSAID, Derivation, Record, UserError, WritableFormat


def write(target: str | Path, images: Sequence[np.ndarray], like: Study, derivation: Derivation = UNSAID) -> None:
    """`images`, one per record of `like.read()` and in their order, as `target`: a file, or a folder for a series.

    They are `(H, W, C)` or `(D, H, W, C)` in physical units, oriented as the records are. The file gets the source's
    format, header, dtype and rescale; integers are rounded and clipped. An image of another size (super-resolution)
    keeps the field of view. It is written under another name and renamed, so a half-written one is never seen.
    `derivation` says in the header what made them. Raises UserError.
    """
    format_ = _writable(target, like)
    for image in images:
        if not np.isfinite(image).all():
            raise UserError(target, f"the result for {like.id} holds NaN or infinite values; nothing was written")
    with _place(target) as place:
        format_.write(place, images, like.paths, derivation)


def write_labels(target: str | Path, labels: Sequence[np.ndarray], names: Sequence[str], like: Study,
                 derivation: Derivation = UNSAID) -> None:
    """`labels` `(*space)` uint8, one per record of `like.read()`, as `target` in the format of `like` and on its grid.

    `names` are those of the classes, background first; the file keeps them where its format has a place for them.
    Raises UserError.
    """
    format_ = _writable(target, like)
    for number, label in enumerate(labels):
        if label.dtype != np.uint8 or label.max(initial=0) >= len(names):
            raise UserError(target, f"label map {number} is {label.dtype} up to {label.max(initial=0)}; give uint8 below "
                            f"{len(names)}, the number of classes")
    with _place(target) as place:
        format_.write_labels(place, labels, names, like.paths, derivation)


def write_on_grid(target: str | Path, image: np.ndarray, stored: Record, affine: np.ndarray) -> None:
    """`image` `(D, H, W, 1)` in physical units as a NIfTI file with another scan's `affine` (file's indices to RAS mm).

    It gets the dtype and scale of the record `stored` that it was made from; integers are rounded and clipped. It
    appears whole or not at all. Raises UserError.
    """
    with _place(target) as place:
        nifti.write_on_grid(place, image, stored, affine)


def _writable(target: str | Path, like: Study) -> WritableFormat:
    """The format of a study. Raises UserError where it can't be written, or `target` has the name of another."""
    format_ = like.form
    if not isinstance(format_, WritableFormat):
        raise UserError(target, f"can't be written as {like.format}, the format of {like.paths[0].name}, which is only read")
    if not Path(target).name.lower().endswith(format_.SUFFIXES):
        raise UserError(target, f"the format is kept; give a name that ends in {' or '.join(format_.SUFFIXES)}")
    return format_


@contextmanager
def _place(target: str | Path) -> Iterator[Path]:
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield target
    except OSError as error:
        raise UserError(target, f"can't be written: {error.strerror or error}") from error
