"""Images whose units are arbitrary, as MR's are, each on a scale of its own: the same in training, evaluation and use."""

from dataclasses import replace

import numpy as np

from medjax.types import Record, Units, UserError, check_choice

HOW = ("none", "volume")
UNITS = "of the 1st to the 99th percentile"
PERCENTILES = (1, 99)
MAX_SIZE = 128  # values along each axis that the percentiles are taken of


def normalised(record: Record, how: str) -> tuple[Record, Units]:
    """The record on the scale that `config.data.normalise` names, and the way back to its own units.

    "volume" puts the 1st percentile of all its values at 0 and the 99th at 1, inside its mask if it has one: a linear map
    of the whole volume or picture, colours together. "none" leaves it. Raises UserError for a record with one value
    everywhere, and for raw data, whose scale is the scanner's.
    """
    check_choice("config.data.normalise", how, HOW)
    if how == "none":
        return record, np.asarray
    measured = sorted({"kspace", "sinogram"} & record.extras.keys())
    if measured:
        raise UserError("config.data.normalise", f"{how}, but {record.id} is a {measured[0]}; leave it at none")
    low, high = _limits(record)
    if not low < high:
        raise UserError(record.id, f"has the value {low:g} everywhere; it can't be normalised, leave it out")
    gain = 1 / (high - low)
    changed = replace(record, slope=record.slope * gain, intercept=(record.intercept - low) * gain, units=UNITS)
    return changed, lambda image: np.asarray(image, np.float32) * np.float32(high - low) + np.float32(low)


def _limits(record: Record) -> tuple[float, float]:
    """The percentiles; of an image that is nearly empty, whose percentiles are one value, its least and greatest value."""
    grid = tuple(slice(None, None, -(-size // MAX_SIZE)) for size in record.image.shape[:-1])
    values = record.in_units(grid)
    if "mask" in record.extras and record.extras["mask"][grid].any():
        values = values[record.extras["mask"][grid][..., 0]]
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    if low < high:
        return low, high
    whole = record.in_units()
    return float(whole.min()), float(whole.max())
