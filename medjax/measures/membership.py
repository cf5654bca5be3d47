"""How well it can be told from a network's results whom it was trained on: membership inference.

The attacker knows a score of each person, higher for those whom the network does better on, and calls a member who is above
a threshold (Yeom et al., CSF 2018). With the score of the same images by another method taken off, easy images are not taken
for members (Watson et al., ICLR 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medjax.measures.classification import auroc
from medjax.measures.statistics import LEVEL

RATES = (0.1, 0.01)  # false positive rates at which members are counted
DRAWS = 2000


@dataclass(frozen=True)
class Attack:
    """The chance that a member outranks another person, and the share of members found at false positive `RATES`.

    Each with its bootstrap interval over people; None for a rate below one of the `others`, where nothing can be said.
    """

    auc: tuple[float, float, float]
    found: dict[float, tuple[float, float, float] | None]
    members: int
    others: int

    @property
    def numbers(self) -> dict[str, object]:
        """As JSON has them."""
        def interval(values: tuple[float, float, float] | None) -> dict[str, float] | None:
            return None if values is None else dict(zip(("value", "low", "high"), values, strict=True))

        return {"auc": interval(self.auc), "members": self.members, "others": self.others,
                "found": {f"{rate:g}": interval(values) for rate, values in self.found.items()}}


def attack(members: Sequence[float] | np.ndarray, others: Sequence[float] | np.ndarray) -> Attack:
    """The attack by one score of each person, `(N,)` and `(M,)`, two of either at least; who has none is left out.

    A threshold is the least score above which at most the false positive rate of the others lies, so ties are no finds.
    """
    one, other = (np.asarray(values, float)[np.isfinite(values)] for values in (members, others))
    if min(len(one), len(other)) < 2:
        raise ValueError("give the scores of two people of either kind at least")
    random = np.random.default_rng(0)
    draws = [(np.arange(len(one)), np.arange(len(other)))] + [
        (random.integers(len(one), size=len(one)), random.integers(len(other), size=len(other))) for _ in range(DRAWS)]
    truth = np.arange(len(one) + len(other)) < len(one)
    aucs = np.array([auroc(np.concatenate([one[a], other[b]]), truth) for a, b in draws])
    found: dict[float, tuple[float, float, float] | None] = dict.fromkeys(RATES)
    for rate in RATES:
        if rate * len(other) >= 1:
            found[rate] = _interval(np.array([_found(one[a], other[b], rate) for a, b in draws]))
    return Attack(_interval(aucs), found, len(one), len(other))


def _found(members: np.ndarray, others: np.ndarray, rate: float) -> float:
    """The share of members above the threshold of a false positive rate."""
    allowed = int(rate * len(others) + 1e-9)
    return float((members > np.sort(others)[len(others) - 1 - allowed]).mean())


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """The first value, and the percentiles of the others."""
    low, high = np.percentile(values[1:], [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(values[0]), float(low), float(high)
