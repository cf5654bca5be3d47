"""A data set's number from those of its samples."""

from collections.abc import Sequence

import numpy as np

from medjax.types import Value


def mean_of_numbers(values: Sequence[Value | np.ndarray | np.floating] | np.ndarray) -> float:
    """The mean of what is a number; NaN where nothing is."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if finite.size else float("nan")
