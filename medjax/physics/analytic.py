"""Test objects made of ellipsoids, as images and as exact line integrals: oracles of operators, data without patients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ellipsoids:
    """Ellipses or ellipsoids that add up: centres and half-axes `(m, n)` in mm along x, y (and z), turned by `angle`
    radians in the x-y plane, with the attenuation per mm `value` each adds."""

    centre: np.ndarray
    half_axes: np.ndarray
    angle: np.ndarray
    value: np.ndarray

    def image(self, shape: tuple[int, ...], spacing: tuple[float, ...], oversample: int = 4) -> np.ndarray:
        """The object on a grid `(*shape, 1)`, axes (z,) y downwards, x; every pixel the mean of `oversample` per axis."""
        fine = [(np.arange(n * oversample) + 0.5) / oversample - n / 2 for n in shape]
        world = [f * d * (-1 if axis == len(shape) - 2 else 1)
                 for axis, (f, d) in enumerate(zip(fine, spacing, strict=True))]
        points = np.meshgrid(*world, indexing="ij", sparse=True)[::-1]
        total = np.zeros([len(f) for f in fine])
        for centre, half_axes, angle, value in self._each():
            local = _turn([p - c for p, c in zip(points, centre, strict=True)], angle)
            total += value * (sum((p / a) ** 2 for p, a in zip(local, half_axes, strict=True)) <= 1)
        blocks = total.reshape(*(v for n in shape for v in (n, oversample)))
        return blocks.mean(tuple(range(1, 2 * len(shape), 2))).astype(np.float32)[..., None]

    def line_integrals(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """The exact integral along rays through `points` `(n, …)` in `directions`, in mm along x, y (and z)."""
        points, directions = np.broadcast_arrays(points, directions)
        directions = directions / np.linalg.norm(directions, axis=0)
        total = np.zeros(points.shape[1:])
        for centre, half_axes, angle, value in self._each():
            p, e = (np.stack(_turn(list(v), angle)) / half_axes.reshape(-1, *([1] * (v.ndim - 1)))
                    for v in (points - centre.reshape(-1, *([1] * (points.ndim - 1))), directions))
            a, b, c = (e * e).sum(0), (p * e).sum(0), (p * p).sum(0) - 1
            total += value * 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a
        return total

    def _each(self) -> Iterator[tuple[np.ndarray, np.ndarray, float, float]]:
        return zip(self.centre, self.half_axes, self.angle, self.value, strict=True)


def shepp_logan(radius: float, peak: float = 1.0, ndim: int = 2) -> Ellipsoids:
    """The Shepp-Logan head with the contrast of Toft (1996), in the square or cube of half-width `radius` mm."""
    table = np.asarray(_SHEPP_LOGAN)
    keep = [0, 1] if ndim == 2 else [0, 1, 2]
    return Ellipsoids(table[:, 4:7][:, keep] * radius, table[:, 1:4][:, keep] * radius, np.deg2rad(table[:, 7]),
                      table[:, 0] * peak)


def _turn(point: Sequence[np.ndarray], angle: float) -> list[np.ndarray]:
    x, y, *z = point
    return [x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle), *z]


# value, half-axes x y z, centre x y z, angle in degrees
_SHEPP_LOGAN = (
    (1.0, 0.69, 0.92, 0.81, 0, 0, 0, 0),
    (-0.8, 0.6624, 0.874, 0.78, 0, -0.0184, 0, 0),
    (-0.2, 0.11, 0.31, 0.22, 0.22, 0, 0, -18),
    (-0.2, 0.16, 0.41, 0.28, -0.22, 0, 0, 18),
    (0.1, 0.21, 0.25, 0.41, 0, 0.35, -0.15, 0),
    (0.1, 0.046, 0.046, 0.05, 0, 0.1, 0.25, 0),
    (0.1, 0.046, 0.046, 0.05, 0, -0.1, 0.25, 0),
    (0.1, 0.046, 0.023, 0.05, -0.08, -0.605, 0, 0),
    (0.1, 0.023, 0.023, 0.02, 0, -0.606, 0, 0),
    (0.1, 0.023, 0.046, 0.02, 0.06, -0.605, 0, 0),
)
