"""Fusion of several images `(*space, M)` into one `(*space, 1)` without training."""

import numpy as np
import pywt
from jaxtyping import Float

Sources = Float[np.ndarray, "*space m"]
Fused = Float[np.ndarray, "*space 1"]


def average(sources: Sources) -> Fused:
    """The mean of the sources."""
    return sources.mean(-1, keepdims=True)


def maximum(sources: Sources) -> Fused:
    """The brightest source at every voxel."""
    return sources.max(-1, keepdims=True)


def wavelet(sources: Sources, name: str = "db2", levels: int = 3) -> Fused:
    """The mean of the coarsest scale and, at each finer one, the strongest coefficient (Li et al., 1995)."""
    space = sources.shape[:-1]
    levels = min(levels, pywt.dwt_max_level(min(space), name))
    parts = [pywt.wavedecn(sources[..., m], name, level=levels) for m in range(sources.shape[-1])]
    fused = [np.mean([part[0] for part in parts], 0)]
    for level in range(1, levels + 1):
        fused.append({key: _strongest([part[level][key] for part in parts]) for key in parts[0][level]})
    image = pywt.waverecn(fused, name)[tuple(slice(0, n) for n in space)]
    return image[..., None].astype(sources.dtype)


def _strongest(coefficients: list[np.ndarray]) -> np.ndarray:
    stack = np.stack(coefficients)
    return np.take_along_axis(stack, np.abs(stack).argmax(0)[None], 0)[0]
