"""Rigid alignment of two scans of one patient, in mm, by mutual information: contrast and grid may differ."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Float, Real
from scipy import ndimage
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from medjax.types import Array, UserError, pytree

Volume = Real[np.ndarray, "_ _ _"]  # the two scans of a call differ in size
Affine = Float[np.ndarray, "4 4"]
Scan = tuple[np.ndarray, np.ndarray]  # a volume and its affine

LEVELS = {8.0: 5_000, 4.0: 20_000, 2.0: 40_000}  # mm: how many points are compared
STEPS = 60  # of a level
CHUNK = 20  # steps of one call: as often does the bar move
BINS = 32
RADIUS_MM = 80.0  # turns are counted in mm at this distance from the centre, the surface of a head: one step size for all
TURNED = 20.0  # degrees about each axis that the first level also starts from
OFF_MM = 5.0  # how far from the fit the scans are compared once more
# The part of the information that is lost there. Scans of one patient lost 0.23 to 0.58 (T1, T2, FLAIR and PD of two heads,
# noise of up to 20 % of the range, slices of up to 9.6 mm), of two people 0.02 to 0.13 (nine pairs of heads, MR and CT), and
# an angiogram that found no place 0.07. The information itself tells less: 1.13 to 1.27, and 1.05 to 1.12 of two people.
SHARP = 0.2
LEAST_OVERLAP = 0.5  # of the points; with few of them chance looks like information


@dataclass(frozen=True)
class Rigid:
    """Where a point of the fixed scan lies in the moving one: `x -> R (x - centre) + centre + shift`, in RAS mm.

    R turns by `degrees` about x, then y, then z. `nmi` is the normalised mutual information before and after, 1 … 2;
    `sharpness` the part of what exceeds 1 that is lost on average where the scan is shifted by 5 mm.
    """

    degrees: tuple[float, ...]
    shift_mm: tuple[float, ...]
    centre_mm: tuple[float, ...]
    nmi: tuple[float, ...]
    sharpness: float

    @property
    def fits(self) -> bool:
        """Whether the fit is as sharp as it is between scans of one patient."""
        return self.sharpness >= SHARP

    def about(self, matrix: np.ndarray, centre: np.ndarray) -> "Rigid":
        """The motion that `matrix` `(4, 4)` is, told by the turn about `centre`, as good a fit as this one."""
        degrees = Rotation.from_matrix(matrix[:3, :3]).as_euler("xyz", degrees=True).tolist()
        shift = (world(matrix, centre) - centre).tolist()
        return replace(self, degrees=tuple(degrees), shift_mm=tuple(shift), centre_mm=tuple(centre.tolist()))

    @property
    def matrix(self) -> np.ndarray:
        """`(4, 4)`: RAS mm of the fixed scan to RAS mm of the moving one."""
        turn = Rotation.from_euler("xyz", self.degrees, degrees=True).as_matrix()
        matrix = np.eye(4)
        matrix[:3, :3] = turn
        matrix[:3, 3] = self.centre_mm + np.array(self.shift_mm) - turn @ self.centre_mm
        return matrix


def rigid(fixed: Volume, fixed_affine: Affine, moving: Volume, moving_affine: Affine, seed: int = 0) -> Rigid:
    """The rotation and shift with the most mutual information (Mattes et al., IEEE TMI 22, 2003), by gradient ascent.

    Affines map voxel indices, in the order of the axes, to RAS mm; voxels of any size and direction will do. Coarse to
    fine, on means over blocks of 8, 4 and 2 mm, at random points of the smaller volume; the same seed gives the same
    result. The first level starts from where the affines put the scans and from their centres of mass laid on each
    other, turned by up to 20 degrees. Raises UserError for a volume that has one value everywhere.
    """
    for name, volume in (("fixed", fixed), ("moving", moving)):
        if not np.ptp(volume) > 0:
            raise UserError(name, "has one value everywhere; there is nothing to align")
    scans = [(fixed, fixed_affine), (moving, moving_affine)]
    smaller = min(scans, key=lambda scan: scan[0].size * abs(np.linalg.det(scan[1])))
    swapped = smaller is not scans[0]
    one, other = reversed(scans) if swapped else scans
    found = _fit(one, other, np.random.default_rng(seed))
    return found.about(np.linalg.inv(found.matrix), _middle(*scans[0])) if swapped else found


def _fit(one: Scan, other: Scan, random: np.random.Generator) -> Rigid:
    """The motion from `one`, of which points are taken, to `other`."""
    centre = _middle(*one)
    levels = [(coarse(*one, size), coarse(*other, size)) for size in LEVELS]
    found = _starts(*levels[0])
    with tqdm(total=len(LEVELS) * STEPS, desc="align", unit="step", leave=False, dynamic_ncols=True) as bar:
        for (size, points), level in zip(LEVELS.items(), levels, strict=True):
            bar.set_postfix_str(f"{size:g} mm")
            pair = _pair(*level, centre, random, points)
            state = jax.vmap(_adam(size).init)(found)
            for _ in range(STEPS // CHUNK):
                found, state, scores = jax.block_until_ready(_climb(found, state, pair, size))
                bar.update(CHUNK)
            found = found[jnp.argmax(scores)][None]
    steps = OFF_MM * np.concatenate([np.eye(6)[3:], -np.eye(6)[3:]])
    places = (jnp.zeros(6), found[0], *(found[0][None] + steps))
    before, after, *off = (float(_information(place, pair)[1]) for place in places)
    sharpness = (after - float(np.mean(off))) / max(after - 1, 1e-6)
    place = np.asarray(found[0], float)
    degrees, shift = np.degrees(place[:3] / RADIUS_MM).tolist(), place[3:].tolist()
    return Rigid(tuple(degrees), tuple(shift), tuple(centre.tolist()), (before, after), sharpness)


def resample(moving: Volume, moving_affine: Affine, shape: tuple[int, ...], fixed_affine: Affine,
             matrix: Affine, labels: bool = False) -> Float[np.ndarray, "D H W"]:
    """`moving` on the fixed grid of `shape`, linearly interpolated, float32; its lowest value where it has none.

    `matrix` maps the fixed scan's RAS mm to the moving one's. With `labels` each voxel takes the value of the nearest one,
    0 where there is none.
    """
    index = np.linalg.inv(moving_affine) @ matrix @ fixed_affine
    return ndimage.affine_transform(moving.astype(np.float32), index[:3, :3], index[:3, 3], shape, order=0 if labels else 1,
                                    cval=0.0 if labels else float(moving.min()))


@pytree
class Pair:
    """Two volumes of one level: points of the one with their grey values, and the other to look them up in."""

    points: Array  # (N, 3), mm from the centre
    shares: Array  # (N, BINS): 1 in the bin of the point's value
    other: Array  # (d, h, w), in bins
    to_index: Array  # (3, 3): mm to voxels of the other
    origin: Array  # (3,): the voxel at the centre


def _pair(one: Scan, other: Scan, centre: np.ndarray, random: np.random.Generator, count: int) -> Pair:
    """Points lie anywhere between voxels: on the grid itself two grids that fit make maxima of their own."""
    volume, affine = one
    at = random.uniform(size=(count, 3)) * (np.array(volume.shape) - 1)
    values = np.rint(ndimage.map_coordinates(_in_bins(volume), at.T, order=1)).astype(int)
    back = np.linalg.inv(other[1])
    return Pair(*(jnp.asarray(part, jnp.float32) for part in (
        world(affine, at) - centre, np.eye(BINS)[values], _in_bins(other[0]), back[:3, :3], world(back, centre))))


def _in_bins(volume: np.ndarray) -> np.ndarray:
    """Grey values from 1 to BINS - 2, where a cubic B-spline lies within the bins; a half percent at each end is cut."""
    low, high = np.percentile(volume, [0.5, 99.5])
    if high <= low:  # almost all is background
        low, high = volume.min(), volume.max()
    return 1 + (BINS - 3) * np.clip((volume - low) / (high - low), 0, 1)


def coarse(volume: Volume, affine: Affine, size_mm: float) -> Scan:
    """Means over blocks of about that size, and the affine of their grid."""
    voxel = np.linalg.norm(affine[:3, :3], axis=0)
    factors = np.clip(np.rint(size_mm / voxel), 1, volume.shape).astype(int)
    coarse = np.array(volume.shape) // factors
    whole = volume[tuple(slice(n) for n in coarse * factors)]
    index = np.diag([*factors, 1.0])
    index[:3, 3] = (factors - 1) / 2
    return whole.reshape(np.stack([coarse, factors], 1).ravel()).mean((1, 3, 5), dtype=np.float32), affine @ index


def _starts(one: Scan, other: Scan) -> Array:
    """`(14, 6)`: no shift, and centres of mass laid on each other; not turned, and turned both ways about each axis."""
    masses = [world(affine, np.array(ndimage.center_of_mass(volume - volume.min()))) for volume, affine in (one, other)]
    turns = np.radians(TURNED) * RADIUS_MM * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    starts = [[*turn, *shift] for shift in (np.zeros(3), masses[1] - masses[0]) for turn in turns]
    return jnp.asarray(starts, jnp.float32)


def _middle(volume: Volume, affine: Affine) -> np.ndarray:
    return world(affine, (np.array(volume.shape) - 1) / 2)


def world(affine: np.ndarray, at: np.ndarray) -> np.ndarray:
    return at @ affine[:3, :3].T + affine[:3, 3]


def _adam(size_mm: float | Array) -> optax.GradientTransformation:
    """Steps that begin at an eighth of a voxel of the level and end at none."""
    return optax.adam(optax.cosine_decay_schedule(size_mm / 8, STEPS))


@jax.jit
def _climb(found: Array, state: optax.OptState, pair: Pair, size_mm: float | Array) -> tuple[Array, optax.OptState, Array]:
    """CHUNK steps up from each of the places `found` `(S, 6)`, and the scores `(S,)` before the last step."""
    def step(carry: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], Array]:
        place, state = carry
        score, slope = jax.value_and_grad(_score)(place, pair)
        update, state = _adam(size_mm).update(-slope, state)
        return (place + update, state), score

    def climb(place: Array, state: optax.OptState) -> tuple[Array, optax.OptState, Array]:
        (place, state), scores = jax.lax.scan(step, (place, state), None, length=CHUNK)
        return place, state, scores[-1]

    return jax.vmap(climb)(found, state)


def _score(place: Array, pair: Pair) -> Array:
    """Mutual information, less where the scans hardly overlap."""
    information, _, overlap = _information(place, pair)
    return information * jnp.minimum(1, overlap / LEAST_OVERLAP)


@jax.jit
def _information(place: Array, pair: Pair) -> tuple[Array, Array, Array]:
    """Mutual information (nats), the normalised one (Studholme et al., 1999), and the fraction of the points that overlap.

    The other volume's grey values are spread by a cubic B-spline over the bins, so that the histogram has a gradient.
    """
    turned = _product(pair.points, _turn(place[:3] / RADIUS_MM).T) + place[None, 3:]
    at = _product(turned, pair.to_index.T) + pair.origin[None]
    last = jnp.array(pair.other.shape, jnp.float32)[None] - 1
    inside = jnp.clip(jnp.minimum(at, last - at) + 1, 0, 1).prod(-1)  # fades over a voxel beyond the edge
    values = map_coordinates(pair.other, list(at.T), order=1, mode="nearest")
    spread = _cubic(values[:, None] - jnp.arange(BINS, dtype=jnp.float32)[None])
    joint = _product(pair.shares.T, spread * inside[:, None])
    joint = joint / jnp.maximum(joint.sum(), 1e-6)
    one, other, both = (_entropy(shares) for shares in (joint.sum(1), joint.sum(0), joint.ravel()))
    return one + other - both, (one + other) / jnp.maximum(both, 1e-6), inside.mean()


def _product(a: Array, b: Array) -> Array:
    """In float32: the default of accelerators keeps three digits, too few for places and for small changes of a score."""
    return jnp.matmul(a, b, precision="highest")


def _turn(angles: Array) -> Array:
    """The rotation about x, then y, then z by angles in radians."""
    (cx, cy, cz), (sx, sy, sz) = jnp.cos(angles), jnp.sin(angles)
    return jnp.array([[cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
                      [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
                      [-sy, cy * sx, cy * cx]])


def _cubic(t: Array) -> Array:
    """The cubic B-spline at `t`."""
    t = jnp.abs(t)
    return (jnp.maximum(2 - t, 0) ** 3 - 4 * jnp.maximum(1 - t, 0) ** 3) / 6


def _entropy(shares: Array) -> Array:
    return -(shares * jnp.log(jnp.maximum(shares, 1e-12))).sum()
