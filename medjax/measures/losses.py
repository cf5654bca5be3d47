"""Training losses: scalars over a masked batch of images `(B, *space, C)` in unit range.

Each is a sum over the voxels that count divided by their number, so padded samples weigh nothing.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from medjax.measures import image_quality
from medjax.measures.image_quality import Images, Mask
from medjax.types import Array

Scalar = Float[Array, ""]


def _mean(values: Array, mask: Mask) -> Scalar:
    if mask is None:
        return values.mean()
    weight = jnp.broadcast_to(mask, values.shape).astype(values.dtype)
    return (values * weight).sum() / jnp.maximum(weight.sum(), 1)


def l1(pred: Images, target: Images, mask: Mask = None) -> Scalar:
    """Mean absolute error."""
    return _mean(jnp.abs(pred - target), mask)


def l2(pred: Images, target: Images, mask: Mask = None) -> Scalar:
    """Mean squared error."""
    return _mean(jnp.square(pred - target), mask)


def charbonnier(pred: Images, target: Images, mask: Mask = None, epsilon: float = 1e-3) -> Scalar:
    """A smooth L1 (Charbonnier et al., 1994): sqrt(error^2 + epsilon^2)."""
    return _mean(jnp.sqrt(jnp.square(pred - target) + epsilon**2), mask)


def ssim(pred: Images, target: Images, mask: Mask = None) -> Scalar:
    """1 - SSIM, averaged over the samples that count."""
    similarity = image_quality.ssim(pred, target, 1.0, mask)
    if mask is None:
        return 1 - similarity.mean()
    counts = mask.any(tuple(range(1, mask.ndim))).astype(pred.dtype)
    return ((1 - similarity) * counts).sum() / jnp.maximum(counts.sum(), 1)


def gradient(pred: Images, target: Images, mask: Mask = None) -> Scalar:
    """Mean absolute difference of the forward differences along every spatial axis: keeps edges (Mathieu et al., 2016)."""
    error = pred - target
    axes = range(1, error.ndim - 1)
    total = jnp.zeros((), error.dtype)
    for axis in axes:
        lead, lag = ((slice(None),) * axis + (part,) for part in (slice(1, None), slice(None, -1)))
        both = None if mask is None else mask[lead] & mask[lag]
        total += _mean(jnp.abs(error[lead] - error[lag]), both)
    return total / len(axes)


RESTORATION = {"l1": l1, "l2": l2, "charbonnier": charbonnier, "ssim": ssim, "gradient": gradient}
"""What a restoration task offers to `config.objective.loss`."""


def cross_entropy(logits: Images, labels: Images, mask: Mask = None) -> Scalar:
    """Cross-entropy of softmax; `labels` are one-hot or shares of classes `(B, *space, K)`."""
    return _mean(-(labels * jax.nn.log_softmax(logits)).sum(-1, keepdims=True), mask)


def focal(logits: Images, labels: Images, mask: Mask = None, focus: float = 2.0) -> Scalar:
    """Cross-entropy that counts what is well told apart less (Lin et al., 2017)."""
    log_p = jax.nn.log_softmax(logits)
    return _mean(-(labels * jnp.power(1 - jnp.exp(log_p), focus) * log_p).sum(-1, keepdims=True), mask)


def dice(logits: Images, labels: Images, mask: Mask = None) -> Scalar:
    """1 - the soft Dice coefficient of each class but the first (background), over the whole batch (Milletari et al., 2016).

    Over the batch and not per sample: a patch without a class says nothing of how well it is found.
    """
    weight = 1.0 if mask is None else mask.astype(logits.dtype)
    axes = tuple(range(logits.ndim - 1))
    p, t = (share[..., 1:] * weight for share in (jax.nn.softmax(logits), labels))
    return 1 - ((2 * (p * t).sum(axes) + 1) / ((p + t).sum(axes) + 1)).mean()


SEGMENTATION = {"cross_entropy": cross_entropy, "dice": dice, "focal": focal}
"""What a segmentation task offers to `config.objective.loss`."""
