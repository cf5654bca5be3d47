"""IXI: MR heads of nearly 600 healthy people, of whom most have every contrast. Divided by person, also across contrasts."""

import shlex
from pathlib import Path

from medjax.data.storage.download import File, PublicSet

ADDRESS = "http://biomedic.doc.ic.ac.uk/brain-development/downloads/IXI"
MD5 = {  # as in TorchIO 1.2.1, torchio/datasets/ixi.py
    "T1": "34901a0593b41dd19c1a1f746eac2d58",
    "T2": "e3140d78730ecdd32ba92da48c0a9aaa",
    "PD": "88ecd9d1fa33cb4a2278183b42ffd749",
    "MRA": "29be7d2fee3998f978a55a9bdaf3407e",
}


def train(folder: Path, subset: str) -> str:
    """Denoising, as on one's own files."""
    return (f"python train.py --config=configs/quickstart.py:source=files --workdir=runs/ixi-{subset} "
            f"--config.data.path={shlex.quote(str(folder / subset))} --config.data.normalise=volume")


DOWNLOAD = PublicSet(
    "IXI", "CC BY-SA 3.0", "IXI, Information eXtraction from Images (EPSRC GR/S21533/02), brain-development.org/ixi-dataset",
    "https://brain-development.org/ixi-dataset",
    {contrast: [File(f"{ADDRESS}/IXI-{contrast}.tar", contrast, md5)] for contrast, md5 in MD5.items()}, train,
    subject=r"(IXI\d+)-.*\.nii\.gz$")
