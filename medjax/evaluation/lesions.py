"""Lesions planted in soft tissue of CT images, and the regions about them."""

import zlib
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from medjax.measures.detection import channel_outputs, cnr, dense_difference_of_gaussians, disc
from medjax.types import Record, UserError

SOFT_TISSUE_HU = (-30.0, 130.0)
SMOOTH_MM = 1.5  # of what is taken for soft tissue: noise is not
POINT_SPREAD_MM = 0.47  # standard deviation: an MTF of 0.5 at 0.4 per mm, as a standard kernel of CT has
REGION = 5.0  # width of a region, in diameters of the lesion
LEAST_REGION = 13  # pixels


@dataclass(frozen=True)
class Lesion:
    """A disc that differs from its surroundings by `contrast_hu`, `diameter_mm` wide; at most `per_image` in an image.

    It is as sharp as a scanner with a standard kernel would show it.
    """

    contrast_hu: float = -40.0
    diameter_mm: float = 8.0
    per_image: int = 12

    def __post_init__(self) -> None:
        if self.contrast_hu == 0 or self.diameter_mm <= 0 or self.per_image < 1:
            raise UserError("--contrast", f"{self.contrast_hu} HU, --diameter {self.diameter_mm} mm; give a contrast other "
                            "than 0, and a positive diameter")


@dataclass(frozen=True)
class Planted:
    """An image without lesions and with them, `(H, W, C)` HU records, and where their middles are, `(N, 2)` pixels."""

    absent: Record
    present: Record
    places: np.ndarray


def plant(record: Record, lesion: Lesion, seed: int) -> Planted:
    """Plants lesions in a 2-D image at random places in even soft tissue, none in the region of another.

    Which places follows from the `seed` and the record's id. The two images have ids, and so noise, of their own.
    """
    image, pixel = record.in_units(), float(np.mean(record.spacing_mm))
    radius, size = lesion.diameter_mm / 2 / pixel, region_size(lesion, pixel)
    if radius < 1:
        raise UserError("--diameter", f"{lesion.diameter_mm} mm in {record.id}, whose pixels are {pixel:.2g} mm wide; give "
                        "at least two pixels")
    smooth = ndimage.gaussian_filter(image[..., 0], SMOOTH_MM / pixel)
    tissue = (smooth > SOFT_TISSUE_HU[0]) & (smooth < SOFT_TISSUE_HU[1])
    if "mask" in record.extras:
        tissue &= record.extras["mask"][..., 0]
    room = ndimage.distance_transform_edt(np.pad(tissue, 1))[1:-1, 1:-1] >= 2 * radius
    half = size // 2
    room[:half], room[-half:], room[:, :half], room[:, -half:] = False, False, False, False
    random = np.random.default_rng((seed, zlib.crc32(record.id.encode())))
    places: list[np.ndarray] = []
    candidates = np.argwhere(room)
    while len(candidates) and len(places) < lesion.per_image:
        place = candidates[random.integers(len(candidates))]
        places.append(place)
        candidates = candidates[np.abs(candidates - place).max(1) > half + radius + 1]
    added = np.zeros(image.shape[:2])
    for row, column in np.array(places, float).reshape(-1, 2).tolist():
        added += lesion.contrast_hu * disc(image.shape[:2], (row, column), radius)
    added = ndimage.gaussian_filter(added, POINT_SPREAD_MM / pixel)
    plain = replace(record, image=image, slope=1.0, intercept=0.0)
    present = replace(plain, image=image + added[..., None].astype(np.float32), id=f"{record.id}:lesions")
    return Planted(plain, present, np.array(places, int).reshape(-1, 2))


def region_size(lesion: Lesion, pixel_mm: float) -> int:
    """The width of the region about a lesion in pixels, odd."""
    return max(int(REGION * lesion.diameter_mm / pixel_mm), LEAST_REGION) // 2 * 2 + 1


def regions(image: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Regions `(N, size, size)` of an image `(H, W)` about `places`."""
    half = size // 2
    return np.array([image[y - half:y + half + 1, x - half:x + half + 1] for y, x in places]).reshape(-1, size, size)


def contrast_to_noise(present: np.ndarray, lesion: Lesion, pixel_mm: float) -> list[float]:
    """The CNR of each lesion in the middle of `present` `(N, H, W)`; positive where a lesion looks as it was planted."""
    radius = lesion.diameter_mm / 2 / pixel_mm
    y, x = np.indices(present.shape[1:]) - present.shape[1] // 2
    distance = np.hypot(y, x)
    inside, around = distance <= 0.8 * radius, (distance > 1.2 * radius) & (distance <= 2 * radius)
    sign = float(np.sign(lesion.contrast_hu))
    return [sign * cnr(region, inside, around) for region in present]


def seen(regions: np.ndarray, lesion: Lesion, pixel_mm: float) -> np.ndarray:
    """What dense difference-of-Gaussians channels see of regions `(N, size, size)`: `(N, C)`.

    Channels are fixed in mm, so that patients whose pixels differ in size go together.
    """
    # The lowest channel is to the region's width what 0.005 cycles per pixel are to 64 pixels.
    start = 0.32 * pixel_mm / (REGION * lesion.diameter_mm)
    return channel_outputs(regions, dense_difference_of_gaussians(regions.shape[1], start=start))
