"""How networks learn a task."""

from medjax.objectives._players import initial, trained, used, weighted
from medjax.objectives._single import Single

__all__ = ["Single", "initial", "trained", "used", "weighted"]
