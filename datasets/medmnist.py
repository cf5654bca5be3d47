"""MedMNIST: small medical images with classes (Yang et al., Sci Data 10, 2023), `.npz` files as they are given out.

CC BY 4.0 (DermaMNIST: CC BY-NC 4.0), https://medmnist.com
"""

import shlex
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.storage.builder import Builder, Item
from medjax.data.storage.download import File, PublicSet
from medjax.data.values import one_line
from medjax.types import Record, UserError

ADDRESS = "https://zenodo.org/records/10519652/files"
MD5 = {  # as in medmnist 3.0.2, medmnist/info.py; the number is the side in pixels, 28 without one
    "pathmnist": "a8b06965200029087d5bd730944a56c1", "pathmnist_64": "55aa9c1e0525abe5a6b9d8343a507616",
    "pathmnist_128": "ac42d08fb904d92c244187169d1fd1d9", "pathmnist_224": "2c51a510bcdc9cf8ddb2af93af1eadec",
    "chestmnist": "02c8a6516a18b556561a56cbdd36c4a8", "chestmnist_64": "9de6cd0b934ebb5b7426cfba5efbae16",
    "chestmnist_128": "db107e5590b27930b62dbaf558aebee3", "chestmnist_224": "45bd33e6f06c3e8cdb481c74a89152aa",
    "dermamnist": "0744692d530f8e62ec473284d019b0c7", "dermamnist_64": "b70a2f5635c6199aeaa28c31d7202e1f",
    "dermamnist_128": "2defd784463fa5243564e855ed717de1", "dermamnist_224": "8974907d8e169bef5f5b96bc506ae45d",
    "octmnist": "c68d92d5b585d8d81f7112f81e2d0842", "octmnist_64": "e229e9440236b774d9f0dfef9d07bdaf",
    "octmnist_128": "0a97e76651ace45c5d943ee3f65b63ae", "octmnist_224": "abc493b6d529d5de7569faaef2773ba3",
    "pneumoniamnist": "28209eda62fecd6e6a2d98b1501bb15f", "pneumoniamnist_64": "8f4eceb4ccffa70c672198ea285246c6",
    "pneumoniamnist_128": "05b46931834c231683c68f40c47b2971", "pneumoniamnist_224": "d6a3c71de1b945ea11211b03746c1fe1",
    "retinamnist": "bd4c0672f1bba3e3a89f0e4e876791e4", "retinamnist_64": "afda852cc34dcda56f86ad2b2457dbcc",
    "retinamnist_128": "e48e916a24454daf90583d4e6efb1a18", "retinamnist_224": "eae7e3b6f3fcbda4ae613ebdcbe35348",
    "breastmnist": "750601b1f35ba3300ea97c75c52ff8f6", "breastmnist_64": "742edef2a1fd1524b2efff4bd7ba9364",
    "breastmnist_128": "363e4b3f8d712e9b5de15470a2aaadf1", "breastmnist_224": "b56378a6eefa9fed602bb16d192d4c8b",
    "bloodmnist": "7053d0359d879ad8a5505303e11de1dc", "bloodmnist_64": "2b94928a2ae4916078ca51e05b6b800b",
    "bloodmnist_128": "adace1e0ed228fccda1f39692059dd4c", "bloodmnist_224": "b718ff6835fcbdb22ba9eacccd7b2601",
    "tissuemnist": "ebe78ee8b05294063de985d821c1c34b", "tissuemnist_64": "123ece2eba09d0aa5d698fda57103344",
    "tissuemnist_128": "61b955355d7425a89687b06cca3ce0c2", "tissuemnist_224": "b077128c4a949f0a4eb01517f9037b9c",
    "organamnist": "68e3f8846a6bd62f0c9bf841c0d9eacc", "organamnist_64": "2dcccc29b88e6da5a01161ef20cda288",
    "organamnist_128": "eeae80d0a227a8d099027e1b3cfd3b60", "organamnist_224": "50747347e05c87dd3aaf92c49f9f3170",
    "organcmnist": "b9ceb9546e10131b32923c5bbeaea2b1", "organcmnist_64": "3ce34a8724ea6f548e6db4744d03b6a9",
    "organcmnist_128": "773c1f009daa3fe5d9a2a201b2a7ed94", "organcmnist_224": "050f5e875dc056f6768abf94ec9995d1",
    "organsmnist": "9ab87b696fb54e2a387ebe992d6ed5f1", "organsmnist_64": "53a6d115339d874c25e309a994ff46d3",
    "organsmnist_128": "ded0c5fa01a95dc4978b956f613e9b8e", "organsmnist_224": "b354719e553fbbb2513d5533f52a4cb1",
    "organmnist3d": "a0c5a1ff56af4f155c46d46fbb45a2fe", "organmnist3d_64": "58a2205adf14a9d0a189cb06dc78bf10",
    "nodulemnist3d": "8755a7e9e05a4d9ce80a24c3e7a256f3", "nodulemnist3d_64": "c47c5b7d457bf6332200d2ea6d64ecd8",
    "adrenalmnist3d": "bbd3c5a5576322bc4cdfea780653b1ce", "adrenalmnist3d_64": "17721accfe9fb005146a47d33bc54b2f",
    "fracturemnist3d": "6aa7b0143a6b42da40027a9dda61302f", "fracturemnist3d_64": "f01d7e6316aedf4210da0da5b7437b42",
    "vesselmnist3d": "b41fd4f7e7e2feedddb201585ecafa1b", "vesselmnist3d_64": "6bb274a8846e1097066dcd64e2c4520f",
    "synapsemnist3d": "1235b78a3cd6280881dd7850a78eadb6", "synapsemnist3d_64": "43bd14ebf3af9d3dd072446fedc14d5e",
}
PARTS = ("train", "val", "test")
TOGETHER = 1000  # images of an item


class Medmnist(Builder):
    """Images of one `.npz` file, 2-D or 3-D, grey or colour, in the splits that their makers gave them.

    extras["class"] is the index of the class, or `(K,)` of 0 and 1 where an image may have several; the files don't say
    what the classes are called. Nor do they say whose an image is: each counts as a subject.
    """

    name = "medmnist"
    nobody = True
    config = "configs/xray_classify.py:source=labelled"
    licence = "CC BY 4.0"

    def __init__(self, **common: Any):
        file = Path(common.get("source", "")).expanduser()
        if file.suffix != ".npz" or not file.is_file():
            raise UserError(file, "is no .npz file; give one of MedMNIST's, such as pathmnist.npz")
        labels = _array(file, "train_labels").reshape(len(_array(file, "train_labels")), -1)
        count = labels.shape[1] if labels.shape[1] > 1 else int(labels.max()) + 1
        self.classes = tuple(str(number) for number in range(count))
        super().__init__(**common)

    def list_items(self) -> list[Item]:
        file = self.source
        size = file.stat().st_size
        starts = [(part, start) for part in PARTS for start in range(0, len(_array(file, f"{part}_labels")), TOGETHER)]
        return [Item(name, "", (file, part, start), size // len(starts), ((file.name, size),), part)
                for part, start in starts for name in [f"{file.stem}-{part}-{start:06d}"]]

    def records(self, item: Item) -> list[Record]:
        file, part, start = item.what
        images, labels = _array(file, f"{part}_images"), _array(file, f"{part}_labels")
        if images.ndim == 3 or images.shape[-1] != 3:  # grey, 2-D or 3-D
            images = images[..., None]
        if len(images) != len(labels) or images.ndim not in (4, 5):
            raise UserError(file, f"has {part}_images of the shape {images.shape} for {len(labels)} labels")
        labels = labels.reshape(len(labels), -1).astype(np.int32)
        labels = labels[:, 0] if labels.shape[1] == 1 else labels
        numbers = range(start, min(start + TOGETHER, len(images)))
        names = [f"{file.stem}-{part}-{number:06d}" for number in numbers]
        return [Record(images[number], name, name, extras={"class": labels[number]})
                for number, name in zip(numbers, names, strict=True)]


@lru_cache(2)
def _array(file: Path, name: str) -> np.ndarray:
    try:
        with np.load(file) as stored:
            if name not in stored:
                raise UserError(file, f"has no array {name}, only {', '.join(stored) or 'none'}; give a file of MedMNIST")
            return stored[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(file, f"damaged, or no .npz file: {one_line(error)}") from error


def build(folder: Path, subset: str) -> str:
    """Each set into shards of its own."""
    return (f"python -m medjax.build medmnist --from={shlex.quote(str(folder / f'{subset}.npz'))} "
            f"--to={shlex.quote(str(folder.parent / subset))}")


DOWNLOAD = PublicSet(
    "MedMNIST v2", "CC BY 4.0 (DermaMNIST: CC BY-NC 4.0)",
    "Yang et al., MedMNIST v2, a large-scale lightweight benchmark for 2D and 3D biomedical image classification, Sci Data "
    "10, 41, 2023, doi 10.1038/s41597-022-01721-8, and the source of each subset that the home page names", "https://medmnist.com",
    {name: [File(f"{ADDRESS}/{name}.npz?download=1", f"{name}.npz", md5)] for name, md5 in MD5.items()}, build)
