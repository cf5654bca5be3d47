"""Clocks: contestants take turns in blocks, so that a machine that slows down slows them all."""

import time
from collections.abc import Callable, Sequence

import numpy as np

Contestant = Callable[[int], list[float]]
"""Runs so many steps and returns the milliseconds of each; before the first it runs one that does not count."""


def clock(step: Callable[[], object]) -> Contestant:
    """A contestant out of `step`, which returns when its work is done."""
    def run(steps: int) -> list[float]:
        step()
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - start))
        return times

    return run


def alternate(contestants: Sequence[Contestant], seconds: float, block_ms: float = 600,
              look: int = 2) -> list[np.ndarray]:
    """Milliseconds per step of each contestant, `(rounds, steps)`, a turn about `block_ms`.

    All together take about `seconds`, but at least 3 rounds; how many steps make a turn follows from the first `look`.
    """
    first = [float(np.mean(run(look))) for run in contestants]
    block_ms = min(block_ms, 1e3 * seconds / 3 / len(first))
    steps = [int(np.clip(block_ms // ms, 2, 2000)) for ms in first]
    round_ms = sum((n + 1) * ms for n, ms in zip(steps, first, strict=True))
    rounds = int(np.clip(1e3 * seconds / round_ms, 3, 50))
    times = [[run(n) for run, n in zip(contestants, steps, strict=True)] for _ in range(rounds)]
    return [np.array(own) for own in zip(*times, strict=True)]


def spread(times: np.ndarray) -> float:
    """The distance between the quartiles."""
    low, high = np.percentile(times, (25, 75))
    return float(high - low)
