"""How well classes are told apart, over a data set or over the voxels of an image."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from medjax.types import Array, Metric

AUC = Metric("auc", "AUC", decimals=4)
AUROC = Metric("auroc", "AUROC", decimals=4)
ACCURACY = Metric("accuracy", decimals=4)
PRECISION = Metric("precision", decimals=4)
RECALL = Metric("recall", decimals=4)
F1 = Metric("f1", "F1", decimals=4)


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
