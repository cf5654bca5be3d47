"""What is known of a record without its voxels, as JSON: small arrays as they are, the others by the place they lie in."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from medjax.data.storage.mapped import Stored
from medjax.types import Record

SMALL = 16
Place = dict[str, Any]


def entry(record: Record, place: Callable[[str, np.ndarray | Stored], Place]) -> dict[str, Any]:
    """A record for JSON; `place` says of an array, by name, where it is to be found. Vectors are small, however long."""
    def put(name: str, array: np.ndarray | Stored) -> Place:
        if array.ndim <= 1 or 0 < array.size <= SMALL:
            values = np.asarray(array)
            return {"values": values.tolist(), "code": values.dtype.str}
        return place(name, array)

    return {
        "id": record.id, "subject": record.subject, "modality": record.modality, "units": record.units,
        "contrasts": list(record.contrasts), "slope": record.slope, "intercept": record.intercept,
        "spacing_mm": list(record.spacing_mm), "affine": None if record.affine is None else record.affine.tolist(),
        "image": put("image", record.image),
        "extras": {name: put(name, array) for name, array in record.extras.items()},
    }


def record(entry: dict[str, Any], find: Callable[[str, Place], Stored]) -> Record:
    """The record of an entry; `find` gives the array in a place. Raises KeyError and the like for a damaged entry."""
    def get(name: str, place: Place) -> np.ndarray:
        if "values" in place:
            return np.array(place["values"], place["code"])
        return cast(np.ndarray, find(name, place))  # indexed, it is one; read only where it is looked at

    return Record(
        image=get("image", entry["image"]), id=entry["id"], subject=entry["subject"], slope=entry["slope"],
        intercept=entry["intercept"], spacing_mm=tuple(entry["spacing_mm"]),
        affine=None if entry["affine"] is None else np.array(entry["affine"]), modality=entry["modality"],
        units=entry.get("units", ""), contrasts=tuple(entry.get("contrasts", ())),  # indices of older sets lack them
        extras={name: get(name, place) for name, place in entry["extras"].items()})
