"""MONAI's side of `bench pipeline`: random crops of volumes that `CacheDataset` keeps in memory."""

from collections.abc import Iterable

import batches
import monai
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, list_data_collate
from monai.transforms import Compose, RandSpatialCropSamples


def versions() -> dict[str, str]:
    """MONAI's and PyTorch's."""
    return {"monai": monai.__version__, "torch": torch.__version__}


class Peer:
    """A loader, made by `build`."""

    def build(self, files: list[str], patch: list[int], batch: int) -> dict[str, int]:
        """Fills the cache; returns the setting that was faster."""
        def load(file: str) -> torch.Tensor:
            return torch.from_numpy(np.load(file)[None])

        crops = RandSpatialCropSamples(tuple(patch), num_samples=batch, random_size=False)
        data = CacheDataset(files, transform=Compose([load, crops]), progress=False)

        def loader(workers: int) -> Iterable[torch.Tensor]:
            return DataLoader(data, batch_size=1, shuffle=True, num_workers=workers, collate_fn=list_data_collate,
                              persistent_workers=bool(workers))

        self._reader = batches.Reader(loader, (batch, 1, *patch))
        return {"workers": self._reader.workers}

    def run(self, steps: int) -> list[float]:
        """Milliseconds of each of `steps` batches."""
        return self._reader.run(steps)
