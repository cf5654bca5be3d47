"""Lesions planted in images, and the regions about them."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from medjax.measures.detection import channel_outputs, cnr, dense_difference_of_gaussians, disc
from medjax.types import Record, Region, UserError

SOFT_TISSUE_HU = (-30.0, 130.0)
SMOOTH_MM = 1.5  # of what is taken for tissue: noise is not
POINT_SPREAD_MM = 0.47  # standard deviation: an MTF of 0.5 at 0.4 per mm, as a standard kernel of CT has
REGION = 5.0  # width of a region, in diameters of the lesion
LEAST_REGION = 13  # pixels
INSIDE, AROUND = 0.8, (1.2, 2.0)  # of a lesion and of its surroundings, in radii
EVEN = 0.5  # of the places with room for a lesion
TISSUE = 0.1  # of the way from the 1st to the 99th percentile: above is tissue, as in `data.statistics.foreground`


@dataclass(frozen=True)
class Lesion:
    """A disc, in volumes a ball, that differs from its surroundings by `contrast` in the image's units, `diameter_mm` wide.

    At most `per_image` lie in an image. It is as sharp as a scanner with a standard kernel would show it.
    """

    contrast: float = -40.0
    diameter_mm: float = 8.0
    per_image: int = 12

    def __post_init__(self) -> None:
        if self.contrast == 0 or self.diameter_mm <= 0 or self.per_image < 1:
            raise UserError("--contrast", f"{self.contrast}, --diameter {self.diameter_mm} mm; give a contrast other than "
                            "0, and a positive diameter")


@dataclass(frozen=True)
class Planted:
    """An image without lesions and with them, records in physical units, and where their middles are, `(N, ndim)` voxels."""

    absent: Record
    present: Record
    places: np.ndarray


def spacing_of(record: Record) -> np.ndarray:
    """The voxel sizes in mm, `(ndim,)`; 1 where they are not known, so that millimetres are voxels."""
    return np.array(record.spacing_mm or (1.0,) * record.ndim, float)[-record.ndim:]


def images_of(parts: Sequence[Region], ndim: int, limit: int = 0) -> list[Record]:
    """The images of `parts` as records in physical units, named as `eval.py` names them: volumes, or slices with `ndim=2`.

    Those with something inside their mask, or `limit` of them, evenly spread.
    """
    places: list[tuple[Region, str, Any]] = []
    for region in parts:
        whole: list[tuple[str, Any]] = [(f":from{region.start}" if region.start else "", ...)]
        if region.record.ndim > ndim:
            whole = [(f":z{region.start + z}", z) for z in range(region.stop - region.start)]
        places += [(region, name, at) for name, at in whole if region.mask is None or region.mask[at].any()]
    if limit and limit < len(places):
        places = [places[int((i + 0.5) * len(places) / limit)] for i in range(limit)]
    return [_image(*place, ndim) for place in places]


def _image(region: Region, name: str, at: Any, ndim: int) -> Record:
    record = region.record
    image = replace(record, image=region.image).in_units(at)
    return Record(image, record.id + name, record.subject, spacing_mm=record.spacing_mm[-ndim:], affine=record.affine,
                  modality=record.modality, units=record.units,
                  extras={} if region.mask is None else {"mask": region.mask[at]})


def tissue(record: Record) -> np.ndarray:
    """Where there is tissue, `(*space)` bool, told by smoothed values: soft tissue of images in HU; of others, what lies a
    tenth of the way from the 1st to the 99th percentile, or more.
    """
    inside = record.extras["mask"][..., 0] if "mask" in record.extras else np.ones(record.image.shape[:-1], bool)
    smooth = _smooth(record)
    low, high = SOFT_TISSUE_HU
    if record.units != "HU" and inside.any():
        first, last = np.percentile(smooth[inside], (1, 99))
        low, high = first + TISSUE * (last - first), np.inf
    return inside & (smooth > low) & (smooth < high)


def _smooth(record: Record) -> np.ndarray:
    return ndimage.gaussian_filter(record.in_units().mean(-1), SMOOTH_MM / spacing_of(record))


def room(record: Record, lesion: Lesion) -> np.ndarray:
    """Where the middle of a lesion may be, `(*space)` bool: a diameter or more from what is no tissue, and half a region
    from the borders of a slice.

    Where values don't say what tissue is, in the half of that where a lesion and its surroundings would be most even, and
    the lesion not darker than the 1st percentile.
    """
    spacing = spacing_of(record)
    found = ndimage.distance_transform_edt(np.pad(tissue(record), 1), spacing)[(slice(1, -1),) * record.ndim]
    half, depth = region_size(lesion, float(spacing[-2:].mean())) // 2, math.ceil(lesion.diameter_mm / 2 / spacing[0])
    inside = np.zeros(found.shape, bool)
    inside[(slice(depth, -depth),) * (record.ndim - 2) + (slice(half, -half),) * 2] = True
    places = inside & (found >= lesion.diameter_mm)
    if record.units == "HU":
        return places
    smooth = _smooth(record).astype(np.float64)
    places &= smooth + lesion.contrast >= np.percentile(smooth, 1)
    if not places.any():
        return places
    width = np.maximum(np.round(lesion.diameter_mm * AROUND[1] / spacing), 1).astype(int).tolist()
    variance = ndimage.uniform_filter(np.square(smooth), width) - np.square(ndimage.uniform_filter(smooth, width))
    return places & (variance <= np.quantile(variance[places], EVEN))


def plant(record: Record, lesion: Lesion, seed: int) -> Planted:
    """Plants lesions in an image at random places in tissue, none in the region of another.

    Which places follows from the `seed` and the record's id. The two images have ids, and so noise, of their own. Raises
    UserError for lesions less than two pixels wide.
    """
    image, spacing = record.in_units(), spacing_of(record)
    radii = lesion.diameter_mm / 2 / spacing
    if radii[-2:].min() < 1:
        raise UserError("--diameter", f"{lesion.diameter_mm} mm in {record.id}, whose pixels are {spacing[-2:].max():.2g} "
                        "mm wide; give at least two pixels")
    random = np.random.default_rng((seed, zlib.crc32(record.id.encode())))
    places: list[np.ndarray] = []
    candidates = np.argwhere(room(record, lesion))
    apart = region_size(lesion, float(spacing[-2:].mean())) // 2 + float(radii[-2:].max()) + 1
    while len(candidates) and len(places) < lesion.per_image:
        place = candidates[random.integers(len(candidates))]
        places.append(place)
        candidates = candidates[(np.abs(candidates - place) > apart * spacing[-1] / spacing).any(1)]
    added = np.zeros(image.shape[:-1])
    for middle in np.array(places, float).reshape(-1, record.ndim).tolist():
        added += lesion.contrast * disc(image.shape[:-1], middle, radii.tolist())
    added = ndimage.gaussian_filter(added, POINT_SPREAD_MM / spacing)
    plain = replace(record, image=image, slope=1.0, intercept=0.0)
    present = replace(plain, image=image + added[..., None].astype(np.float32), id=f"{record.id}:lesions")
    return Planted(plain, present, np.array(places, int).reshape(-1, record.ndim))


def region_size(lesion: Lesion, pixel_mm: float) -> int:
    """The width of the region about a lesion in pixels, odd."""
    return max(int(REGION * lesion.diameter_mm / pixel_mm), LEAST_REGION) // 2 * 2 + 1


def regions(image: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Regions `(N, size, size)` of an image `(H, W)`, or of a volume's planes, about `places`."""
    half = size // 2
    return np.array([image[(*z, slice(y - half, y + half + 1), slice(x - half, x + half + 1))]
                     for *z, y, x in places]).reshape(-1, size, size)


def contrasts(image: np.ndarray, places: np.ndarray, lesion: Lesion, spacing_mm: np.ndarray) -> np.ndarray:
    """How much an image `(*space)` at each of `places` differs from the surroundings there, `(N,)`."""
    radius = lesion.diameter_mm / 2
    half = np.ceil(AROUND[1] * radius / spacing_mm).astype(int)
    found = []
    for place in places:
        corner = np.maximum(place - half, 0)
        box = image[tuple(slice(a, b) for a, b in zip(corner, place + half + 1, strict=True))]
        inside, around = _lesion_and_surroundings(box.shape, place - corner, radius, spacing_mm)
        found.append(float(box[inside].mean()) - float(box[around].mean()))
    return np.array(found)


def contrast_to_noise(present: np.ndarray, lesion: Lesion, pixel_mm: float) -> list[float]:
    """The CNR of each lesion in the middle of `present` `(N, H, W)`; positive where a lesion looks as it was planted."""
    shape = present.shape[1:]
    inside, around = _lesion_and_surroundings(shape, [n // 2 for n in shape], lesion.diameter_mm / 2, [pixel_mm] * 2)
    sign = float(np.sign(lesion.contrast))
    return [sign * cnr(region, inside, around) for region in present]


def _lesion_and_surroundings(shape: Sequence[int], middle: Sequence[int] | np.ndarray, radius_mm: float,
                             spacing_mm: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of a lesion and those around it, masks of `shape`."""
    grid = np.indices(tuple(shape)) - np.reshape(middle, (-1, *(1,) * len(shape)))
    distance = np.sqrt(np.square(grid * np.reshape(spacing_mm, (-1, *(1,) * len(shape)))).sum(0))
    return distance <= INSIDE * radius_mm, (distance > AROUND[0] * radius_mm) & (distance <= AROUND[1] * radius_mm)


def seen(regions: np.ndarray, lesion: Lesion, pixel_mm: float) -> np.ndarray:
    """What dense difference-of-Gaussians channels see of regions `(N, size, size)`: `(N, C)`.

    Channels are fixed in mm, so that patients whose pixels differ in size go together.
    """
    # The lowest channel is to the region's width what 0.005 cycles per pixel are to 64 pixels.
    start = 0.32 * pixel_mm / (REGION * lesion.diameter_mm)
    return channel_outputs(regions, dense_difference_of_gaussians(regions.shape[1], start=start))
