"""Distances between sets of images."""

import numpy as np

from medjax.types import Metric

FRECHET = Metric("frechet", "Fréchet distance", lower_is_better=True)
DIVERSITY = Metric("diversity")


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """The Fréchet distance of the Gaussians that fit two sets of codes `(N, K)` and `(M, K)` (Heusel et al., 2017)."""
    (mean_1, cov_1), (mean_2, cov_2) = ((np.mean(v, 0), np.atleast_2d(np.cov(v, rowvar=False))) for v in (one, other))
    values, vectors = np.linalg.eigh(cov_1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_2 @ root), 0)).sum()
    return float(np.square(mean_1 - mean_2).sum() + np.trace(cov_1) + np.trace(cov_2) - 2 * cross)
