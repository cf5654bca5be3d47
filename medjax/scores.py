"""How well labels are found: overlap and distance of regions per sample, classification over a data set."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from medjax.types import Array

Regions = Bool[Array, "b *space k"]
PerRegion = Float[Array, "b k"]


def overlap(pred: Regions, target: Regions) -> tuple[PerRegion, PerRegion]:
    """Dice (1945) and Jaccard (1912, IoU) coefficient of each region; NaN where it is in neither."""
    axes = tuple(range(1, pred.ndim - 1))
    both, sizes = (pred & target).sum(axes), pred.sum(axes) + target.sum(axes)
    found = sizes > 0
    return (jnp.where(found, 2 * both / jnp.maximum(sizes, 1), jnp.nan),
            jnp.where(found, both / jnp.maximum(sizes - both, 1), jnp.nan))


def hausdorff95(pred: Regions, target: Regions, spacing_mm: Float[Array, "b n"]) -> PerRegion:
    """The 95th percentile, in mm, of the distances from either region's surface voxels to the other's, both ways.

    A surface voxel has a neighbour across a face, or the image's side, outside the region. NaN where a region is empty.
    """
    def one(pred: Array, target: Array, spacing: Array) -> Array:
        p, t = surface(pred), surface(target)
        distances = jnp.stack([distance(t, spacing), distance(p, spacing)])
        judged = jnp.where(jnp.stack([p, t]), distances, jnp.nan)
        value = jnp.nanpercentile(judged, 95)
        return jnp.where(p.any() & t.any(), value, jnp.nan)

    each_region = jax.vmap(one, (-1, -1, None))
    return jax.lax.map(lambda sample: each_region(*sample), (pred, target, spacing_mm))


def surface(region: Bool[Array, "*space"]) -> Bool[Array, "*space"]:
    """The voxels of a region that have a neighbour across a face, or the image's side, outside it."""
    inner = region
    for axis in range(region.ndim):
        for step in (1, -1):
            shifted = jnp.roll(region, step, axis)
            side = (slice(None),) * axis + (0 if step == 1 else -1,)
            inner &= shifted.at[side].set(False)
    return region & ~inner


def distance(region: Bool[Array, "*space"], spacing_mm: Float[Array, " n"]) -> Float[Array, "*space"]:
    """Exact Euclidean distance in mm from each voxel to the nearest of `region`, an axis at a time (Meijster, 2000)."""
    squared = jnp.where(region, 0.0, jnp.inf)
    for axis in range(region.ndim):
        place = jnp.arange(region.shape[axis]).reshape([-1 if a == axis else 1 for a in range(region.ndim)])

        def nearer(j: int, best: Array, axis: int = axis, place: Array = place, before: Array = squared) -> Array:
            row = jax.lax.dynamic_slice_in_dim(before, j, 1, axis)
            return jnp.minimum(best, row + jnp.square((place - j) * spacing_mm[axis]))

        squared = jax.lax.fori_loop(0, region.shape[axis], nearer, jnp.full_like(squared, jnp.inf))
    return jnp.sqrt(squared)


def auroc(score: np.ndarray, truth: np.ndarray) -> float:
    """The area under the ROC curve: the chance that a positive outranks a negative (Hanley & McNeil, 1982).

    `score` and `truth` (bool) are `(N,)`; ties count half. NaN where one of the two has no sample.
    """
    truth = np.asarray(truth, bool)
    positives = int(truth.sum())
    negatives = truth.size - positives
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[place][truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auroc_map(score: Float[Array, "b *space 1"], truth: Bool[Array, "b *space 1"],
              mask: Bool[Array, "b *space 1"]) -> Float[Array, " b"]:
    """`auroc` of each sample's voxels under the mask, on the device."""
    def one(score: Array, truth: Array, mask: Array) -> Array:
        positive, negative = truth & mask, ~truth & mask
        others = jnp.sort(jnp.where(negative, score, jnp.inf))
        below, up_to = (jnp.searchsorted(others, score, side=side) for side in ("left", "right"))
        wins = jnp.where(positive, (below + up_to) / 2, 0).sum()
        pairs = positive.sum().astype(jnp.float32) * negative.sum()
        return jnp.where(pairs > 0, wins / jnp.maximum(pairs, 1), jnp.nan)

    n = score.shape[0]
    return jax.vmap(one)(*(a.reshape(n, -1) for a in (score, truth, mask)))


def confusion(found: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """How many samples of each true class (rows) were given each class (columns): `(K, K)` from two `(N,)` of indices."""
    return np.bincount(np.asarray(truth) * classes + np.asarray(found), minlength=classes**2).reshape(classes, classes)


def precision_recall_f1(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per class, from two bool `(N, K)`; 0 where a class is never found, or never there."""
    hits = (found & truth).sum(0)
    n_found, n_true = found.sum(0), truth.sum(0)
    return hits / np.maximum(n_found, 1), hits / np.maximum(n_true, 1), 2 * hits / np.maximum(n_found + n_true, 1)


def mean_of_numbers(values: Sequence[float] | np.ndarray) -> float:
    """The mean of what is a number; NaN where nothing is."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if finite.size else float("nan")


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """The Fréchet distance of the Gaussians that fit two sets of codes `(N, K)` and `(M, K)` (Heusel et al., 2017)."""
    (mean_1, cov_1), (mean_2, cov_2) = ((np.mean(v, 0), np.atleast_2d(np.cov(v, rowvar=False))) for v in (one, other))
    values, vectors = np.linalg.eigh(cov_1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_2 @ root), 0)).sum()
    return float(np.square(mean_1 - mean_2).sum() + np.trace(cov_1) + np.trace(cov_2) - 2 * cross)
