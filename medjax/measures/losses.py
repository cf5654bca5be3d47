"""Training losses over a masked batch of images `(B, *space, C)` in unit range.

Each is a `Mean`: a sum over what counts, and how much that is, so that padding weighs nothing and microbatches add up.
`mask` is `(B, *space, 1)` bool or None (everything counts).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from medjax.measures import image_quality
from medjax.measures.image_quality import Images, Mask
from medjax.types import Array, Mean

Loss = Callable[..., Mean]


def masked_mean(values: Array, mask: Bool[Array, "..."] | None = None) -> Mean:
    """The mean of `values` `(B, *space, C)` over the voxels of `mask`, broadcastable to them."""
    if mask is None:
        return Mean(values.sum(), jnp.full((), math.prod(values.shape), jnp.float32))
    weight = jnp.broadcast_to(mask, values.shape)
    return Mean(jnp.where(weight, values, 0).sum(), weight.sum().astype(jnp.float32))


def sample_mean(values: Array, mask: Mask = None) -> Mean:
    """The mean of `values` `(B,)` over the samples of which anything counts."""
    if mask is None:
        return masked_mean(values)
    return masked_mean(values, mask.any(tuple(range(1, mask.ndim))))


def mean_of(*means: Mean) -> Mean:
    """The mean over everything that several means are over."""
    return Mean(sum((m.total for m in means), jnp.zeros(())), sum((m.count for m in means), jnp.zeros(())))


def l1(pred: Images, target: Images, mask: Mask = None) -> Mean:
    """Mean absolute error."""
    return masked_mean(jnp.abs(pred - target), mask)


def l2(pred: Images, target: Images, mask: Mask = None) -> Mean:
    """Mean squared error."""
    return masked_mean(jnp.square(pred - target), mask)


def charbonnier(pred: Images, target: Images, mask: Mask = None, epsilon: float = 1e-3) -> Mean:
    """A smooth L1 (Charbonnier et al., 1994): sqrt(error^2 + epsilon^2)."""
    return masked_mean(jnp.sqrt(jnp.square(pred - target) + epsilon**2), mask)


def ssim(pred: Images, target: Images, mask: Mask = None) -> Mean:
    """1 - SSIM, over the samples in whose mask a window fits."""
    similarity = image_quality.ssim(pred, target, 1.0, mask)
    if mask is None:
        return masked_mean(1 - similarity)
    whole = image_quality.whole_windows(mask)
    counts = whole.any(tuple(range(1, whole.ndim)))
    return masked_mean(1 - jnp.where(counts, similarity, 0), counts)


def gradient(pred: Images, target: Images, mask: Mask = None) -> Mean:
    """Mean absolute difference of the forward differences along every spatial axis: keeps edges (Mathieu et al., 2016)."""
    return mean_of(*(masked_mean(jnp.abs(difference), both) for difference, both in differences(pred - target, mask)))


def differences(image: Array, mask: Mask = None) -> list[tuple[Array, Bool[Array, "..."] | None]]:
    """The forward differences along each spatial axis, and where both of their voxels count."""
    found = []
    for axis in range(1, image.ndim - 1):
        lead, lag = ((slice(None),) * axis + (rows,) for rows in (slice(1, None), slice(None, -1)))
        found.append((image[lead] - image[lag], None if mask is None else mask[lead] & mask[lag]))
    return found


RESTORATION: dict[str, Loss] = {"l1": l1, "l2": l2, "charbonnier": charbonnier, "ssim": ssim, "gradient": gradient}
"""What a restoration task offers to `config.objective.loss`."""


def cross_entropy(logits: Images, labels: Images, mask: Mask = None) -> Mean:
    """Cross-entropy of softmax; `labels` are one-hot or shares of classes `(B, *space, K)`."""
    return masked_mean(-(labels * jax.nn.log_softmax(logits)).sum(-1, keepdims=True), mask)


def focal(logits: Images, labels: Images, mask: Mask = None, focus: float = 2.0) -> Mean:
    """Cross-entropy that counts less what is classified with confidence (Lin et al., 2017)."""
    log_p = jax.nn.log_softmax(logits)
    return masked_mean(-(labels * jnp.power(1 - jnp.exp(log_p), focus) * log_p).sum(-1, keepdims=True), mask)


def dice(logits: Images, labels: Images, mask: Mask = None) -> Mean:
    """1 - the soft Dice coefficient of each sample and class but the first, background (Milletari et al., 2016).

    One voxel is added to both of its sums: a class that is neither there nor predicted has the coefficient 1.
    """
    weight = 1.0 if mask is None else mask.astype(logits.dtype)
    axes = tuple(range(1, logits.ndim - 1))
    p, t = (share[..., 1:] * weight for share in (jax.nn.softmax(logits), labels))
    each = 1 - (2 * (p * t).sum(axes) + 1) / ((p + t).sum(axes) + 1)
    return sample_mean(each.mean(-1), mask)


SEGMENTATION: dict[str, Loss] = {"cross_entropy": cross_entropy, "dice": dice, "focal": focal}
"""What a segmentation task offers to `config.objective.loss`."""
