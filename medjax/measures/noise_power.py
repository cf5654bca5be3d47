"""Noise power spectra: how an image's noise is divided over spatial frequencies (ICRU report 54, 1996)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medjax.measures.spectra import Curve, radial_average
from medjax.types import UserError


@dataclass(frozen=True)
class NoisePower:
    """`power` `(H, W)` in squared units of the images times mm², as `numpy.fft.fft2` orders it; pixels of `spacing_mm`."""

    power: np.ndarray
    spacing_mm: tuple[float, float]

    @property
    def variance(self) -> float:
        """The integral over all frequencies: the variance of the noise."""
        return float(self.power.sum() / np.prod([n * d for n, d in zip(self.power.shape, self.spacing_mm, strict=True)]))

    @property
    def radial(self) -> Curve:
        """The average over directions."""
        return radial_average(self.power, self.spacing_mm)


def noise_power(rois: np.ndarray, spacing_mm: Sequence[float], degree: int | None = None) -> NoisePower:
    """The noise power spectrum of regions of interest `(N, H, W)`, the mean over all of them.

    `rois` hold noise alone (see `noise_of`); with `degree` a polynomial of that degree in the coordinates is fitted to each
    region and taken off first: 0 takes off its mean, 2 slow trends, at the cost of the lowest frequencies. Raises UserError.
    """
    if rois.ndim != 3 or min(rois.shape) < 1 or len(spacing_mm) != 2:
        raise UserError("rois", f"of shape {rois.shape} with {len(spacing_mm)} voxel sizes; give (N, H, W) and two")
    noise = np.asarray(rois, np.float64) if degree is None else detrended(rois, degree)
    _, height, width = noise.shape
    area = float(np.prod(spacing_mm))
    power = np.square(np.abs(np.fft.fft2(noise))).mean(0) * area / (height * width)
    return NoisePower(power, (float(spacing_mm[0]), float(spacing_mm[1])))


def noise_of(images: np.ndarray) -> np.ndarray:
    """The noise of `(N, ...)` images that differ in their noise alone: their differences from the mean.

    Scaled by `sqrt(N / (N - 1))`, for the mean has a share of every image's noise. Raises UserError for fewer than two.
    """
    if len(images) < 2:
        raise UserError("images", f"{len(images)}; noise is what differs between images, give two or more")
    images = np.asarray(images, np.float64)
    return (images - images.mean(0)) * np.sqrt(len(images) / (len(images) - 1))


def detrended(rois: np.ndarray, degree: int) -> np.ndarray:
    """Regions `(N, H, W)` without the polynomial of that `degree` in both coordinates that fits each best."""
    _, height, width = rois.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([(y**i * x**j).ravel() for i in range(degree + 1) for j in range(degree + 1 - i)], 1)
    basis, _ = np.linalg.qr(terms)
    flat = np.asarray(rois, np.float64).reshape(len(rois), -1)
    return (flat - flat @ basis @ basis.T).reshape(rois.shape)
