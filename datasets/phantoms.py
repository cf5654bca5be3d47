"""Chests and heads that medjax draws itself: as many as wanted, of any size, no file needed."""

from typing import Any

import numpy as np

from medjax.data.sources import phantoms
from medjax.data.storage.builder import Builder, Item
from medjax.types import Record, UserError


class Phantoms(Builder):
    """Random phantoms of a chest (HU) or a head (0..1000), int16, each a subject (`medjax.data.phantom`)."""

    name = "phantoms"
    nobody = True
    masked = True
    licence = "Apache-2.0"
    config = "configs/ct_lowdose.py"

    def __init__(self, *, kind: str = "chest", shape: tuple[int, ...] = (64, 128, 128), count: int = 64, seed: int = 0,
                 **common: Any):
        self.phantoms = phantoms.Phantoms(kind, tuple(shape), count, seed)
        self.phantoms.check()
        if common.get("source"):
            raise UserError("--from", "phantoms are drawn; leave it out")
        super().__init__(**common)

    def list_items(self) -> list[Item]:
        names = [self.phantoms.name(index) for index in range(self.phantoms.count)]
        size = 2 * int(np.prod(self.phantoms.shape))
        return [Item(name, name, index, size) for index, name in enumerate(names)]

    def records(self, item: Item) -> list[Record]:
        return [self.phantoms.record(item.what)]
