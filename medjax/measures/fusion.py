"""How much of several images a fused one keeps: numbers per sample, `sources` `(B, *space, M)`, `fused` `(B, *space, 1)`.

Images are in unit range; `mask` is `(B, *space, 1)` bool or None.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from medjax.measures import image_quality
from medjax.measures.image_quality import Mask
from medjax.ops.separable import correlate_axis
from medjax.types import Array, Metric

Fused = Float[Array, "b *space 1"]
Sources = Float[Array, "b *space m"]
PerSample = Float[Array, " b"]
BINS = 64
QABF = Metric("qabf", "edges kept (Qabf)", decimals=4)
STRUCTURE = Metric("structure", "mean SSIM with the sources", decimals=4)
MUTUAL_INFORMATION = Metric("mutual_information", "mutual information", "bits")
ENTROPY = Metric("entropy", "entropy", "bits")


def entropy(fused: Fused, mask: Mask = None, bins: int = BINS) -> PerSample:
    """The entropy of the histogram, in bits."""
    return jax.vmap(lambda f, w: _entropy(_histogram(_bins(f, bins), w, bins)))(_flat(fused[..., 0]), _weights(fused, mask))


def mutual_information(fused: Fused, sources: Sources, mask: Mask = None) -> PerSample:
    """The sum over sources of what the fused image tells of each, in bits, from joint histograms (Qu et al., 2002)."""
    def one(f: Array, s: Array, w: Array) -> Array:
        joint = _histogram(_bins(f) * BINS + _bins(s), w, BINS * BINS)
        table = joint.reshape(BINS, BINS)
        return _entropy(table.sum(0)) + _entropy(table.sum(1)) - _entropy(joint)

    weights = _weights(fused, mask)
    each = [jax.vmap(one)(_flat(fused[..., 0]), _flat(sources[..., m]), weights) for m in range(sources.shape[-1])]
    return sum(each[1:], each[0])


def structure(fused: Fused, sources: Sources, mask: Mask = None) -> PerSample:
    """The mean over sources of the SSIM with the fused image."""
    each = [image_quality.ssim(fused, sources[..., m:m + 1], 1.0, mask) for m in range(sources.shape[-1])]
    return sum(each[1:], each[0]) / len(each)


def edges(fused: Fused, sources: Sources, mask: Mask = None) -> PerSample:
    """Q^{AB/F}: how well strength and direction of the sources' edges are kept (Xydeas & Petrović, 2000), 0 … 1.

    Sobel gradients in the plane of the last two axes, where they lie wholly inside the image and the mask; each source
    weighs by its own edge strength. NaN where no source has an edge.
    """
    strength_f, angle_f = _sobel(fused)
    inside = 1.0 if mask is None else _neighbourhoods(mask)
    kept = total = jnp.zeros(len(fused))
    for m in range(sources.shape[-1]):
        strength, angle = _sobel(sources[..., m:m + 1])
        ratio = jnp.minimum(strength, strength_f) / jnp.maximum(jnp.maximum(strength, strength_f), 1e-6)
        turned = 1 - jnp.abs(angle - angle_f) / (jnp.pi / 2)
        quality = _sigmoid(ratio, 0.9994, 15.0, 0.5) * _sigmoid(turned, 0.9879, 22.0, 0.8)
        weight = strength * inside
        axes = tuple(range(1, weight.ndim))
        kept, total = kept + (quality * weight).sum(axes), total + weight.sum(axes)
    return jnp.where(total > 1e-6, kept / jnp.maximum(total, 1e-6), jnp.nan)


def _sigmoid(x: Array, top: float, steep: float, middle: float) -> Array:
    return top / (1 + jnp.exp(-steep * (x - middle)))


def _sobel(x: Array) -> tuple[Array, Array]:
    """Strength, and direction in (-pi/2, pi/2], of all voxels but those at the image's sides."""
    rows, columns = x.ndim - 3, x.ndim - 2
    smooth, slope = jnp.array([1.0, 2.0, 1.0]), jnp.array([-1.0, 0.0, 1.0])
    gx = correlate_axis(correlate_axis(x, smooth, rows), slope, columns)
    gy = correlate_axis(correlate_axis(x, smooth, columns), slope, rows)
    return jnp.sqrt(gx**2 + gy**2), jnp.arctan(gy / jnp.where(jnp.abs(gx) < 1e-6, 1e-6, gx))


def _neighbourhoods(mask: Array) -> Array:
    """Where a voxel and its eight neighbours in the plane count, without the image's sides."""
    ones, counts = jnp.ones(3), mask.astype(jnp.float32)
    return correlate_axis(correlate_axis(counts, ones, mask.ndim - 3), ones, mask.ndim - 2) > 8.5


def _bins(x: Array, count: int = BINS) -> Array:
    return jnp.clip(x * count, 0, count - 1).astype(jnp.int32)


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def _weights(images: Array, mask: Mask) -> Array:
    return _flat(jnp.ones_like(images[..., 0]) if mask is None else mask[..., 0].astype(images.dtype))


def _histogram(bins: Array, weights: Array, count: int) -> Array:
    """The share of each of `count` bins."""
    return jnp.zeros(count).at[bins].add(weights) / jnp.maximum(weights.sum(), 1e-6)


def _entropy(shares: Array) -> Array:
    return -jnp.where(shares > 0, shares * jnp.log2(jnp.maximum(shares, 1e-12)), 0).sum()
