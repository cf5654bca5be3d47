"""Denoisers that need no training, from scikit-image, on one image `(*space, C)` in unit range, 2-D or 3-D."""

import numpy as np
from jaxtyping import Float
from skimage import restoration

Image = Float[np.ndarray, "*space c"]


def nlm(image: Image, sigma: float | None = None) -> Image:
    """Non-local means (Buades 2005; Darbon 2008), filter strength 0.8 of the noise, as scikit-image advises."""
    sigma = noise_level(image) if sigma is None else sigma
    patch = {"patch_size": 5, "patch_distance": 6} if image.ndim == 3 else {"patch_size": 3, "patch_distance": 3}
    return _per_channel(image, lambda x: restoration.denoise_nl_means(x, sigma=sigma, h=0.8 * sigma, fast_mode=True,
                                                                      preserve_range=True, **patch))


def tv(image: Image, sigma: float | None = None) -> Image:
    """Total variation (Rudin 1992; Chambolle 2004), its weight the noise level."""
    weight = noise_level(image) if sigma is None else sigma
    if weight == 0:
        return image
    return _per_channel(image, lambda x: restoration.denoise_tv_chambolle(x, weight=weight))


def wavelet(image: Image, sigma: float | None = None) -> Image:
    """Soft wavelet thresholding with BayesShrink (Chang 2000), averaged over shifts (Coifman 1995)."""
    sigma = noise_level(image) if sigma is None else sigma
    if sigma == 0:
        return image

    def shrink(x):
        return restoration.cycle_spin(x, func=restoration.denoise_wavelet, max_shifts=2, workers=1,
                                      func_kw={"sigma": sigma, "wavelet": "db2", "rescale_sigma": False})

    return _per_channel(image, shrink)


def noise_level(image: Image) -> float:
    """The noise's standard deviation, from the median of the finest wavelet coefficients (Donoho 1994)."""
    return float(restoration.estimate_sigma(image, average_sigmas=True, channel_axis=-1))


def _per_channel(image, denoise):
    """Applies a one-channel function to each channel, in float64 inside and the image's dtype outside."""
    planes = [denoise(np.asarray(image[..., c], np.float64)) for c in range(image.shape[-1])]
    return np.stack(planes, axis=-1).astype(image.dtype)
