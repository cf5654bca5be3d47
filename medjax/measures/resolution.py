"""Spatial resolution: the modulation transfer function of edges, wires and discs, over frequency in cycles per mm.

A profile across an edge, oversampled because the edge crosses the pixel grid at all places, is the edge spread function;
its derivative is the line spread function, whose Fourier transform is the MTF. All are 1 at frequency 0.
"""

from collections.abc import Sequence

import numpy as np

from medjax.measures.spectra import Curve, radial_average
from medjax.types import UserError

OVERSAMPLING = 4  # bins of a profile for a pixel, as in ISO 12233


def mtf_of_edge(image: np.ndarray, pixel_mm: float, oversampling: int = OVERSAMPLING) -> Curve:
    """The MTF across a straight edge that is slanted against the pixel grid (ISO 12233; Samei 1998), up to Nyquist.

    `image` `(H, W)` shows one edge, nearer to the vertical or to the horizontal, tilted by 2 to 15 degrees, with room to
    both sides. Raises UserError where there is no such edge.
    """
    image = _plane(image)
    gradient = [np.abs(np.diff(image.mean(axis))).max() for axis in (0, 1)]
    image = image if gradient[0] >= gradient[1] else image.T
    rows, columns = image.shape
    derivative = np.abs(np.diff(image, axis=1))
    y, middle = np.arange(rows), np.arange(columns - 1) + 0.5
    if not (derivative.sum(1) > 0).all():
        raise UserError("image", "has rows that no edge crosses; give an image of one edge")
    place = (derivative * middle).sum(1) / derivative.sum(1)
    for _ in range(3):  # noise far from the edge pulls the centroid to the middle: look near the line only
        slope, offset = np.polyfit(y, place, 1)
        weight = derivative * np.exp(-0.5 * np.square((middle - (slope * y + offset)[:, None]) / max(columns / 12, 2)))
        place = (weight * middle).sum(1) / weight.sum(1)
    slope, offset = np.polyfit(y, place, 1)
    if abs(slope) * rows < 1:
        raise UserError("image", "its edge lies along the pixel grid; tilt it by 2 to 15 degrees")
    distance = (np.arange(columns) - slope * y[:, None] - offset) / np.hypot(1, slope)
    reach = min(-distance[:, 0].max(), distance[:, -1].min())
    return _mtf_of_profile(distance, image, reach, pixel_mm, oversampling)


def mtf_of_disc(image: np.ndarray, centre: Sequence[float], radius_mm: float, pixel_mm: float,
                oversampling: int = OVERSAMPLING) -> Curve:
    """The transfer function across the circular edge of a disc on an even background (Richard et al. 2012), up to Nyquist.

    Of a method that is not linear it holds for the disc's contrast and the image's noise: the task transfer function (TTF).
    `image` `(H, W)` is the mean of as many images as noise asks for, `centre` the disc's (row, column) in pixels, counted
    between pixels too. The edge is measured from the middle of the disc to as far outside. Raises UserError.
    """
    image, radius = _plane(image), radius_mm / pixel_mm
    y, x = np.indices(image.shape)
    distance = np.hypot(y - centre[0], x - centre[1]) - radius
    reach = min(0.9 * radius, *(c - radius for c in centre),
                *(n - 1 - c - radius for n, c in zip(image.shape, centre, strict=True)))
    if reach < 3:
        raise UserError("image", f"a disc of {radius:.1f} pixels' radius at {tuple(centre)} leaves {reach:.1f} pixels to a "
                        "side of its edge; give 3 or more")
    return _mtf_of_profile(distance, image, reach, pixel_mm, oversampling)


def mtf_of_wire(image: np.ndarray, spacing_mm: Sequence[float]) -> Curve:
    """The MTF from the image `(H, W)` of a thin wire or small bead: the size of its 2-D Fourier transform, over directions.

    The mean of the outermost pixels is taken off as background; the wire lies inside, its whole spread in the image. Raises
    UserError for an image without one.
    """
    image = _plane(image)
    border = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    transform = np.abs(np.fft.fft2(image - border.mean()))
    if not transform[0, 0] > 0:
        raise UserError("image", "has no wire that is brighter or darker than its border")
    return radial_average(transform / transform[0, 0], spacing_mm)


def _mtf_of_profile(distance: np.ndarray, image: np.ndarray, reach: float, pixel_mm: float, oversampling: int) -> Curve:
    """The MTF of the edge at `distance` 0, in pixels, from the pixels that lie nearer than `reach`."""
    half = int(reach * oversampling)
    bin_ = np.floor(distance * oversampling).astype(int) + half
    inside = (bin_ >= 0) & (bin_ < 2 * half)
    count = np.bincount(bin_[inside], minlength=2 * half)
    if half < 4 or (count > 0).mean() < 0.5:
        raise UserError("image", "shows too little of the edge for its profile; give a larger image, or less oversampling")
    # Pixels of a bin do not lie about its middle: the profile goes through their mean distances.
    where, spread = (np.bincount(bin_[inside], array[inside], 2 * half)[count > 0] / count[count > 0]
                     for array in (distance, image))
    middle = (np.arange(-half, half) + 0.5) / oversampling
    lines = np.diff(np.interp(middle, where, spread))
    window = np.hanning(len(lines) + 2)[1:-1]
    # The root of a Hann window: it takes the noise of far pixels down and leaves the line itself nearly as it is.
    lines = lines * np.sqrt(window)
    total = lines.sum()
    if not abs(total) > 0:
        raise UserError("image", "has no edge: both sides are alike")
    padded = 8 * len(lines)
    frequency = np.fft.rfftfreq(padded, 1 / oversampling)  # cycles per pixel
    # Means over bins and differences between them are both box filters of one bin.
    box = np.square(np.sinc(frequency / oversampling))
    value = np.abs(np.fft.rfft(lines, padded)) / abs(total) / np.maximum(box, 0.1)
    kept = frequency <= 0.5 + 1e-9
    return Curve(frequency[kept] / pixel_mm, value[kept])


def _plane(image: np.ndarray) -> np.ndarray:
    if image.ndim != 2 or min(image.shape) < 8:
        raise UserError("image", f"of shape {image.shape}; give (H, W), 8 or more pixels each")
    return np.asarray(image, np.float64)
