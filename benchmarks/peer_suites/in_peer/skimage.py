"""scikit-image: SSIM, PSNR, errors, Hausdorff distance, Radon transform and its inverse, total variation."""

from typing import Any

import numpy as np
import skimage
import skimage.metrics
import skimage.restoration
import skimage.transform
from in_peer import link
from in_peer.link import LackingError, call, last_bits, only
from skimage._shared.utils import _supported_float_type
from skimage.util.dtype import dtype_range

FASTMRI = 320  # the pixels of a side that medjax's SSIM with a uniform window sees


def replace() -> None:
    metrics, transform = skimage.metrics, skimage.transform
    for number in (structural_similarity, peak_signal_noise_ratio, mean_squared_error, normalized_root_mse):
        link.replace(metrics, number.__name__, to_the_last_bit(number, getattr(metrics, number.__name__)))
    link.replace(metrics, "hausdorff_distance", hausdorff_distance)
    link.replace(transform, "radon", radon)
    link.replace(transform, "iradon", iradon)
    link.replace(skimage.restoration, "denoise_tv_chambolle", denoise_tv)


def to_the_last_bit(ours: Any, theirs: Any) -> Any:
    """medjax's number, or scikit-image's, where the two agree to twelve digits (see `last_bits`)."""
    def number(*args: Any, **kwargs: Any) -> np.float64:
        return last_bits(ours(*args, **kwargs), lambda: theirs(*args, **kwargs),
                         lambda found, own: np.isclose(found, own, rtol=1e-12, atol=0))

    return number


def as_batch(image: Any, channel_axis: int | None = None) -> np.ndarray:
    """`(1, *space, C)` of an image without a batch."""
    image = np.asarray(image)
    return (image[..., None] if channel_axis is None else np.moveaxis(image, channel_axis, -1))[None]


def width(image: Any, data_range: float | None) -> float:
    """The range that is given, or that of an integer's type, which scikit-image takes."""
    if data_range is not None:
        return float(data_range)
    if np.asarray(image).dtype.kind not in "iu":
        raise LackingError("data_range=None")
    low, high = dtype_range[image.dtype.type]
    return float(high - low)


def structural_similarity(im1: Any, im2: Any, *, win_size: int | None = None, gradient: bool = False,
                          data_range: float | None = None, channel_axis: int | None = None,
                          gaussian_weights: bool = False, full: bool = False, **kwargs: Any) -> np.float64:
    only(gradient=(gradient, False), full=(full, False))
    own = {"use_sample_covariance": not gaussian_weights, "sigma": 1.5, "K1": 0.01, "K2": 0.03}
    only(**{name: (value, own[name]) for name, value in kwargs.items()})
    only(win_size=(win_size, None if gaussian_weights else 7 if win_size else None))
    if np.asarray(im1).dtype != np.asarray(im2).dtype and data_range is None:
        raise LackingError("data_range=None")
    images = as_batch(im1, channel_axis), as_batch(im2, channel_axis)
    if gaussian_weights:
        return np.float64(call("ssim", *images, width(im1, data_range))[0])
    if images[0].ndim != 4 or max(images[0].shape[1:3]) > FASTMRI:
        raise LackingError(f"a uniform window outside slices of {FASTMRI} pixels")
    return np.float64(call("fastmri_ssim", *images, width(im1, data_range))[0])


def peak_signal_noise_ratio(image_true: Any, image_test: Any, *, data_range: float | None = None) -> np.float64:
    return np.float64(call("psnr", as_batch(image_test), as_batch(image_true), width(image_true, data_range))[0])


def mean_squared_error(image0: Any, image1: Any) -> np.float64:
    return np.float64(call("mse", as_batch(image0), as_batch(image1))[0])


def normalized_root_mse(image_true: Any, image_test: Any, *, normalization: str = "euclidean") -> np.float64:
    only(normalization=(normalization.lower(), "euclidean"))
    high = max(float(np.abs(image_true).max()), 1.0)
    return np.sqrt(np.float64(call("nmse", as_batch(image_test), as_batch(image_true), high)[0]))


def hausdorff_distance(image0: Any, image1: Any, method: str = "standard") -> float:
    only(method=(method, "standard"))
    if np.shape(image0) != np.shape(image1) or not np.size(image0):
        raise LackingError("regions on two grids, or on none")
    regions = [np.asarray(image, bool)[None, ..., None] for image in (image0, image1)]
    return float(call("hausdorff", call("distances", *regions, np.ones((1, np.ndim(image0)))), 100.0)[0, 0])


def radon(image: Any, theta: Any = None, circle: bool = True, *, preserve_range: bool = False) -> np.ndarray:
    """scikit-image's axis is pixel `n // 2`: an even image gets a row and a column of zeros, so that this is its middle."""
    image = skimage.transform.radon_transform.convert_to_float(np.asarray(image).copy(), preserve_range)
    theta = np.arange(180) if theta is None else np.asarray(theta)
    if circle:
        side = min(image.shape)
        rows, columns = (slice((n - side + 1) // 2, (n - side + 1) // 2 + side) for n in image.shape)
        if _outside(image):
            raise LackingError("an image that does not lie in the circle")
        image = image[rows, columns]
    size = image.shape[0] if circle else int(np.ceil(np.sqrt(2) * max(image.shape)))
    wide = size + (size + 1) % 2  # the axis is its middle pixel, and that of the detector its middle element
    placed = np.zeros((wide, wide), image.dtype)
    start = [size // 2 - n // 2 for n in image.shape]
    placed[start[0]:start[0] + image.shape[0], start[1]:start[1] + image.shape[1]] = image
    sinogram = call("parallel", as_batch(placed), tuple(np.deg2rad(theta)), wide)
    return sinogram[0, :, :size, 0].T.astype(image.dtype)


def _outside(image: np.ndarray) -> bool:
    """Whether something lies outside the circle in the image."""
    away = np.hypot(*(np.indices(image.shape) - np.array(image.shape)[:, None, None] // 2))
    return bool(np.any(image[away > min(image.shape) // 2]))


def iradon(radon_image: Any, theta: Any = None, output_size: int | None = None, filter_name: str | None = "ramp",
           interpolation: str = "linear", circle: bool = True, preserve_range: bool = True) -> np.ndarray:
    only(interpolation=(interpolation, "linear"))
    if filter_name not in ("ramp", "shepp-logan", "cosine", "hann"):
        raise LackingError(f"filter_name={filter_name!r}")
    sinogram = skimage.transform.radon_transform.convert_to_float(np.asarray(radon_image), preserve_range)
    theta = np.linspace(0, 180, sinogram.shape[1], endpoint=False) if theta is None else np.asarray(theta)
    if len(theta) != sinogram.shape[1]:
        raise LackingError("angles for another number of views")
    detectors = sinogram.shape[0]
    size = output_size or (detectors if circle else int(np.floor(np.sqrt(detectors**2 / 2.0))))
    wide, views = size + (size + 1) % 2, np.pad(sinogram, ((0, (detectors + 1) % 2), (0, 0)))
    image = call("filtered_back_projection", as_batch(views.T), tuple(np.deg2rad(theta)), wide, filter_name)
    image = image[0, :size, :size, 0]
    # scikit-image gives each of n views the angle pi / n; medjax half the way to both neighbours.
    if circle:
        away = np.hypot(*(np.indices(image.shape) - size // 2))
        image = np.where(away > size // 2, 0, image)
    return image.astype(sinogram.dtype)


def denoise_tv(image: Any, weight: float = 0.1, eps: float = 2.0e-4, max_num_iter: int = 200, *,
               channel_axis: int | None = None) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype.kind != "f":
        image = skimage.util.img_as_float(image)
    found = call("total_variation", as_batch(image, channel_axis), float(weight))[0]
    found = found[..., 0] if channel_axis is None else np.moveaxis(found, -1, channel_axis)
    return found.astype(_supported_float_type(image.dtype))


