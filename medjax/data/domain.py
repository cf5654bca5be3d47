"""What a run's training images were: modality, units, values, voxel size, contrasts. Other scans are compared with it."""

from typing import Any

import numpy as np

from medjax.data.statistics import value_range
from medjax.types import Splits

PERCENTILES = (0.1, 99.9)


def domain_of(splits: Splits) -> dict[str, Any]:
    """The domain of the training images, for a run's config.

    `percentiles` are the 0.1st and 99.9th of their values; `spacing_mm` the smallest and the largest voxel size that they
    have along any axis, () where they have none.
    """
    records = [region.record for region in splits["train"]]
    sizes = [size for record in records for size in record.spacing_mm]
    return {
        "modality": _common({record.modality for record in records}),
        "units": _common({record.units for record in records}),
        "contrasts": records[0].contrasts if len({record.contrasts for record in records}) == 1 else (),
        "percentiles": value_range(splits["train"], PERCENTILES),
        "spacing_mm": (float(np.min(sizes)), float(np.max(sizes))) if sizes else (),
    }


def _common(values: set[str]) -> str:
    """The one value that all have; "" where they differ."""
    return values.pop() if len(values) == 1 else ""
