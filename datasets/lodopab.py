"""LoDoPaB-CT: 42,895 slices of chest CT of 752 patients, from LIDC/IDRI (Leuschner et al., Sci Data 8, 109, 2021).

The images alone are read, in the parts of their makers, which divide patients: `configs/ct_recon.py` simulates a scanner.
"""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np

from medjax.data.formats import _hdf5
from medjax.data.storage.builder import Builder, Item
from medjax.data.storage.download import File, PublicSet
from medjax.types import Record, UserError

PARTS = {"train": "train", "val": "validation", "test": "test"}
TOGETHER = 128  # images of a file
WATER, AIR = 20.0, 0.02  # attenuation in 1/m, of which the makers made values: 1 is that of 3071 HU
LARGEST = 3071 * (WATER - AIR) / 1000 + WATER
SPACING_MM = 260 / 362
ADDRESS = "https://zenodo.org/records/3384092/files"
MD5 = {  # as public readers of the set have them
    "ground_truth_train.zip": "f06829ccf2b9bb817abd093ce490b2c7",
    "ground_truth_validation.zip": "666c36f403734842f14ca8811a63b8f7",
    "ground_truth_test.zip": "ecc655767fbe3d40908ca823921f4c7f",
    "patient_ids_rand_train.csv": "4fee01b076920f85fc92e0de774dc277",
    "patient_ids_rand_validation.csv": "a387e619074f49573ae376c60a948db4",
    "patient_ids_rand_test.csv": "e86068312ad8a039e03f7f929352f7fd",
}


class Lodopab(Builder):
    """Slices `(362, 362, 1)` in HU below the folder of the download; subjects are the numbers of the makers' tables."""

    name = "lodopab"
    nobody = True
    config = "configs/ct_recon.py"
    licence = "CC BY 4.0"

    def list_items(self) -> list[Item]:
        found = [(part, path) for part, name in PARTS.items()
                 for path in sorted(self.source.glob(f"ground_truth_{name}/ground_truth_{name}_*.hdf5"))]
        return [replace(Item.of(path.stem, "", path, [path, _table(path)]), part=part) for part, path in found]

    def records(self, item: Item) -> list[Record]:
        path = item.what
        with _hdf5.opened(path) as file:
            images = np.asarray(_hdf5.dataset(path, file, "data"), np.float32)
            subjects = np.loadtxt(_table(path), int, ndmin=1)
            first = TOGETHER * int(path.stem.rpartition("_")[2])
        if images.ndim != 3 or len(subjects) < first + len(images):
            raise UserError(path, f"has the shape {images.shape}, and {_table(path).name} {len(subjects)} rows; give the "
                            "folder of LoDoPaB-CT as it was downloaded")
        return [Record(image[..., None], f"{path.stem}-{number:03d}", f"patient{subjects[first + number]:04d}",
                       spacing_mm=(SPACING_MM, SPACING_MM), modality="CT", units="HU", slope=1000 * LARGEST / (WATER - AIR),
                       intercept=-1000 * WATER / (WATER - AIR)) for number, image in enumerate(images)]


def _table(path: Path) -> Path:
    """Whose the images of a part are, a row each."""
    return path.parents[1] / f"patient_ids_rand_{path.parent.name.removeprefix('ground_truth_')}.csv"


def build(folder: Path, subset: str) -> str:
    """As shards, in the parts of the makers."""
    return f"python -m medjax.build lodopab --from={shlex.quote(str(folder))} --to={shlex.quote(str(folder.parent))}"


DOWNLOAD = PublicSet(
    "LoDoPaB-CT", "CC BY 4.0",
    "Leuschner et al., LoDoPaB-CT, a benchmark dataset for low-dose computed tomography reconstruction, Sci Data 8, 109, "
    "2021, doi 10.1038/s41597-021-00893-z", "https://doi.org/10.5281/zenodo.3384092",
    {"ground_truth": [File(f"{ADDRESS}/{name}?download=1", name.removesuffix(".zip"), md5) for name, md5 in MD5.items()]},
    build)
