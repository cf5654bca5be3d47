"""Intervals of a run's restorations: calibrated on its validation patients, checked on others."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from medjax.data.split import fingerprint
from medjax.evaluation.compare import owner
from medjax.infer import uncertainty
from medjax.measures.intervals import Calibration, Voxels, calibrate
from medjax.tasks._restoration import LEAST_CONTRAST, Restoration
from medjax.train import sharding
from medjax.train.evaluator import Evaluated, Evaluator
from medjax.train.run import Run
from medjax.types import Record, Region, State, UserError

MOST = 1 << 22  # voxels that are kept of all samples together
TISSUE = 0.1  # of the way from the 1st to the 99th percentile: above is tissue, as in `data.statistics.foreground`


class Collected:
    """Errors and spreads of restored images by patient, in physical units, in tissue inside the mask.

    Of `samples` images about 4 million voxels are kept, drawn at random from each; an empty slice has none.
    """

    def __init__(self, task: Restoration, regions: Sequence[Region], samples: int):
        self._task, self._most = task, max(1, MOST // samples)
        self._records: Mapping[str, Record] = {region.record.id: region.record for region in regions}
        self._found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, batch: Evaluated) -> None:
        """The named samples of an evaluated batch, whose prediction has a `std`."""
        example, pred = batch.example, batch.prediction
        assert example is not None
        assert pred is not None
        low, high = self._task.data_range
        truth, image = (np.asarray(self._task.compared(jnp.asarray(x))) for x in (example.target, pred.image))
        for i, name in enumerate(batch.names):
            counts = tissue(truth[i], np.asarray(example.mask[i])[..., 0])
            voxels = np.flatnonzero(counts)
            if len(voxels) > self._most:
                random = np.random.default_rng(zlib.crc32(name.encode()))
                voxels = np.sort(random.choice(voxels, self._most, replace=False))
            error, spread = (np.asarray(x).reshape(counts.size, -1)[voxels].ravel() * np.float32(high - low)
                             for x in (np.abs(image[i] - truth[i]), np.asarray(pred.std)[i]))
            self._found.setdefault(owner(name, self._records).subject, []).append((error, spread))

    def patients(self) -> list[Voxels]:
        """The voxels of each patient that has any. Raises UserError where none has."""
        joined = [Voxels(*(np.concatenate(parts) for parts in zip(*found, strict=True))) for found in self._found.values()]
        found = [one for one in joined if len(one.error)]
        if not found:
            raise UserError("--uncertainty", "no image of this part shows tissue, which intervals are made for")
        return found


def tissue(truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Where a true image `(*space, C)` in unit range shows tissue inside its `mask` `(*space)`; nowhere if it is empty."""
    grey = truth.mean(-1)
    inside = grey[mask]
    if not inside.size or np.ptp(inside) < LEAST_CONTRAST:
        return np.zeros(mask.shape, bool)
    low, high = np.percentile(inside, (1, 99))
    return mask & (grey > low + TISSUE * (high - low))


def calibrated(run: Run, state: State, evaluator: Evaluator, regions: Sequence[Region], workdir: Path,
               asked: uncertainty.Asked) -> Calibration:
    """The calibration on the validation `regions`; kept in the run's folder. Raises UserError where there are none."""
    if not regions:
        raise UserError("config.data.fractions", "the data has no validation part, which intervals are calibrated on")
    assert isinstance(run.task, Restoration)
    identity = uncertainty.identity_of(state, asked) | {"data": fingerprint({"val": list(regions)})}
    known = uncertainty.calibration_of(workdir, identity)
    if known is not None:
        return known
    batches = evaluator.batches(list(regions))
    collected = Collected(run.task, regions, batches.samples)
    state = jax.device_put(state, sharding.replicated(evaluator.mesh))
    with tqdm(total=batches.samples, desc="calibrate", unit="image", dynamic_ncols=True) as bar:
        for batch in evaluator(state, batches):
            collected.add(batch)
            bar.update(len(batch.names))
    found = calibrate(collected.patients())
    uncertainty.keep_calibration(workdir, identity, found)
    return found
