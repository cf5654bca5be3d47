"""How much of a task is done, told as its parts go by: the studies of a job, their records, slices and tiles."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Progress:
    """The share that is done, 0 … 1, over parts of equal weight that have parts themselves.

    Whoever works through the parts goes through `parts`; whoever is to hear of it gives `restart` a function.
    """

    def __init__(self) -> None:
        self.restart(lambda share: None)

    def restart(self, tell: Callable[[float], None]) -> None:
        """Begins at 0; `tell` gets the share after each part, and what it raises ends the work."""
        self._tell, self._low, self._high = tell, 0.0, 1.0

    def parts(self, items: Sequence[T]) -> Iterator[T]:
        """The items in turn, each a part of what is being worked on."""
        low, high = self._low, self._high
        for number, item in enumerate(items):
            self._low, self._high = (low + (high - low) * (number + ahead) / len(items) for ahead in (0, 1))
            yield item
            self._tell(self._high)
        self._low, self._high = low, high
