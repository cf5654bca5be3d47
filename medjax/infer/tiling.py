"""A network on an image of any size: overlapping tiles of one shape, blended."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from medjax.infer.progress import Progress

Arrays = dict[str, np.ndarray]
OVERLAP = 0.25


def tiled(predict: Callable[[Arrays], Arrays], arrays: Mapping[str, np.ndarray], tile: Sequence[int],
          overlap: float = OVERLAP, progress: Progress | None = None) -> Arrays:
    """`predict` on `arrays`, all `(*space, C)`, tile by tile: `(*tile, C)` to `(*tile * factor, C')` for any whole factor.

    Tiles overlap by that part of their size and fade into each other, so that no seam shows. An axis that a tile spans
    is taken whole; a shorter one is padded with its edge (a mask with False).
    """
    space = next(iter(arrays.values())).shape[:-1]
    pads = [(0, max(0, t - n)) for t, n in zip(tile, space, strict=True)]
    padded = {name: _padded(name, array, pads) for name, array in arrays.items()}
    sizes = [n + after for n, (_, after) in zip(space, pads, strict=True)]
    total: Arrays = {}
    weights: list[np.ndarray] = []
    starts = [_starts(n, t, overlap) for n, t in zip(sizes, tile, strict=True)]
    for corner in (progress or Progress()).parts(list(product(*starts))):
        box = tuple(slice(c, c + t) for c, t in zip(corner, tile, strict=True))
        made = predict({name: array[box] for name, array in padded.items()})
        shape = next(iter(made.values())).shape[:-1]
        factor = [a // b for a, b in zip(shape, tile, strict=True)]
        if not total:
            whole = [n * f for n, f in zip(sizes, factor, strict=True)]
            total = {name: np.zeros((*whole, part.shape[-1]), np.float32) for name, part in made.items()}
            weight = fade(shape)
            weights = [_summed(ramp, [start * f for start in along], n)
                       for ramp, along, f, n in zip(_ramps(shape), starts, factor, whole, strict=True)]
        at = tuple(slice(c * f, c * f + n) for c, f, n in zip(corner, factor, shape, strict=True))
        for name, part in made.items():
            total[name][at] += weight * part
    inside = tuple(slice(0, n * f) for n, f in zip(space, factor, strict=True))
    for part in total.values():
        for axis, along in enumerate(weights):  # tiles lie on a grid, so that the sum of their weights is a product
            part /= _along(along, axis, len(weights))
    return {name: part[inside] for name, part in total.items()}


def _padded(name: str, array: np.ndarray, pads: list[tuple[int, int]]) -> np.ndarray:
    if not any(after for _, after in pads):
        return array
    if name == "mask":
        return np.pad(array, [*pads, (0, 0)])
    return np.pad(array, [*pads, (0, 0)], mode="edge")


def _starts(size: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along an axis: evenly spread, each overlapping the next by at least that part."""
    if size <= tile:
        return [0]
    count = 1 + int(np.ceil((size - tile) / max(1, tile * (1 - overlap))))
    return [round(s) for s in np.linspace(0, size - tile, count)]


def _ramps(shape: Sequence[int]) -> list[np.ndarray]:
    """For each axis weights that fall from the middle of a tile to its sides, never to 0."""
    return [(1 - np.abs((np.arange(size) + 0.5) / size * 2 - 1) + 1e-3).astype(np.float32) for size in shape]


def fade(shape: Sequence[int]) -> np.ndarray:
    """The weights of the voxels of a tile of `shape`, `(*shape, 1)`: they fall from its middle to its sides."""
    found = np.ones((1,) * (len(shape) + 1), np.float32)
    for axis, ramp in enumerate(_ramps(shape)):
        found = found * _along(ramp, axis, len(shape))
    return found


def _summed(ramp: np.ndarray, starts: Sequence[int], size: int) -> np.ndarray:
    """The sum of the ramps that begin at `starts`, along an axis of `size`."""
    total = np.zeros(size, np.float32)
    for start in starts:
        total[start:start + len(ramp)] += ramp
    return total


def _along(values: np.ndarray, axis: int, axes: int) -> np.ndarray:
    """Values of one axis, to be broadcast over `(*space, C)`."""
    return values.reshape([-1 if a == axis else 1 for a in range(axes + 1)])
