"""What a denoiser in use took from an image that noise does not explain."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from medjax.data.outputs import ImageOutput
from medjax.data.pipeline import whole_batch
from medjax.infer.consistency import NAME as CHECK
from medjax.infer.predict import Predict
from medjax.measures.removed import LEVEL, Removed, removed
from medjax.tasks._restoration import Restoration
from medjax.train.run import Run
from medjax.types import Array, Batch, Destination, Key, Prediction, Record, Task, Tree, UserError

NAME = "removed"
DIFFERENCE = "Significant difference from the input, without sign"
DRAWS = 12  # of the noise
SEED = 3
EXCESS, SHARE = "removed_excess", "removed_share"


class NoiseOf:
    """What is significant of differences between the inputs and outputs of a `task` that takes noise away.

    Raises UserError for another task.
    """

    def __init__(self, task: Task):
        if not isinstance(task, Restoration) or not task.noise_alone:
            raise UserError("--removed", f"{type(task).__name__} does more than take noise away; give a run that denoises")
        self._range = task.data_range

        def draw(batch: Batch, base: Array, key: Key) -> Array:
            return task.input(task.simulate(key, task.with_image(batch, base), base)).image - base

        def given(batch: Batch) -> Array:
            return task.input(batch).image

        self._draw, self._given = jax.jit(draw), jax.jit(given)

    def given(self, batch: Batch) -> np.ndarray:
        """The one image of a batch as the network sees it, `(*space, C)` in unit range."""
        return np.asarray(self._given(batch))[0]

    def __call__(self, batch: Batch, given: np.ndarray, made: np.ndarray, base: np.ndarray,
                 mask: np.ndarray | None = None) -> Removed:
        """How `made` differs from `given`, in physical units, compared with noise on `base`, the true image or the best that
        is known of it: all `(*space, C)` in unit range. `batch` has one sample, whose id and voxel size count.
        """
        keys = jax.random.split(jax.random.key(SEED), DRAWS)
        low, high = self._range
        scale = high - low
        noise = [-scale * np.asarray(self._draw(batch, jnp.asarray(base)[None], key))[0].mean(-1) for key in keys]
        return removed(scale * (made - given).mean(-1), noise, mask)


def with_removed(predict: Predict, run: Run) -> Predict:
    """As `predict`, with what is significant of the difference from the input among the extras, `(*space)`, physical units.

    Raises UserError for a run that does not denoise.
    """
    noise, ndim = NoiseOf(run.task), run.task.input_ndim

    def found(record: Record) -> Prediction:
        made, volume = predict(record), record.ndim > ndim
        masks = record.extras.get("mask")
        each = []
        for i, image in enumerate(made.image if volume else [made.image]):
            batch: dict[str, Tree] = {**whole_batch(record, ndim, i)}
            image, mask = np.asarray(image), None if masks is None else (masks[i] if volume else masks)[..., 0]
            each.append(noise(batch, noise.given(batch), image, image, mask))
        maps: Tree = np.stack([one.shown for one in each]).astype(np.float32)
        share: Tree = np.float32(np.mean([one.significant.mean() for one in each]))
        excess: Tree = np.float32(np.nanmax([one.excess for one in each]))
        return replace(made, extras={**made.extras, NAME: maps if volume else maps[0], SHARE: share, EXCESS: excess})

    return found


@dataclass(frozen=True)
class RemovedOutput:
    """The maps of `with_removed`, without sign, and what they say in numbers."""

    predictions: Sequence[Prediction]

    def write(self, destination: Destination) -> None:
        """Writes `NAME_removed` as the study's images are written, and `NAME_check.json`."""
        maps = [np.abs(np.asarray(made.extras[NAME]))[..., None] for made in self.predictions]
        ImageOutput(maps, NAME, difference=DIFFERENCE).write(destination)
        destination.file(CHECK, ".json").write_text(json.dumps({
            "false_discovery_rate": LEVEL, "significant_share": [float(made.extras[SHARE]) for made in self.predictions],
            "noise_excess": [float(made.extras[EXCESS]) for made in self.predictions],
            "largest": [float(image.max(initial=0)) for image in maps]}, indent=1), encoding="utf-8")
