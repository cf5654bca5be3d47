"""A trained model on one record, whatever its size: physical units in, physical units out."""

import math
from collections.abc import Callable

import jax
import numpy as np

from medjax.infer.tiling import tiled
from medjax.train.run import Run
from medjax.types import Example, Record, State, UserError

VOXELS = {2: 1024**2, 3: 128**3}  # larger images go through in tiles


def make_enhance(run: Run, state: State) -> Callable[[Record], np.ndarray]:
    """A function from a record to its enhanced image in physical units.

    A 2-D model takes volumes slice by slice. Networks compile once per size of tile. Raises UserError where the record
    doesn't suit the model.
    """
    low, high = run.task.data_range
    ndim = run.config.data.ndim

    @jax.jit
    def predict(image: jax.Array) -> jax.Array:
        return run.objective.predict(state.params | state.ema, state.variables, Example(image[None], None))[0]

    def one(image: np.ndarray) -> np.ndarray:
        return tiled(predict, image, _tile(image.shape[:-1]))

    def enhance(record: Record) -> np.ndarray:
        if record.ndim < ndim:
            raise UserError(record.id, f"is a {record.ndim}-D image and the model is {ndim}-D")
        channels = run.config.data.channels
        if record.image.shape[-1] != channels:
            raise UserError(record.id, f"has {record.image.shape[-1]} channels and the model was trained on {channels}")
        units = record.image.astype(np.float32) * np.float32(record.slope) + np.float32(record.intercept)
        unit = (units - low) / (high - low)
        made = one(unit) if record.ndim == ndim else np.stack([one(plane) for plane in unit])
        made = made * (high - low) + low
        mask = record.extras.get("mask")
        # Padding outside the scanned field stays what it was.
        return made if mask is None or made.shape != units.shape else np.where(mask, made, units)

    return enhance


def _tile(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The whole image rounded up to 16 (images of nearly one size share a compilation), or a part that fits."""
    tile = [-(-size // 16) * 16 for size in shape]
    while math.prod(tile) > VOXELS[len(shape)]:
        axis = int(np.argmax(tile))
        tile[axis] = -(-tile[axis] // 32) * 16
    return tuple(tile)
