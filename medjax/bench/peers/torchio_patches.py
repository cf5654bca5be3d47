"""TorchIO's side of `bench pipeline`: uniform patches through its queue, volumes in uncompressed NIfTI."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import batches
import nibabel
import numpy as np
import torch
import torchio

PER_VOLUME = 8


def versions() -> dict[str, str]:
    """TorchIO's and PyTorch's."""
    return {"torchio": torchio.__version__, "torch": torch.__version__}


class Peer:
    """A queue, made by `build`."""

    def build(self, files: list[str], patch: list[int], batch: int) -> dict[str, int]:
        """Sets the queue up; returns the setting that was faster."""
        if batch > len(files) * PER_VOLUME:
            raise NotImplementedError(f"TorchIO's queue has {len(files) * PER_VOLUME} patches of these volumes, too few for "
                                      f"a batch of {batch}")
        subjects = [torchio.Subject(image=torchio.ScalarImage(_nifti(file))) for file in files]
        self._reader = batches.Reader(partial(_Images, subjects, patch, batch), (batch, 1, *patch))
        return {"workers": self._reader.workers}

    def run(self, steps: int) -> list[float]:
        """Milliseconds of each of `steps` batches."""
        return self._reader.run(steps)


class _Images:
    """The images of the queue's batches, of one pass over the volumes at a time."""

    def __init__(self, subjects: list[torchio.Subject], patch: list[int], batch: int, workers: int):
        queue = torchio.Queue(torchio.SubjectsDataset(subjects), max_length=8 * batch, samples_per_volume=PER_VOLUME,
                              sampler=torchio.UniformSampler(tuple(patch)), num_workers=workers)
        self._loader = torchio.SubjectsLoader(queue, batch_size=batch, num_workers=0, drop_last=True)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (subjects["image"]["data"] for subjects in self._loader)


def _nifti(file: str) -> str:
    path = str(Path(file).with_suffix(".nii"))
    nibabel.save(nibabel.Nifti1Image(np.load(file), np.eye(4)), path)
    return path
