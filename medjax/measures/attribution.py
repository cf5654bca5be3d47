"""How right a map of what a number depends on is, and how far a network looks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SHARES = np.concatenate([[0.0], np.geomspace(0.001, 1, 24)])
"""Of the voxels, that are replaced: close together at first, where good maps differ."""


@dataclass(frozen=True)
class Curve:
    """What is left of a score, 1 that of the image and 0 that of the baseline, as `share` of the voxels is replaced."""

    share: np.ndarray
    left: np.ndarray

    @property
    def area(self) -> float:
        """The area under the curve."""
        return float(np.trapezoid(self.left, self.share))


def curve(score: Callable[[np.ndarray], float], image: np.ndarray, baseline: np.ndarray, importance: np.ndarray,
          scope: np.ndarray, insert: bool = False, shares: np.ndarray = SHARES) -> Curve:
    """The score as the voxels of most `importance` `(*space)` are deleted, or inserted (Petsiuk et al. 2018).

    Deletion goes from the image `(*space, C)` to the baseline, insertion the other way. Voxels outside `scope` `(*space)`
    bool stay as they are. `score` must differ between the two.
    """
    places = np.flatnonzero(scope)
    order = places[np.argsort(-importance.ravel()[places], kind="stable")]
    start, end = (baseline, image) if insert else (image, baseline)
    at_image, at_baseline = score(image), score(baseline)
    found = []
    for share in shares:
        mixed = start.reshape(-1, start.shape[-1]).copy()
        chosen = order[:round(share * len(order))]
        mixed[chosen] = end.reshape(-1, end.shape[-1])[chosen]
        found.append((score(mixed.reshape(start.shape)) - at_baseline) / (at_image - at_baseline))
    return Curve(np.asarray(shares), np.array(found))


def effective_radius(energy: np.ndarray, middle: Sequence[float], spacing_mm: Sequence[float], share: float) -> float:
    """How far in mm from `middle` (voxels) that `share` of an `energy` `(*space)` lies: of squared gradients, how far a
    network looks (Luo et al. 2016).
    """
    axes = [(np.arange(n) - c) * s for n, c, s in zip(energy.shape, middle, spacing_mm, strict=True)]
    distance = np.sqrt(sum(np.square(along).reshape([-1 if i == k else 1 for i in range(len(axes))])
                           for k, along in enumerate(axes)))
    order = np.argsort(distance, axis=None, kind="stable")
    kept = np.cumsum(energy.ravel()[order])
    return float(distance.ravel()[order][np.searchsorted(kept, share * kept[-1] * (1 - 1e-12))])
