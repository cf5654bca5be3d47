"""MedMNIST: small medical images with classes (Yang et al., Sci Data 10, 2023), `.npz` files as they are given out.

CC BY 4.0 (DermaMNIST: CC BY-NC 4.0), https://medmnist.com
"""

import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.storage.builder import Builder, Item
from medjax.data.values import one_line
from medjax.types import Record, UserError

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
