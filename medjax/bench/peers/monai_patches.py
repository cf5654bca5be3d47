"""MONAI's side of `bench pipeline`: random crops of volumes that `CacheDataset` keeps in memory."""

import os
import time
from itertools import count
from typing import Any

import monai
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, list_data_collate
from monai.transforms import RandSpatialCropSamples

DRAIN = 8  # batches that may lie ready from an earlier turn


def versions() -> dict[str, str]:
    """MONAI's and PyTorch's."""
    return {"monai": monai.__version__, "torch": torch.__version__}


class Peer:
    """A loader with the faster of no worker and one per core, and what it gives."""

    def build(self, files: list[str], patch: list[int], batch: int) -> dict[str, Any]:
        """Fills the cache; returns the setting that was faster."""
        def load(file: str) -> torch.Tensor:
            return torch.from_numpy(np.load(file)[None])

        crops = RandSpatialCropSamples(tuple(patch), num_samples=batch, random_size=False)
        data = CacheDataset(files, transform=monai.transforms.Compose([load, crops]), progress=False)
        rates, loaders = {}, {}
        for workers in (0, len(os.sched_getaffinity(0))):
            loader = DataLoader(data, batch_size=1, shuffle=True, num_workers=workers, collate_fn=list_data_collate,
                                persistent_workers=bool(workers))
            loaders[workers] = _endless(loader)
            rates[workers] = sum(_times(loaders[workers], 2 * DRAIN))
        chosen = min(rates, key=rates.get)
        self._batches = loaders[chosen]
        return {"workers": chosen}

    def run(self, steps: int) -> list[float]:
        """Milliseconds of each of `steps` batches."""
        return _times(self._batches, DRAIN + steps)[DRAIN:]


def _endless(loader: Any) -> Any:
    for _ in count():
        yield from loader


def _times(batches: Any, steps: int) -> list[float]:
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        assert next(batches).ndim == 5
        times.append(1e3 * (time.perf_counter() - start))
    return times
