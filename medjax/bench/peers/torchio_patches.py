"""TorchIO's side of `bench pipeline`: uniform patches through its queue, volumes in uncompressed NIfTI."""

import os
import time
from itertools import count
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
import torchio

DRAIN = 8  # batches that may lie ready from an earlier turn


def versions() -> dict[str, str]:
    """TorchIO's and PyTorch's."""
    return {"torchio": torchio.__version__, "torch": torch.__version__}


class Peer:
    """A queue with the faster of no worker and one per core, and what it gives."""

    def build(self, files: list[str], patch: list[int], batch: int) -> dict[str, Any]:
        """Sets the queue up; returns the setting that was faster."""
        subjects = [torchio.Subject(image=torchio.ScalarImage(_nifti(file))) for file in files]
        rates, loaders = {}, {}
        for workers in (0, len(os.sched_getaffinity(0))):
            queue = torchio.Queue(torchio.SubjectsDataset(subjects), max_length=8 * batch, samples_per_volume=8,
                                  sampler=torchio.UniformSampler(tuple(patch)), num_workers=workers)
            loaders[workers] = _endless(torchio.SubjectsLoader(queue, batch_size=batch, num_workers=0))
            rates[workers] = sum(_times(loaders[workers], 2 * DRAIN))
        chosen = min(rates, key=rates.get)
        self._batches = loaders[chosen]
        return {"workers": chosen}

    def run(self, steps: int) -> list[float]:
        """Milliseconds of each of `steps` batches."""
        return _times(self._batches, DRAIN + steps)[DRAIN:]


def _nifti(file: str) -> str:
    path = str(Path(file).with_suffix(".nii"))
    nibabel.save(nibabel.Nifti1Image(np.load(file), np.eye(4)), path)
    return path


def _endless(loader: Any) -> Any:
    for _ in count():
        yield from loader


def _times(batches: Any, steps: int) -> list[float]:
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        assert next(batches)["image"]["data"].ndim == 5
        times.append(1e3 * (time.perf_counter() - start))
    return times
