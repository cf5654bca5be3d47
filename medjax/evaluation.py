"""A trained run judged on one part of its data: numbers, pictures, and where they are."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medjax.infer.assess import Assessment, Sample, assess
from medjax.report import page
from medjax.report.table import table
from medjax.train.log import read_curves
from medjax.train.loop import restore_best
from medjax.train.setup import write_atomically
from medjax.types import UserError





def _panels(sample: Sample, window: tuple[float, float]) -> Iterator[page.Panel]:
    """One row of pictures of an image; of a volume three, through its middle."""
    record, space = sample.record, sample.images["truth"].shape[:-1]
    planes = {"": ()} if len(space) == 2 else {" axial": (space[0] // 2,), " coronal": (slice(None), space[1] // 2),
                                               " sagittal": (slice(None), slice(None), space[2] // 2)}
    spacing = record.spacing_mm[-len(space):] or (1.0,) * len(space)
    for plane, at in planes.items():
        cut = [axis for axis, index in enumerate(at) if not isinstance(index, slice)]
        images = {row: _drawable(image[at]) for row, image in sample.images.items()}
        yield page.Panel(sample.name + plane, images, window, tuple(np.delete(spacing, cut)), sample.metrics,
                         anatomical=record.affine is not None)


def _drawable(image: np.ndarray) -> np.ndarray:
    """`(H, W)` or `(H, W, 3)`."""
    return image if image.shape[-1] == 3 else image[..., 0]
