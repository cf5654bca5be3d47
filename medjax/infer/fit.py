"""Whether a scan fits a trained run: its modality, units, voxel size and values, compared with the training images'."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from medjax.data.domain import PERCENTILES
from medjax.train.run import Config
from medjax.types import Record, Units, UserError

RESCALE = ("none", "percentile", "range")
CHECKS = ("modality", "units", "spacing", "values")
COARSER = 2.0  # a voxel may be so many times larger or smaller than any of training
BEYOND = 0.5  # of the training images' range, by which values may lie outside it
LEAST = 0.02  # of it, that values must reach into it


def fitted(config: Config, record: Record, rescale: str = "none", accept: Collection[str] = ()) -> tuple[Record, Units]:
    """The record as the run takes it, and the way back from the run's units to the record's.

    `rescale` maps the record's values linearly: "percentile" its 0.1st and 99.9th percentile to those of the training
    images, "range" its least and greatest value to the run's data range. Raises UserError that names both where
    modality, units, voxel size or values differ and are not among `accept`.
    """
    domain = config.data.domain
    measured = bool(record.extras.keys() & {"kspace", "sinogram"})  # its image is only a first look at it
    for name in ("modality",) if measured else ("modality", "units"):
        here, there = getattr(record, name), domain[name]
        if name not in accept and here and there and here != there and not (name == "units" and rescale != "none"):
            raise UserError(record.id, f"its {name} is {here}, and the model was trained on {there}; use another model, or "
                            f"--accept={name}")
    if "spacing" not in accept:
        _check_spacing(record, tuple(domain.spacing_mm))
    if "sinogram" in record.extras:  # attenuation has one scale
        return record, np.asarray
    if rescale == "none":
        if "values" not in accept:
            _check_values(record, tuple(domain.percentiles))
        return record, np.asarray
    values = record.in_units()
    source = tuple(np.percentile(values, PERCENTILES)) if rescale == "percentile" else (values.min(), values.max())
    target = tuple(domain.percentiles) if rescale == "percentile" else tuple(config.data.range)
    if not source[0] < source[1]:
        raise UserError(record.id, "has one value everywhere; there is nothing to rescale")
    if "kspace" in record.extras:  # its scale is the scanner's; zero is zero
        gain = target[1] / source[1]
        scaled = {"kspace": record.extras["kspace"] * np.float32(gain)}
        changed = replace(record, slope=record.slope * gain, extras=record.extras | scaled)
        return changed, lambda image: image / np.float32(gain)
    gain = (target[1] - target[0]) / (source[1] - source[0])
    shift = target[0] - gain * source[0]
    changed = replace(record, slope=record.slope * gain, intercept=record.intercept * gain + shift)
    return changed, lambda image: (image - np.float32(shift)) / np.float32(gain)


def _check_spacing(record: Record, known: tuple[float, ...]) -> None:
    if not known or not record.spacing_mm:
        return
    low, high = min(record.spacing_mm), max(record.spacing_mm)
    if low * COARSER < known[0] or high > known[1] * COARSER:
        sizes, trained = (" x ".join(f"{s:.3g}" for s in values) for values in (record.spacing_mm, sorted(set(known))))
        raise UserError(record.id, f"its voxels are {sizes} mm, and the model was trained on {trained} mm; resample it, or "
                        "--accept=spacing")


def _check_values(record: Record, known: tuple[float, ...]) -> None:
    low, high = np.percentile(record.in_units((..., slice(None, None, 4), slice(None))), PERCENTILES)
    width = known[1] - known[0]
    if high > known[1] + BEYOND * width or low < known[0] - BEYOND * width or high < known[0] + LEAST * width:
        raise UserError(record.id, f"its values are {low:.4g} … {high:.4g}, and the model was trained on {known[0]:.4g} … "
                        f"{known[1]:.4g}; map them with --rescale=percentile or --rescale=range, or --accept=values")
