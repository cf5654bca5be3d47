"""Random anatomy drawn from nothing: a chest in HU, a head in arbitrary units, 2-D or 3-D, of any size.

Everything is a function of position in mm from the centre of the body, so a 2-D phantom is a slice of a 3-D one and
the size of the array only sets how finely it is sampled. Edges are soft over one voxel.
"""

from collections.abc import Callable, Sequence

import numpy as np

Points = tuple[np.ndarray, np.ndarray, np.ndarray]  # z, y, x in mm, shapes that broadcast to the image's
Vector = Sequence[float] | np.ndarray

FIELD_MM = {"chest": 400.0, "brain": 220.0}  # what the longest in-plane side covers


def draw(kind: str, random: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, float]:
    """A phantom of `kind` "chest" (HU) or "brain" (0..1000): int16 image and bool body mask of `shape`, voxel in mm."""
    voxel = FIELD_MM[kind] / max(shape[-2:])
    canvas = Canvas(random, shape, voxel)
    image, body = _DRAW[kind](canvas, random)
    return np.round(image).astype(np.int16), body > 0.5, voxel


class Canvas:
    """Soft shapes on a grid of isotropic voxels that a smooth random field has bent."""

    def __init__(self, random: np.random.Generator, shape: tuple[int, ...], voxel: float):
        self.voxel = voxel
        self.shape = shape
        self._random = random
        axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * voxel for n in shape]
        grid: tuple[np.ndarray, ...]
        if len(shape) == 2:
            height = np.full((1, 1), random.uniform(-45, 55), np.float32)
            grid = (height, -axes[0][:, None], axes[1][None, :])  # row 0 is anterior
        else:
            grid = tuple(np.ix_(*axes))
        self.straight = tuple(np.broadcast_to(axis, shape) for axis in grid)
        bend = np.float32(0.012 * voxel * max(shape[-2:]))
        self.points = tuple(axis + bend * self.waves(4, 170.0) for axis in self.straight)

    def waves(self, count: int, period: float) -> np.ndarray:
        """A smooth random field of about unit variance: `count` plane waves of some `period` mm."""
        total = np.zeros(self.shape, np.float32)
        for _ in range(count):
            direction = self._random.normal(size=3)
            direction *= 2 * np.pi / (period * self._random.uniform(0.7, 1.4) * np.linalg.norm(direction))
            phase = sum(np.float32(d) * p for d, p in zip(direction, self.straight, strict=True))
            total += np.sin(phase + np.float32(self._random.uniform(0, 2 * np.pi)))
        return total * np.float32(np.sqrt(2 / count))

    def ellipsoid(self, centre: Vector, radii: Vector, turn: float = 0.0,
                  folds: np.ndarray | float = 0.0) -> np.ndarray:
        """How much of each voxel lies in an ellipsoid (0..1), turned by `turn` rad in the axial plane.

        `centre` and `radii` are z, y, x in mm; `folds` moves the surface outwards by that part of its radius.
        """
        z, y, x = (p - np.float32(c) for p, c in zip(self.points, centre, strict=True))
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        y, x = cos * y + sin * x, cos * x - sin * y
        rz, ry, rx = (np.float32(r) for r in radii)
        radius = np.sqrt((z / rz) ** 2 + (y / ry) ** 2 + (x / rx) ** 2) - folds
        return self.soft((1 - radius) * min(ry, rx))

    def tube(self, start: Vector, end: Vector, radius: float) -> np.ndarray:
        """How much of each voxel lies within `radius` mm of the line between two points (z, y, x in mm)."""
        begin, along = np.asarray(start, np.float32), np.subtract(end, start).astype(np.float32)
        offset = [p - s for p, s in zip(self.points, begin, strict=True)]
        where = sum(o * a for o, a in zip(offset, along, strict=True)) / np.float32(max(along @ along, 1e-6))
        where = np.clip(where, 0, 1)
        distance = np.sqrt(sum((o - where * a) ** 2 for o, a in zip(offset, along, strict=True)))
        return self.soft(np.float32(radius) - distance)

    def soft(self, depth: np.ndarray) -> np.ndarray:
        """Depth below a surface in mm as the share of a voxel (0..1)."""
        return np.clip(depth / np.float32(self.voxel) + np.float32(0.5), 0, 1)


def _paint(image: np.ndarray, share: np.ndarray, value: np.ndarray | float) -> None:
    image += share * (value - image)


def _chest(canvas: Canvas, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Fat, muscle, ribs, spine, lungs with vessels and nodules, heart, aorta, liver; mean values of CT at 120 kVp."""
    size = random.uniform(0.85, 1.0)
    depth, width = 120 * size * random.uniform(0.9, 1.1), 175 * size
    tall = 1e5
    body = canvas.ellipsoid((0, 0, 0), (tall, depth, width))
    muscle = canvas.ellipsoid((0, 0, 0), (tall, depth - random.uniform(8, 22), width - random.uniform(8, 22)))
    cage = (depth - 30, width - 32)
    image = np.full(canvas.shape, -1000, np.float32)
    _paint(image, body, -95 + 8 * canvas.waves(6, 12))
    _paint(image, muscle, 50 + 10 * canvas.waves(12, 9))
    z, y, _ = canvas.points
    ribs = canvas.ellipsoid((0, 0, 0), (tall, cage[0] + 9, cage[1] + 9)) - canvas.ellipsoid((0, 0, 0), (tall, *cage))
    slant = z + 0.35 * y + np.float32(random.uniform(0, 28))
    _paint(image, ribs * canvas.soft(5 - np.abs((slant % 28) - 14)), 420 + 150 * canvas.waves(4, 8))
    _lungs(canvas, image, random, cage)
    heart = canvas.ellipsoid((-20, 0.25 * depth, 20), (60, 48, 58), 0.5)
    _paint(image, heart, random.uniform(35, 60) + 6 * canvas.waves(6, 15))
    liver = canvas.ellipsoid((-120, 0.1 * depth, -60), (75, 75, 85), -0.3)
    _paint(image, liver * muscle, random.uniform(50, 75) + 7 * canvas.waves(10, 8))
    _paint(image, canvas.tube((-200, -0.35 * depth, 22), (200, -0.3 * depth, 18), 12), random.uniform(40, 200))
    spine = -0.58 * depth
    disc = canvas.soft(np.abs(((z + 7) % 30) - 15) - 4)
    _paint(image, canvas.ellipsoid((0, spine, 0), (tall, 17, 21)), 650 * disc + 90 * (1 - disc))
    _paint(image, canvas.ellipsoid((0, spine, 0), (tall, 14, 18)) * disc, 230 + 60 * canvas.waves(12, 4))
    _paint(image, canvas.ellipsoid((0, spine - 30, 0), (tall, 14, 16)), 500)
    _paint(image, canvas.ellipsoid((0, spine - 27, 0), (tall, 9, 11)), 30)
    return image, body


def _lungs(canvas: Canvas, image: np.ndarray, random: np.random.Generator, cage: tuple[float, float]) -> None:
    for side in (-1, 1):
        radii = np.array((150, 0.8 * cage[0], 0.42 * cage[1])) * random.uniform(0.9, 1.05)
        centre = np.array((40, 0, side * 0.52 * cage[1]))
        lung = canvas.ellipsoid(centre, radii)
        _paint(image, lung, random.uniform(-880, -800) + 25 * canvas.waves(12, 10))
        root = centre * (1, 1, 0.45) + (random.uniform(-20, 20), -10, 0)
        for _ in range(24):
            _vessel(canvas, image, lung, random, root, centre, radii)
        for _ in range(random.integers(0, 3)):
            place = centre + radii * random.uniform(-0.6, 0.6, 3)
            _paint(image, lung * canvas.ellipsoid(place, random.uniform(4, 14, 3)), random.uniform(-50, 80))


def _vessel(canvas: Canvas, image: np.ndarray, lung: np.ndarray, random: np.random.Generator, root: np.ndarray,
            centre: np.ndarray, radii: np.ndarray) -> None:
    """One branch from the root of the lung towards a random point of it, thinner and thinner."""
    direction = random.normal(size=3)
    goal = centre + radii * 0.9 * direction / np.linalg.norm(direction)
    start, radius = root, random.uniform(1.5, 6)
    for step in (0.3, 0.5, 1.0):
        end = start + step * (goal - start) + random.normal(size=3) * 8
        _paint(image, lung * canvas.tube(start, end, radius), 40.0)
        start, radius = end, radius * 0.65


def _brain(canvas: Canvas, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scalp, skull, folded cortex, white matter, ventricles, deep nuclei, lesions, as T1 weighting shows them."""
    size = random.uniform(0.9, 1.05)
    radii = size * np.array((85, 92, 74)) * random.uniform(0.95, 1.05, 3)
    level = random.uniform(0.9, 1.1, 6)
    head = canvas.ellipsoid((0, 0, 0), radii)
    image = np.zeros(canvas.shape, np.float32)
    _paint(image, head, 760 * level[0] + 60 * canvas.waves(6, 10))
    _paint(image, canvas.ellipsoid((0, 0, 0), radii - 6), 70)
    _paint(image, canvas.ellipsoid((0, 0, 0), radii - 12), 190 * level[1])
    folds = 0.035 * canvas.waves(10, 16)
    _paint(image, canvas.ellipsoid((0, 0, 0), radii - 16, 0.0, folds), 520 * level[2] + 14 * canvas.waves(12, 5))
    white = canvas.ellipsoid((0, 0, 0), radii - 24, 0.0, 2.2 * folds + 0.05 * canvas.waves(10, 14))
    _paint(image, white, 740 * level[3] + 12 * canvas.waves(12, 6))
    for side in (-1, 1):
        _paint(image, canvas.ellipsoid((5, 12, side * 20), (16, 16, 8), side * 0.4), 600 * level[4])
        _paint(image, canvas.ellipsoid((2, -8, side * 11), (13, 15, 9), side * 0.5), 570 * level[5])
        ventricle = random.uniform(0.7, 1.4)
        _paint(image, canvas.ellipsoid((14, 8, side * 9), (14, 26 * ventricle, 5 * ventricle), side * 0.25), 150)
    fissure = canvas.soft(1.2 - np.abs(canvas.points[2])) * canvas.soft(np.abs(canvas.points[1]) - 30)
    _paint(image, fissure * canvas.ellipsoid((0, 0, 0), radii - 12), 190)
    for _ in range(random.integers(0, 4)):
        place = (radii - 30) * random.uniform(-0.6, 0.6, 3)
        _paint(image, canvas.ellipsoid(place, random.uniform(2, 12, 3), random.uniform(0, 3)), random.uniform(250, 950))
    image *= 1 + 0.05 * canvas.waves(3, 250)
    return np.clip(image, 0, 1000), head


_DRAW: dict[str, Callable] = {"chest": _chest, "brain": _brain}
KINDS = tuple(_DRAW)
