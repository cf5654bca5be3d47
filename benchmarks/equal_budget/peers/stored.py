"""The pairs that a peer trains on and is tested on, read from their files."""

import time
from pathlib import Path
from typing import Any

import numpy as np


class Pairs:
    """Arrays `(rows, *space, C)` by name, in the order of training: batch n is the rows from `n * batch_size` on."""

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.settings = settings
        self._arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
        self._began: list[float] = []

    def __len__(self) -> int:
        return len(self._arrays["input"])

    def __getitem__(self, name: str) -> np.ndarray:
        """A whole array."""
        return self._arrays[name]

    def row(self, index: int, *names: str) -> list[np.ndarray]:
        """One sample's arrays, channels first, in memory of their own; the first of a batch is noted as its beginning."""
        if index % self.settings["batch_size"] == 0:
            self._began.append(time.perf_counter())
        return [np.array(np.moveaxis(self._arrays[name][index], -1, 0), order="C") for name in names]

    def step_seconds(self) -> float:
        """The median time from one batch to the next, where `row` was read in order."""
        return float(np.median(np.diff(self._began))) if len(self._began) > 1 else float("nan")
