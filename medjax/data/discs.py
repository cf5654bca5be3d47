"""Random discs with holes: the objects of the Helsinki Tomography Challenge 2022, drawn."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

FIELD_MM = 75.941  # the side of the challenge's images
RADIUS = 0.459  # of the image's side: 35 mm of 76
LARGEST_SHIFT = 0.022  # of the image's side, along each axis
MIN_DISTANCE = 3.0  # seeds of cells lie at least so many wall widths from each other
ATTEMPTS = 60


def draw(random: np.random.Generator, size: int) -> np.ndarray:
    """A disc, 1, with holes, 0, around it 0: `(size, size)` uint8.

    The holes of a disc are ellipses, polygons, smooth shapes, slots or arcs, alike in size and direction or mixed; or cells
    between thin walls; or what a smooth random field cuts out.
    """
    centre = size / 2 + random.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2) * size
    radius = RADIUS * size * random.uniform(0.995, 1.005)
    rows, columns = np.ogrid[:size, :size]
    from_centre = np.hypot(rows + 0.5 - centre[1], columns + 0.5 - centre[0]).astype(np.float32)
    inside = from_centre < radius * random.uniform(0.8, 0.94)
    kind = random.choice(3, p=(0.62, 0.28, 0.1))
    holes = (_shapes, _cells, _field)[kind](random, size, centre, radius) & inside
    holes = ndimage.gaussian_filter(holes.astype(np.float32), size / 512 * random.uniform(1.0, 7.0)) > 0.5
    return ((from_centre < radius) & ~holes).astype(np.uint8)


def _shapes(random: np.random.Generator, size: int, centre: np.ndarray, radius: float) -> np.ndarray:
    """Outlines at random places that keep a distance from each other."""
    holes = np.zeros((size, size), bool)
    mixed = random.random() < 0.25
    outline = _OUTLINES[random.integers(len(_OUTLINES))]
    count = int(np.exp(random.uniform(np.log(2.5), np.log(24))))
    usual = radius * min(random.uniform(0.07, 0.3), 0.75 / np.sqrt(count))
    gap = size / 512 * random.uniform(5, 16)
    spread, direction, turned = random.uniform(0, 0.35), random.uniform(0, 2 * np.pi), random.choice((0.15, 3.2))
    stretch = random.uniform(0.45, 1.0)
    for _ in range(ATTEMPTS):
        extent = usual * np.exp(random.uniform(-spread, spread))
        far = (radius - extent - gap) * np.sqrt(random.random())
        around = random.uniform(0, 2 * np.pi)
        place = centre + far * np.array((np.cos(around), np.sin(around)))
        chosen = _OUTLINES[random.integers(len(_OUTLINES))] if mixed else outline
        points = chosen(random, stretch) * extent
        angle = direction + random.uniform(-turned, turned)
        points = points @ np.array(((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))))
        if not (holes & _filled(points * (1 + gap / extent) + place, size)).any():
            holes |= _filled(points + place, size)
            count -= 1
        if count <= 0:
            break
    return holes


def _filled(points: np.ndarray, size: int) -> np.ndarray:
    picture = Image.new("L", (size, size))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in points - 0.5], fill=1)
    return np.asarray(picture) > 0


def _ellipse(random: np.random.Generator, stretch: float) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([np.cos(turn), stretch * np.sin(turn)], -1)


def _circle(random: np.random.Generator, stretch: float) -> np.ndarray:
    return _ellipse(random, 1.0)


def _polygon(random: np.random.Generator, stretch: float) -> np.ndarray:
    """Three to seven corners, irregular."""
    corners = random.integers(3, 8)
    turn = (np.arange(corners) + random.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    return random.uniform(0.75, 1.1, (corners, 1)) * np.stack([np.cos(turn), stretch * np.sin(turn)], -1)


def _quadrilateral(random: np.random.Generator, stretch: float) -> np.ndarray:
    corners = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * (1.0, 0.8 * stretch)
    return corners + random.uniform(-0.25, 0.25, (4, 2))


def _smooth(random: np.random.Generator, stretch: float) -> np.ndarray:
    """A circle whose radius varies by a few low harmonics; with large ones it is a star, or has bays."""
    turn, order = np.linspace(0, 2 * np.pi, 72, endpoint=False), np.arange(2, 7)
    weight, phase = random.normal(size=5) * random.uniform(0.1, 0.5) / order, random.uniform(0, 2 * np.pi, 5)
    far = np.clip(1 + (weight * np.cos(order * turn[:, None] + phase)).sum(-1), 0.25, 1.6)
    return far[:, None] * np.stack([np.cos(turn), max(stretch, 0.6) * np.sin(turn)], -1)


def _slot(random: np.random.Generator, stretch: float) -> np.ndarray:
    width = random.uniform(0.15, 0.4)
    return np.array(((-1.5, -width), (1.5, -width), (1.5, width), (-1.5, width)))


def _arc(random: np.random.Generator, stretch: float) -> np.ndarray:
    """A part of a ring."""
    turn = np.linspace(-0.5, 0.5, 24) * random.uniform(1.5, 5.0)
    inner = random.uniform(0.45, 0.8)
    ring = np.stack([np.cos(turn), np.sin(turn)], -1)
    return np.concatenate([1.3 * ring, 1.3 * inner * ring[::-1]])


_OUTLINES: tuple[Callable[[np.random.Generator, float], np.ndarray], ...] = (
    _circle, _ellipse, _polygon, _quadrilateral, _quadrilateral, _smooth, _smooth, _slot, _arc)


def _cells(random: np.random.Generator, size: int, centre: np.ndarray, radius: float) -> np.ndarray:
    """What is nearer to a seed than to any other (Voronoi), with walls between; some cells stay full."""
    wall = size / 512 * random.uniform(6, 26)
    seeds: list[np.ndarray] = []
    apart = max(MIN_DISTANCE * wall, radius * random.uniform(0.2, 0.55))
    for _ in range(4 * ATTEMPTS):
        place = centre + radius * random.uniform(-1, 1, 2)
        if np.hypot(*(place - centre)) < radius and all(np.hypot(*(place - other)) > apart for other in seeds):
            seeds.append(place)
    step = 2  # the distances are computed on every other pixel
    at = np.arange(0, size, step, dtype=np.float32) + step / 2
    points = np.array([*seeds, centre + 3 * radius], np.float32)  # the last stands far off, for a disc of one cell
    squared = (at[None, :, None] - points[:, 1, None, None]) ** 2 + (at[None, None, :] - points[:, 0, None, None]) ** 2
    full = random.random(len(points)) < random.choice((0.0, 0.0, 0.3, 0.5))
    first = squared.argmin(0)
    nearest = np.take_along_axis(squared, first[None], 0)[0]
    to_wall = np.full(nearest.shape, np.inf, np.float32)
    for number, point in enumerate(points):
        between = np.hypot(*(points[first] - point).transpose(2, 0, 1))
        distance = (squared[number] - nearest) / np.maximum(2 * between, 1e-3)
        to_wall = np.where(first == number, to_wall, np.minimum(to_wall, distance))
    share = ndimage.zoom(np.clip(to_wall - wall / 2, -4, 4) * np.where(full[first], 0, 1), step, order=1, grid_mode=True,
                         mode="nearest")
    return share[:size, :size] > 0


def _field(random: np.random.Generator, size: int, centre: np.ndarray, radius: float) -> np.ndarray:
    """Where a smooth random field is high."""
    step = 4
    field = ndimage.gaussian_filter(random.normal(size=(size // step,) * 2), random.uniform(4, 10) * size / 512)
    field = ndimage.zoom(field, step, order=1, grid_mode=True, mode="nearest")
    return field > np.quantile(field, random.uniform(0.5, 0.85))
