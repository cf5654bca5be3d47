"""What the user gave and is wrong, in one line; and the checks of choices and bounds that many config keys share."""

from collections.abc import Iterable, Sequence
from math import inf, isfinite


class UserError(Exception):
    """Something the user gave is wrong; `where` is the file or key. Commands print it as one line, exit code 2."""

    def __init__(self, where: object, problem: str):
        super().__init__(str(where), problem)  # both are kept, so that it can be sent from a process to another

    def __str__(self) -> str:
        return ": ".join(self.args)


class DivergedError(UserError):
    """A training run whose loss is no longer finite."""


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Raises UserError where `value` is none of `choices`."""
    choices = tuple(choices)
    if value not in choices:
        raise UserError(key, f"unknown {value!r}; choose from {', '.join(choices)}")


def check_bounds(key: str, bounds: Sequence[float], most: float = inf) -> None:
    """Raises UserError where `bounds` is no pair with 0 < low <= high <= `most`."""
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= most:
        limit = f" <= {most:g}" if isfinite(most) else ""
        raise UserError(key, f"{tuple(bounds)} is not a pair of bounds 0 < low <= high{limit}")
