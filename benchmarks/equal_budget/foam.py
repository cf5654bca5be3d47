"""Images of foam, as SCICO's examples reconstruct them, in files that medjax reads."""

from pathlib import Path

import numpy as np

from benchmarks.recon_foam import foam

SIZE, COUNT = 64, 120


def write(folder: Path) -> None:
    """Draws `COUNT` images into `folder`, in HU: 0 of foam is air, 1 is 1000 HU."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(COUNT):
        np.save(folder / f"foam_{number:03d}.npy", 2000 * foam(random, SIZE)[..., 0] - 1000)
