"""Where a head lies in a scan: an affine fit of templates, and whether it is to be believed."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from medjax.classical.affine import Grid, affine
from medjax.classical.rigid import coarse, world
from medjax.types import UserError

STEP_MM = 3.0
TALL_MM = 260.0  # of a scan that much is looked at, from the top of the head
ABOVE_MM = 15.0
CROWN_MM = 78.0  # from the middle of the brain to the top of the head
CT_AIR = -500.0  # values below are of air in HU; MR has none
CT_WINDOW = (-200.0, 300.0)  # HU: soft tissue apart from air, fat and bone
WIDEST = (0.5, 99.5)  # percentiles of the values that are told apart
DARK = 0.12  # of that range: background
MIDDLE = np.array([0.0, -18.0, 5.0])  # of the brain in the templates, RAS mm
SIZE = np.array([0.89, 0.9, 0.81])  # of a person's head, of that of the templates, which are large
TURNS = ((0, 0, 0), (-30, 0, 0), (-15, 0, 0), (15, 0, 0), (30, 0, 0), (0, 15, 0), (0, -15, 0), (0, 0, 15), (0, 0, -15))
UPSIDE_DOWN = ((180, 0, 0), (0, 180, 0), (0, 0, 180))  # degrees: a head fits none of them as well
AGREE_MM = 6.0  # two fits by different points, anywhere at the head's surface
BETTER = 1.05  # times the information of the best fit upside down
SIZES = (0.65, 1.3)  # of a head in any direction
LEAST_MM = 40.0  # of a scan, along each axis
SURFACE = np.array([[0, 100, -40], [0, 95, -110], [75, -15, 0], [-75, -15, 0], [0, -110, 0], [0, -15, 100]], float)


def find_head(templates: Sequence[Grid], volume: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Where a head lies: the map `(4, 4)` from RAS mm of the scan to those of the templates, by the one that fits best.

    The affine `place` maps indices of the `volume` to RAS mm. Templates lie in one space. CT is told by values of air in HU,
    every other contrast will do. Raises UserError, naming "scan", for what is no head, or shows too little of it: where two
    fits disagree, or one that is turned upside down is nearly as good.
    """
    if not np.ptp(volume) > 0:
        raise UserError("scan", "has one value everywhere")
    if (np.linalg.norm(place[:3, :3], axis=0) * volume.shape).min() < LEAST_MM:
        raise UserError("scan", f"shows too little of a head: it is less than {LEAST_MM:g} mm wide along an axis")
    scan = _grid(volume, place)
    fits = [(fit, template) for template in templates if (fit := affine(template, scan, starts(scan, TURNS))) is not None]
    if not fits:
        raise UserError("scan", "no head was found in it")
    best, template = max(fits, key=lambda pair: pair[0].information)
    again = affine(template, scan, starts(scan, TURNS), seed=2)
    turned = affine(template, scan, starts(scan, UPSIDE_DOWN))
    sizes = np.linalg.svd(best.matrix[:3, :3])[1]
    agreement = np.inf if again is None else float(np.linalg.norm(
        world(best.matrix, SURFACE) - world(again.matrix, SURFACE), axis=1).max())
    better = best.information / max(turned.information if turned else 0.0, 1e-6)
    if agreement > AGREE_MM or better < BETTER or sizes.min() < SIZES[0] or sizes.max() > SIZES[1]:
        raise UserError("scan", "no head was found in it, or too little of one: two fits of a template differ by "
                        f"{agreement:.1f} mm (at most {AGREE_MM:g}), the fit is {better:.2f} times as good as upside down "
                        f"(at least {BETTER:g}), sizes {sizes.min():.2f} to {sizes.max():.2f} of the template's")
    matrix: np.ndarray = np.linalg.inv(best.matrix)
    return matrix


def _grid(volume: np.ndarray, place: np.ndarray) -> Grid:
    """The scan's upper part on a grid, its values from 0 to 1."""
    values = np.clip(volume, *CT_WINDOW) if volume.min() < CT_AIR else volume
    blocks, at = coarse(values, place, STEP_MM)
    low, high = np.percentile(blocks, WIDEST)
    corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in blocks.shape], indexing="ij"), -1).reshape(-1, 3)
    ends = world(at, corners)
    bottom, top = ends.min(0), ends.max(0)
    crown = np.percentile(world(at, np.argwhere(blocks > low + DARK * (high - low)))[:, 2], 99.9)
    bottom[2], top[2] = max(bottom[2], crown - TALL_MM), min(top[2], crown + ABOVE_MM)
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return Grid.of(scaled, place, STEP_MM, bottom, top)


def starts(scan: Grid, turns: Sequence[tuple[int, int, int]]) -> list[np.ndarray]:
    """Templates turned by `turns` degrees about x, y and z, their middle on that of the head, or below its top."""
    places = world(scan.affine, np.argwhere((scan.values > DARK) & scan.inside))
    crown = np.percentile(places[:, 2], 99.8)
    upper = places[places[:, 2] > crown - 2 * CROWN_MM]
    starts = []
    for middle in (np.array([*upper[:, :2].mean(0), crown - CROWN_MM]), places.mean(0)):
        for turn in turns:
            matrix = np.eye(4)
            matrix[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * SIZE
            matrix[:3, 3] = middle - matrix[:3, :3] @ MIDDLE
            starts.append(matrix)
    return starts
