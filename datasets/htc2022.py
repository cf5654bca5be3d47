"""Helsinki Tomography Challenge 2022: fan-beam scans of 21 acrylic discs with holes, each in full and from few angles."""

import shlex
from pathlib import Path

from medjax.data.storage.download import File, PublicSet


def train(folder: Path, subset: str) -> str:
    """From the measured views alone, since there is no other truth; both scans of a disc count as one subject."""
    return (f"python train.py --config=configs/ct_recon.py:source=files,objective=ssdu --workdir=runs/htc2022 "
            f"--config.data.path={shlex.quote(str(folder / subset))} --config.data.source.kind=sinogram "
            "--config.data.source.match='*_full.mat' --config.batch_size=1")


DOWNLOAD = PublicSet(
    "Helsinki Tomography Challenge 2022", "CC BY 4.0",
    "Meaney, Silva de Moura, Juvonen and Siltanen, Helsinki Tomography Challenge 2022 (HTC2022) open tomographic dataset, "
    "doi 10.5281/zenodo.7418878", "https://doi.org/10.5281/zenodo.7418878",
    {"test_data": [File("https://zenodo.org/records/7418878/files/htc2022_test_data.zip?download=1", "test_data")]}, train,
    subject=r"htc2022_(\w+?)_(?:full|limited)\.mat$")
