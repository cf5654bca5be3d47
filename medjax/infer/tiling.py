"""A network on an image of any size: overlapping tiles of one shape, blended."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np


def tiled(predict: Callable[[np.ndarray], np.ndarray], image: np.ndarray, tile: Sequence[int],
          overlap: float = 0.25) -> np.ndarray:
    """`predict` on `image` `(*space, C)`, tile by tile: `(*tile, C)` to `(*tile * factor, C')`, for any whole factor.

    Tiles overlap by that part of their size and fade into each other, so that no seam shows. An axis that a tile spans
    is taken whole; a shorter one is padded with its edge.
    """
    pads = [(0, max(0, t - n)) for t, n in zip(tile, image.shape[:-1], strict=True)]
    padded = np.pad(image, [*pads, (0, 0)], mode="edge")
    starts = [_starts(n, t, overlap) for n, t in zip(padded.shape[:-1], tile, strict=True)]
    total = weights = fade = factor = None
    for corner in product(*starts):
        out = np.asarray(predict(padded[tuple(slice(c, c + t) for c, t in zip(corner, tile, strict=True))]))
        if total is None:
            factor = [a // b for a, b in zip(out.shape[:-1], tile, strict=True)]
            space = [n * f for n, f in zip(padded.shape[:-1], factor, strict=True)]
            total, weights = np.zeros((*space, out.shape[-1]), np.float32), np.zeros((*space, 1), np.float32)
            fade = _fade(out.shape[:-1])
        at = tuple(slice(c * f, c * f + n) for c, f, n in zip(corner, factor, out.shape[:-1], strict=True))
        total[at] += fade * out
        weights[at] += fade
    inside = tuple(slice(0, n * f) for n, f in zip(image.shape[:-1], factor, strict=True))
    return (total / weights)[inside]


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
