"""Removes faces from scans of heads, and counts what was lost of the brain and what is left of the face.

    python -m benchmarks.deface FILE_OR_FOLDER …

Each argument is one scan, a file or a DICOM series; results have its name. Brain and face are found by a method that knows
nothing of the templates, on a grid of 2 mm. The brain is the largest piece that is left of bright tissue after an erosion by
10 mm, grown back. The face is the surface that is seen from the front within 40 mm of the brain's middle, below the lowest
voxel of the foremost 20 mm of the brain. Written is `benchmarks/results/deface.json`; `python -m benchmarks.scores --tables`
then writes the table of docs/deidentify.md. `--picture=FILE` draws the scans before and after, without scans the drawn
head:

    python -m benchmarks.deface --picture=docs/deface.png
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from matplotlib import image
from scipy import ndimage
from skimage.filters import threshold_otsu

from benchmarks.privacy_tables import DEFACE
from benchmarks.processes import commit
from medjax.classical.affine import Grid
from medjax.classical.head import CT_AIR, find_head
from medjax.classical.rigid import world
from medjax.data.face import is_face, regular, removal_of
from medjax.data.head import CORNER_MM, drawn_head, templates
from medjax.data.io import discover
from medjax.files import write_atomically
from medjax.types import UserError

PICTURE = flags.DEFINE_string("picture", "", "A PNG file for a picture of the results.")
STEP_MM = 2.0
ERODED, SIDE, FRONT = 5, 20, 10  # in steps: of the tissue; of the face, on both sides of the middle; of the brain
CT_BRAIN = (0.0, 90.0)  # HU
DARK, BRIGHT = 0.5, 1.2  # of Otsu's threshold: what is brighter is tissue, and soft tissue, of MR


def measured(path: Path, known: list[Grid], pictures: list[np.ndarray]) -> dict[str, Any]:
    """What is removed of a scan, or why nothing can be."""
    records = discover(path)[0].read()
    volume, place = regular(records[0])
    since = time.process_time()
    try:
        removal, _ = removal_of(records, lambda volume, place: find_head(known, volume, place))
    except UserError as error:
        return {"refused": error.args[1]}
    seconds = time.process_time() - since
    corners = world(place, np.stack(np.meshgrid(*[(0, size - 1) for size in volume.shape]), -1).reshape(-1, 3))
    grid = Grid.of(volume, place, STEP_MM, corners.min(0), corners.max(0))
    removed = removal.mask(grid.affine, grid.values.shape)
    brain, tissue = _brain(grid, volume.min() < CT_AIR)
    face = _face(brain, tissue)
    pictures.append(_picture(grid, removed, brain))
    return {"cpu_seconds": round(seconds, 1), "brain_ml": round(brain.sum() * STEP_MM**3 / 1000),
            "brain_lost": float((brain & removed).sum() / brain.sum()),
            "face_cm2": round(face.sum() * STEP_MM**2 / 100), "face_removed": float((face & removed).sum() / face.sum())
            if face.any() else None}


def _brain(grid: Grid, is_ct: bool) -> tuple[np.ndarray, np.ndarray]:
    """The brain, and all tissue: `(X, Y, Z)`."""
    values = ndimage.gaussian_filter(grid.values, 0.5)
    if is_ct:
        tissue, soft = values > CT_AIR, (values > CT_BRAIN[0]) & (values < CT_BRAIN[1])
    else:
        threshold = threshold_otsu(values[grid.inside])
        tissue, soft = values > DARK * threshold, values > BRIGHT * threshold
    ball = ndimage.distance_transform_edt(soft & grid.inside) > ERODED
    pieces, _ = ndimage.label(ball)
    largest = pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1
    grown = ndimage.distance_transform_edt(~largest) <= ERODED
    return ndimage.binary_fill_holes(grown & soft & grid.inside), tissue & grid.inside


def _face(brain: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """The first voxel of tissue from the front, where a face is."""
    places = np.argwhere(brain)
    middle, front = int(np.median(places[:, 0])), places[:, 1].max()
    brow = int(places[places[:, 1] > front - FRONT, 2].min())
    seen = tissue & (np.cumsum(tissue[:, ::-1], 1)[:, ::-1] == 1)
    face = np.zeros_like(seen)
    face[max(0, middle - SIDE):middle + SIDE, :, :brow] = seen[max(0, middle - SIDE):middle + SIDE, :, :brow]
    face[:, :int(np.median(places[:, 1]))] = False
    return face


def _picture(grid: Grid, removed: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The plane in the middle of the brain and one through an eye, before and after, `(H, W)` from 0 to 1."""
    low, high = (-150.0, 250.0) if grid.values.min() < CT_AIR else np.percentile(grid.values, (1, 99.5))
    middle = int(np.median(np.argwhere(brain)[:, 0]))
    whole = np.clip((grid.values - low) / (high - low), 0, 1)
    views = [volume[x].T[::-1] for x in (middle, middle + 16) for volume in (whole, np.where(removed, 0, whole))]
    return np.concatenate(views, 1)


def drawn() -> np.ndarray:
    """The drawn head in the middle and through an eye, before and after."""
    head, views = drawn_head(1.0), []
    for x in (0, 33):
        plane = head[round(x - CORNER_MM[0])]
        y, z = np.indices(plane.shape)
        places = np.stack([np.full(y.size, float(x)), y.ravel() + CORNER_MM[1], z.ravel() + CORNER_MM[2]], 1)
        views += [plane.T[::-1], np.where(is_face(places).reshape(plane.shape), 0, plane).T[::-1]]
    return np.concatenate(views, 1)


def main(words: list[str]) -> None:
    if len(words) == 1:
        image.imsave(PICTURE.value, drawn(), cmap="gray", vmin=0, vmax=1)
        return
    known = [Grid(*template) for template in templates()]
    scans: dict[str, Any] = {}
    pictures: list[np.ndarray] = []
    for word in words[1:]:
        name = Path(word).name.partition(".")[0]
        scans[name] = measured(Path(word), known, pictures)
        print(name, scans[name], flush=True)
    write_atomically(DEFACE, json.dumps({"commit": commit(), "scans": scans}, indent=1) + "\n")
    if PICTURE.value:
        width = max(picture.shape[1] for picture in pictures)
        rows = [np.pad(picture, ((0, 4), (0, width - picture.shape[1]))) for picture in pictures]
        image.imsave(PICTURE.value, np.concatenate(rows), cmap="gray", vmin=0, vmax=1)
    print(f"written: {DEFACE}; next: python -m benchmarks.scores --tables")


if __name__ == "__main__":
    app.run(main)
