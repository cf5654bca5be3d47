"""A network on an image of any size: overlapping tiles of one shape, blended."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

Arrays = dict[str, np.ndarray]


def tiled(predict: Callable[[Arrays], Arrays], arrays: Mapping[str, np.ndarray], tile: Sequence[int],
          overlap: float = 0.25) -> Arrays:
    """`predict` on `arrays`, all `(*space, C)`, tile by tile: `(*tile, C)` to `(*tile * factor, C')` for any whole factor.

    Tiles overlap by that part of their size and fade into each other, so that no seam shows. An axis that a tile spans
    is taken whole; a shorter one is padded with its edge (a mask with False).
    """
    space = next(iter(arrays.values())).shape[:-1]
    pads = [(0, max(0, t - n)) for t, n in zip(tile, space, strict=True)]
    padded = {name: _padded(name, array, pads) for name, array in arrays.items()}
    sizes = [n + after for n, (_, after) in zip(space, pads, strict=True)]
    total: Arrays = {}
    weights: np.ndarray | None = None
    for corner in product(*(_starts(n, t, overlap) for n, t in zip(sizes, tile, strict=True))):
        box = tuple(slice(c, c + t) for c, t in zip(corner, tile, strict=True))
        made = predict({name: array[box] for name, array in padded.items()})
        shape = next(iter(made.values())).shape[:-1]
        factor = [a // b for a, b in zip(shape, tile, strict=True)]
        if weights is None:
            whole = [n * f for n, f in zip(sizes, factor, strict=True)]
            total = {name: np.zeros((*whole, part.shape[-1]), np.float32) for name, part in made.items()}
            weights, fade = np.zeros((*whole, 1), np.float32), _fade(shape)
        at = tuple(slice(c * f, c * f + n) for c, f, n in zip(corner, factor, shape, strict=True))
        for name, part in made.items():
            total[name][at] += fade * part
        weights[at] += fade
    inside = tuple(slice(0, n * f) for n, f in zip(space, factor, strict=True))
    for part in total.values():
        part /= weights
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


def _fade(shape: Sequence[int]) -> np.ndarray:
    """Weights that fall from the middle of a tile to its sides, never to 0: `(*shape, 1)`."""
    fade = np.ones((1,) * len(shape), np.float32)
    for axis, size in enumerate(shape):
        ramp = 1 - np.abs((np.arange(size) + 0.5) / size * 2 - 1) + 1e-3
        fade = fade * ramp.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return fade[..., None]
