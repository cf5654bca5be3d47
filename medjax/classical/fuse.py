"""Fusion of several images `(*space, M)` into one `(*space, 1)` without training."""

import numpy as np
import pywt
from jaxtyping import Float

from medjax.classical._declared import method

Sources = Float[np.ndarray, "*space m"]
Fused = Float[np.ndarray, "*space 1"]


@method("fuse")
def average(sources: Sources, strength: float = 1.0) -> Fused:
    """The mean of the sources."""
    return sources.mean(-1, keepdims=True)


@method("fuse")
def maximum(sources: Sources, strength: float = 1.0) -> Fused:
    """The brightest source at every voxel."""
    return sources.max(-1, keepdims=True)


@method("fuse", (1.0, 2.0, 3.0, 4.0))
def wavelet(sources: Sources, strength: float = 3.0, name: str = "db2") -> Fused:
    """The mean of the coarsest scale and, at each finer one, the strongest coefficient (Li et al., 1995).

    `strength` is the number of scales.
    """
    space = sources.shape[:-1]
    levels = min(int(strength), pywt.dwt_max_level(min(space), name))
    parts = [pywt.wavedecn(sources[..., m], name, level=levels) for m in range(sources.shape[-1])]
    fused = [np.mean([part[0] for part in parts], 0)]
    for level in range(1, levels + 1):
        fused.append({key: _strongest([part[level][key] for part in parts]) for key in parts[0][level]})
    image = pywt.waverecn(fused, name)[tuple(slice(0, n) for n in space)]
    return image[..., None].astype(sources.dtype)


def _strongest(coefficients: list[np.ndarray]) -> np.ndarray:
    stack = np.stack(coefficients)
    return np.take_along_axis(stack, np.abs(stack).argmax(0)[None], 0)[0]
