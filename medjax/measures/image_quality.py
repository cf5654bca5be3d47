"""Image quality: PSNR, SSIM and other numbers per sample, over a mask, with an explicit data range.

Images are `(B, *space, C)`; `mask` is `(B, *space, 1)` bool or None (everything counts). A function that is declared with
`image_metric` can be named in `config.task.measures`; it takes, by name, any of `pred`, `target`, `data_range`, `mask` and
what else the task knows of its samples (`data_low`, the lower end of the range; `volume_max`).

A number that an image does not have is NaN, and left out of means: where nothing counts, and of a target without content
(air alone) whatever divides by what the target holds. That follows from target and mask alone, so every method is averaged
over the same images.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from medjax.measures._declared import image_metric
from medjax.types import Array, UserError

WINDOW = 11
FOREGROUND = 0.05  # of the data range above its lower end: what is brighter in the target is not background
EMPTY = 1e-5  # of the data range, less than a step of 16 bits: what float32 leaves of a value after a change of units
FASTMRI_WINDOW, FASTMRI_CROP = 7, 320
Images = Float[Array, "b *space c"]
Mask = Bool[Array, "b *space 1"] | None


def _mean(values: Array, mask: Mask) -> Float[Array, " b"]:
    axes = tuple(range(1, values.ndim))
    if mask is None:
        return values.mean(axes)
    weight = jnp.broadcast_to(mask, values.shape).astype(values.dtype)
    return jnp.where(weight.any(axes), (values * weight).sum(axes) / jnp.maximum(weight.sum(axes), 1), jnp.nan)


@image_metric(label="MSE", unit="{units}²", lower_is_better=True)
def mse(pred: Images, target: Images, mask: Mask = None) -> Float[Array, " b"]:
    """Mean squared error, in squared units of the images."""
    return _mean(jnp.square(pred - target), mask)


@image_metric(label="MAE", unit="{units}", lower_is_better=True)
def mae(pred: Images, target: Images, mask: Mask = None) -> Float[Array, " b"]:
    """Mean absolute error, in units of the images."""
    return _mean(jnp.abs(pred - target), mask)


@image_metric(label="NMSE", lower_is_better=True)
def nmse(pred: Images, target: Images, data_range: float, mask: Mask = None) -> Float[Array, " b"]:
    """Squared error over the squared norm of the target (as in fastMRI, Zbontar et al., 2018); NaN where the target is 0."""
    energy = _mean(jnp.square(target), mask)
    return jnp.where(energy > (EMPTY * data_range) ** 2, mse(pred, target, mask) / energy, jnp.nan)


@image_metric(label="PSNR", unit="dB", decimals=2)
def psnr(pred: Images, target: Images, data_range: float, mask: Mask = None) -> Float[Array, " b"]:
    """Peak signal-to-noise ratio in dB; `data_range` is the width of the images' range (max - min), never their own.

    At most 200 dB; NaN for a target of one value, which any method that smooths restores with hardly an error.
    """
    found = _decibels(mse(pred, target, mask), data_range)
    counts = jnp.broadcast_to(True if mask is None else mask, target.shape)
    axes = tuple(range(1, target.ndim))
    low, high = (find(target, axis=axes, where=counts, initial=start) for find, start in ((jnp.min, jnp.inf),
                                                                                         (jnp.max, -jnp.inf)))
    return jnp.where(high - low > EMPTY * data_range, found, jnp.nan)


@image_metric(label="PSNR of the foreground", unit="dB", decimals=2)
def psnr_foreground(pred: Images, target: Images, data_range: float, data_low: float,
                    mask: Mask = None) -> Float[Array, " b"]:
    """PSNR where the target is brighter than a twentieth of the range; NaN where nothing is."""
    return _decibels(mse(pred, target, _foreground(target, data_range, data_low, mask)), data_range)


@image_metric(label="PSNR of the background", unit="dB", decimals=2)
def psnr_background(pred: Images, target: Images, data_range: float, data_low: float,
                    mask: Mask = None) -> Float[Array, " b"]:
    """PSNR where the target is no brighter than a twentieth of the range; NaN where everything is brighter."""
    counts = jnp.ones((*target.shape[:-1], 1), bool) if mask is None else mask
    return _decibels(mse(pred, target, counts & ~_foreground(target, data_range, data_low, mask)), data_range)


def _foreground(target: Images, data_range: float, data_low: float, mask: Mask) -> Bool[Array, "b *space 1"]:
    bright = (target > data_low + FOREGROUND * data_range).any(-1, keepdims=True)
    return bright if mask is None else bright & mask


def _decibels(squared: Float[Array, " b"], data_range: float) -> Float[Array, " b"]:
    return 10 * jnp.log10(data_range**2 / jnp.maximum(squared, 1e-20 * data_range**2))


@image_metric(label="SSIM", decimals=4)
def ssim(pred: Images, target: Images, data_range: float, mask: Mask = None) -> Float[Array, " b"]:
    """Structural similarity (Wang et al., 2004): Gaussian window of sigma 1.5 and 11 voxels along each spatial axis.

    Averaged over the windows that lie wholly inside the image and the mask, like scikit-image's
    `structural_similarity(gaussian_weights=True, use_sample_covariance=False)`; NaN where none does. A volume of fewer
    than 11 slices is compared slice by slice. Raises UserError where the window does not fit along two axes.
    """
    return _mean(ssim_map(pred, target, data_range), None if mask is None else whole_windows(mask))


def ssim_map(pred: Images, target: Images, data_range: float) -> Float[Array, "b *inner c"]:
    """SSIM of each window that fits in the image: every spatial axis of 11 voxels or more is 10 shorter."""
    if not ssim_fits(pred):
        size = "x".join(map(str, pred.shape[1:-1]))
        raise UserError("ssim", f"the window of {WINDOW} voxels does not fit in {size}; use larger images")
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    # Float32 moments cancel badly far from zero (HU); one shift per image is enough.
    shift = target.mean(tuple(range(1, target.ndim)), keepdims=True)
    p, t = pred - shift, target - shift
    # One pass over the five maps together: the gradient compiles and runs five times faster than of five passes.
    mp, mt, pp, tt, pt = jnp.split(_gaussian(jnp.concatenate([p, t, p * p, t * t, p * t], -1)), 5, -1)
    mean_p, mean_t = mp + shift, mt + shift
    luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
    return luminance * (2 * (pt - mp * mt) + c2) / (pp - mp * mp + tt - mt * mt + c2)


def ssim_fits(image: Images) -> bool:
    """Whether the images are large enough for SSIM."""
    return len(_window_axes(image)) >= 2


def _window_axes(x: Array) -> list[int]:
    return [axis for axis in range(1, x.ndim - 1) if x.shape[axis] >= WINDOW]


def _gaussian(x: Array) -> Array:
    """Separable Gaussian, sigma 1.5, 11 taps, over the spatial axes, where the window fits."""
    taps = np.exp(-0.5 * (np.arange(WINDOW) - WINDOW // 2) ** 2 / 1.5**2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in _window_axes(x):
        x = sum(tap * shifted for tap, shifted in zip(taps, _shifts(x, axis), strict=True))
    return x


def whole_windows(mask: Array) -> Array:
    """Where every voxel of the window counts; a sum of weights would miss its corners, lighter than float32 resolves."""
    for axis in _window_axes(mask):
        mask = functools.reduce(jnp.logical_and, _shifts(mask, axis))
    return mask


def _shifts(x: Array, axis: int, window: int = WINDOW) -> list[Array]:
    """What each tap of the window sees along `axis`."""
    size = x.shape[axis] - window + 1
    return [x[(slice(None),) * axis + (slice(k, k + size),)] for k in range(window)]


@image_metric(label="fastMRI SSIM", decimals=4)
def fastmri_ssim(pred: Images, target: Images, data_range: float,
                 volume_max: Float[Array, " b"] | None = None) -> Float[Array, " b"]:
    """SSIM of slices `(B, H, W, C)` as fastMRI's tables have it (Zbontar et al., arXiv:1811.08839, 2018).

    A uniform window of 7x7 pixels with sample covariance, over the middle 320x320 pixels (all of a smaller slice), whatever
    a mask says; the data range is `volume_max`, the largest value of the slice's volume, or `data_range` where that is not
    known. Means over the slices of volumes of one length are the published ones. Raises UserError for volumes and for
    slices that the window does not fit in.
    """
    if pred.ndim != 4 or min(pred.shape[1:3]) < FASTMRI_WINDOW:
        raise UserError("fastmri_ssim", f"compares slices of {FASTMRI_WINDOW} pixels or more, not images of "
                        f"{'x'.join(map(str, pred.shape[1:-1]))}; set config.data.ndim=2")
    peak = jnp.full(pred.shape[0], data_range) if volume_max is None else volume_max
    # Sums of squares of float32 cancel less in parts of the data range, about each slice's mean.
    t = centre_crop(target, FASTMRI_CROP) / peak[:, None, None, None]
    p = centre_crop(pred, FASTMRI_CROP) / peak[:, None, None, None]
    shift = t.mean((1, 2), keepdims=True)
    p, t = p - shift, t - shift
    mp, mt, pp, tt, pt = jnp.split(_uniform(jnp.concatenate([p, t, p * p, t * t, p * t], -1)), 5, -1)
    sample = FASTMRI_WINDOW**2 / (FASTMRI_WINDOW**2 - 1)
    luminance = (2 * (mp + shift) * (mt + shift) + 1e-4) / ((mp + shift) ** 2 + (mt + shift) ** 2 + 1e-4)
    structure = (2 * sample * (pt - mp * mt) + 9e-4) / (sample * (pp - mp * mp + tt - mt * mt) + 9e-4)
    return (luminance * structure).mean((1, 2, 3))


def centre_crop(image: Images, size: int) -> Float[Array, "b *inner c"]:
    """The middle `size` voxels of every spatial axis, or all of a shorter one, as fastMRI cuts."""
    at = [slice(max((n - size) // 2, 0), max((n - size) // 2, 0) + size) for n in image.shape[1:-1]]
    return image[(slice(None), *at)]


def _uniform(x: Array) -> Array:
    """The mean over a 7x7 window, where it fits."""
    for axis in (1, 2):
        x = functools.reduce(jnp.add, _shifts(x, axis, FASTMRI_WINDOW)) / FASTMRI_WINDOW
    return x
