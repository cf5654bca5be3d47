"""Sinograms as records: the measured line integrals, their geometry, and the image by filtered back-projection."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from medjax.data import ct_geometry
from medjax.data.values import finite, native
from medjax.types import Record, UserError

LARGEST = 16  # pixels of an image's side for each element of the detector


def record(path: Path, sinogram: np.ndarray, geometry: str, name: str, subject: str) -> Record:
    """The record of line integrals `(views, detectors)` with a checked `geometry` (`medjax.data.ct_geometry`).

    The image `(H, W, 1)` is attenuation in 1/mm; `extras["sinogram"]` `(views, detectors, 1)` float32,
    `extras["ct_geometry"]` the JSON. Raises UserError where they don't fit.
    """
    operator = ct_geometry.operator(geometry, path)
    expected = (len(operator.angles), operator.detectors)
    if sinogram.shape != expected:
        raise UserError(path, f"has the shape {sinogram.shape} where its geometry has {expected} (views, detectors)")
    if max(operator.shape) > LARGEST * max(expected):
        raise UserError(path, f"image_shape: {operator.shape} is too large for {expected} (views, detectors); give sides up "
                        f"to {LARGEST * max(expected)}")
    values = native(path, sinogram).astype(np.float32)
    finite(path, values)
    image = np.asarray(operator.fbp(jnp.asarray(values)[None, ..., None]))[0]
    return Record(image, name, subject, spacing_mm=operator.spacing, modality="CT", units="1/mm",
                  extras={"sinogram": values[..., None], "ct_geometry": np.array(geometry)})
