"""Image quality, one number per sample, over a mask, with an explicit data range.

Images are `(B, *space, C)`; `mask` is `(B, *space, 1)` bool or None (everything counts).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from medjax.types import Array

LOWER_IS_BETTER = frozenset({"mse", "mae", "nmse", "hausdorff95", "registration_error", "folds", "frechet", "niqe"})

Images = Float[Array, "b *space c"]
Mask = Bool[Array, "b *space 1"] | None


def _mean(values: Array, mask: Mask) -> Float[Array, " b"]:
    axes = tuple(range(1, values.ndim))
    if mask is None:
        return values.mean(axes)
    weight = jnp.broadcast_to(mask, values.shape).astype(values.dtype)
    return (values * weight).sum(axes) / jnp.maximum(weight.sum(axes), 1)


def mse(pred: Images, target: Images, mask: Mask = None) -> Float[Array, " b"]:
    """Mean squared error, in squared units of the images."""
    return _mean(jnp.square(pred - target), mask)


def mae(pred: Images, target: Images, mask: Mask = None) -> Float[Array, " b"]:
    """Mean absolute error, in units of the images."""
    return _mean(jnp.abs(pred - target), mask)


def nmse(pred: Images, target: Images, mask: Mask = None) -> Float[Array, " b"]:
    """Squared error over the squared norm of the target (as in fastMRI, Zbontar et al., 2018)."""
    return mse(pred, target, mask) / jnp.maximum(_mean(jnp.square(target), mask), jnp.finfo(pred.dtype).tiny)


def psnr(pred: Images, target: Images, data_range: float, mask: Mask = None) -> Float[Array, " b"]:
    """Peak signal-to-noise ratio in dB; `data_range` is the width of the images' range (max - min), never their own."""
    return 10 * jnp.log10(data_range**2 / jnp.maximum(mse(pred, target, mask), 1e-20 * data_range**2))


def ssim(pred: Images, target: Images, data_range: float, mask: Mask = None) -> Float[Array, " b"]:
    """Structural similarity (Wang et al., 2004): Gaussian window of sigma 1.5 and 11 voxels along every spatial axis.

    Averaged over the windows that lie wholly inside the image and the mask, like scikit-image's
    `structural_similarity(gaussian_weights=True, use_sample_covariance=False)`. Every axis needs 11 voxels.
    """
    similarity = ssim_map(pred, target, data_range)
    if mask is None:
        return _mean(similarity, None)
    inside = _gaussian(mask.astype(pred.dtype)) > 1 - 1e-5
    return _mean(similarity, inside)


def ssim_map(pred: Images, target: Images, data_range: float) -> Float[Array, "b *inner c"]:
    """SSIM of each window that fits in the image: every spatial axis is 10 shorter."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_p, mean_t = _gaussian(pred), _gaussian(target)
    # Float32 moments cancel badly far from zero (HU); one shift per image is enough.
    shift = target.mean(tuple(range(1, target.ndim)), keepdims=True)
    p, t = pred - shift, target - shift
    mp, mt = mean_p - shift, mean_t - shift
    var_p, var_t, cov = _gaussian(p * p) - mp * mp, _gaussian(t * t) - mt * mt, _gaussian(p * t) - mp * mt
    luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
    return luminance * (2 * cov + c2) / (var_p + var_t + c2)


def _gaussian(x: Array) -> Array:
    """Separable Gaussian, sigma 1.5, 11 taps, over the spatial axes, where the window fits."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in range(1, x.ndim - 1):
        size = x.shape[axis] - 10
        before = (slice(None),) * axis
        x = sum(tap * x[(*before, slice(k, k + size))] for k, tap in enumerate(taps))
    return x
