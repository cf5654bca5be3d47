"""Volumes cut into blocks the size of patches, so that whoever wants a patch reads no more than a block."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from medjax.types import Record, UserError


def blocks(record: Record, size: Sequence[int], overlap: int = 0) -> Iterator[Record]:
    """The blocks of a record, of `size` along each spatial axis (0, or more than there is: the whole axis), in order.

    Neighbours share at least `overlap` voxels; the last block of an axis ends with it, and so may share more. What lies on
    the image's grid is cut with it, and points of tissue go with the blocks they are in. A block's id says where it starts,
    its subject is the volume's. Raises UserError.
    """
    shape = record.image.shape[:-1]
    if len(size) != len(shape):
        raise UserError("--patch", f"{','.join(map(str, size))} has {len(size)} sizes, but {record.id} {len(shape)} axes")
    size = tuple(min(s or n, n) for s, n in zip(size, shape, strict=True))
    if size == shape:
        yield record
        return
    for corner in product(*(_starts(n, s, overlap) for n, s in zip(shape, size, strict=True))):
        yield _block(record, corner, size)


def _starts(length: int, size: int, overlap: int) -> list[int]:
    if size == length:
        return [0]
    if overlap >= size:
        raise UserError("--overlap", f"{overlap} voxels of a block of {size} leave nothing new; give less than {size}")
    step = size - overlap
    return sorted({min(start, length - size) for start in range(0, length - overlap, step)})


def _block(record: Record, corner: tuple[int, ...], size: tuple[int, ...]) -> Record:
    box = tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))
    affine = record.affine
    if affine is not None:
        shift = np.eye(4)
        shift[:3, 3] = corner
        affine = affine @ shift
    extras = {name: _cut(record, name, value, box) for name, value in record.extras.items()}
    if "foreground" in extras:
        points = extras["foreground"] - np.array(corner, np.int32)
        extras["foreground"] = points[((points >= 0) & (points < size)).all(1)]
    return replace(record, image=record.image[box], id=f"{record.id}:at{','.join(map(str, corner))}", affine=affine,
                   extras=extras)


def _cut(record: Record, name: str, value: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """What of an extra goes with a block: its part on the image's grid, or all of a number, a vector, points."""
    grid = record.image.shape[:-1]
    if value.shape[:-1] == grid:
        return value[box]
    if value.ndim != record.image.ndim:
        return value
    if value.shape[0] == grid[0] and all(cut.stop - cut.start == n for cut, n in zip(box[1:], grid[1:], strict=True)):
        return value[box[0]]  # slices of another size
    raise UserError("--patch", f"{record.id} has a {name} on another grid than its image, which can't be cut; leave it out")
