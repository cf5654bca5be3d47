"""Templates that a head is found by: the brain of ICBM152, and the same brain in a drawn head.

They lie in the space of ICBM152: RAS mm, the middle of the brain near the origin.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from medjax.data.sources import icbm152

BRAIN_MM = 2  # the steps of the brain's template
BRAIN_RIM_MM = 12.0  # around the brain, that of a scan without skull is compared
HEAD_MM = 4  # the steps of the head's template,
CORNER_MM, SHAPE = (-100.0, -140.0, -148.0), (51, 68, 65)  # and its grid
AIR_RIM_MM = 25.0  # of air around the head, that is compared,
LOWEST_MM = -60.0  # down to this height: jaws and necks differ
CLOSED_MM = 30.0  # fissures of the brain that a skull bridges
FLUID_MM, BONE_MM, SKIN_MM = 3.0, 12.0, 21.0  # how far from the brain they end
FAT_MM = 8.0  # below the skin of face and neck
AIR, BONE, FLUID, MUSCLE, FAT = 0.0, 0.12, 0.3, 0.45, 0.85  # of the brightest, as in T1
NECK_MM, NECK_TOP_MM = ((0, -22), (74, 72)), -40  # an upright cylinder below a height: middle and radii in x and y
SHAPES = (  # ellipsoids: the middle, for x on both sides, and the radii
    ((0, 30, -70), (68, 64, 76)),  # face
    ((0, 50, -30), (62, 46, 50)),  # brow and cheeks
    ((0, 92, -65), (14, 24, 24)))  # nose
PARTS = (  # the same, and what they consist of; later ones lie upon earlier ones
    ((33, 60, -38), (22, 30, 20), FAT),  # orbit
    ((33, 66, -38), (14, 14, 14), BONE),  # eye
    ((0, 58, -52), (14, 30, 24), FLUID),  # cavity of the nose
    ((30, 58, -65), (14, 18, 18), AIR),  # maxillary sinus
    ((0, 20, -36), (14, 14, 12), AIR),  # sphenoid sinus
    ((0, 78, 0), (22, 6, 14), AIR),  # frontal sinus
    ((0, 16, -85), (10, 10, 40), AIR),  # pharynx
    ((48, -28, -45), (22, 18, 14), BONE))  # mastoid


class Template(NamedTuple):
    """Values `(X, Y, Z)` along RAS axes in the space of ICBM152, and where they count."""

    values: np.ndarray
    inside: np.ndarray
    corner_mm: np.ndarray
    step_mm: float


def templates() -> tuple[Template, Template]:
    """A drawn head, and the brain alone, for scans without skull. Raises UserError without nilearn."""
    head = drawn_head()
    near = ndimage.distance_transform_edt(head == AIR) * HEAD_MM <= AIR_RIM_MM
    near[:, :, :round((LOWEST_MM - CORNER_MM[2]) / HEAD_MM) + 1] = False
    values, distance, corner = brain()
    return (Template(ndimage.gaussian_filter(head, 0.6), near, np.array(CORNER_MM), float(HEAD_MM)),
            Template(values, distance <= BRAIN_RIM_MM, corner, float(BRAIN_MM)))


@cache
def brain() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The brain `(X, Y, Z)` from 0 to 1, how far each voxel is from it in mm, and where the first voxel is."""
    image, affine = icbm152.volume(icbm152.FILE)
    values = np.ascontiguousarray(image[::BRAIN_MM, ::BRAIN_MM, ::BRAIN_MM].T / np.float32(image.max()))
    distance = ndimage.distance_transform_edt(~ndimage.binary_fill_holes(values > 0)) * BRAIN_MM
    return values, distance.astype(np.float32), affine[:3, 3]


def drawn_head(step_mm: float = HEAD_MM) -> np.ndarray:
    """The brain in skull, skin, face and neck, all drawn: `(X, Y, Z)` along RAS axes from `CORNER_MM`, from 0 to 1."""
    shape = tuple(int((size - 1) * HEAD_MM / step_mm) + 1 for size in SHAPE)
    places = [low + step_mm * np.arange(size) for low, size in zip(CORNER_MM, shape, strict=True)]
    x, y, z = np.meshgrid(*places, indexing="ij", sparse=True)

    def ellipsoid(middle: tuple[int, int, int], radii: tuple[int, int, int]) -> np.ndarray:
        offsets = (np.abs(x) - middle[0], y - middle[1], z - middle[2])
        squares = [(offset / radius) ** 2 for offset, radius in zip(offsets, radii, strict=True)]
        return squares[0] + squares[1] + squares[2] < 1

    values, distance, corner = brain()
    pad = round((CLOSED_MM + SKIN_MM) / BRAIN_MM)
    wide = np.pad(distance == 0, pad)
    dilated = ndimage.distance_transform_edt(~wide) * BRAIN_MM < CLOSED_MM
    closed = ndimage.distance_transform_edt(dilated) * BRAIN_MM > CLOSED_MM
    around = ndimage.distance_transform_edt(~(closed | wide)) * BRAIN_MM
    at = np.stack(np.broadcast_arrays(*((axis - low) / BRAIN_MM for axis, low in zip((x, y, z), corner, strict=True))))
    far = ndimage.map_coordinates(around.astype(np.float32), at + pad, order=1, mode="nearest")
    blurred = ndimage.map_coordinates(ndimage.gaussian_filter(values, 1.0), at, order=1, mode="constant")
    solid = (far < SKIN_MM) | np.logical_or.reduce([ellipsoid(*part) for part in SHAPES])
    (middle, radii) = NECK_MM
    solid = solid | (((x - middle[0]) / radii[0]) ** 2 + ((y - middle[1]) / radii[1]) ** 2 < 1) & (z < NECK_TOP_MM)
    head = np.where(solid, np.float32(MUSCLE), np.float32(AIR))
    head[solid & (ndimage.distance_transform_edt(solid) * step_mm < FAT_MM)] = FAT
    head[far < BONE_MM] = BONE
    for *part, value in PARTS:
        head[ellipsoid(*part) & (far > FLUID_MM) & solid] = value
    head[far < FLUID_MM] = FLUID
    return np.where(far < FLUID_MM, np.maximum(head, blurred), head)
