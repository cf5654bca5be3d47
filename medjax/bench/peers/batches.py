"""Readers of patches that work ahead, and the time each batch takes."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor

DRAIN = 8  # batches that may lie ready from an earlier turn


class Reader:
    """The faster of no worker and one per core; `make(workers)` gives a loader, which is started again at its end.

    Its batches must have `shape`. Raises ValueError.
    """

    def __init__(self, make: Callable[[int], Iterable[Tensor]], shape: Sequence[int]):
        self._shape = tuple(shape)
        readers = {workers: _endless(make(workers)) for workers in (0, len(os.sched_getaffinity(0)))}
        seconds = {workers: sum(self._times(batches, 2 * DRAIN)) for workers, batches in readers.items()}
        self.workers = min(seconds, key=seconds.__getitem__)
        self._batches = readers[self.workers]

    def run(self, steps: int) -> list[float]:
        """Milliseconds of each of `steps` batches."""
        return self._times(self._batches, DRAIN + steps)[DRAIN:]

    def _times(self, batches: Iterator[Tensor], steps: int) -> list[float]:
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            batch = next(batches)
            times.append(1e3 * (time.perf_counter() - start))
            if batch.shape != self._shape:
                raise ValueError(f"a batch of {tuple(batch.shape)}, where {self._shape} was asked for")
        return times


def _endless(loader: Iterable[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from loader
