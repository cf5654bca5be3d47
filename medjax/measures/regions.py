"""How well regions are found: overlap and distance, per sample."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from medjax.types import Array, Metric

DICE = Metric("dice", "Dice", decimals=4)
IOU = Metric("iou", "IoU", decimals=4)
MCC = Metric("mcc", "Matthews correlation", decimals=4)
OF_REGIONS = {metric.name: metric for metric in (
    DICE, IOU, Metric("hausdorff95", "95 % Hausdorff distance", "{length}", lower_is_better=True),
    Metric("hausdorff", "Hausdorff distance", "{length}", lower_is_better=True),
    Metric("surface_distance", "average surface distance", "{length}", lower_is_better=True),
    Metric("surface_dice", "surface Dice", decimals=4))}
"""What `measured` has, by name."""

Regions = Bool[Array, "b *space k"]
PerRegion = Float[Array, "b k"]
Apart = Float[Array, "b 2 *space k"]


def measured(names: Sequence[str], pred: Regions, target: Regions, spacing_mm: Float[Array, "b n"],
             tolerance_mm: float) -> dict[str, PerRegion]:
    """Those of `OF_REGIONS` that are named, of each region; `tolerance_mm` is that of `surface_dice`."""
    found = {}
    if {"dice", "iou"} & set(names):
        found["dice"], found["iou"] = overlap(pred, target)
    if set(names) - {"dice", "iou"}:
        apart = distances(pred, target, spacing_mm)
        found |= {"hausdorff": hausdorff(apart), "hausdorff95": hausdorff(apart, 95),
                  "surface_distance": surface_distance(apart), "surface_dice": surface_dice(apart, tolerance_mm)}
    return {name: found[name] for name in names}


def overlap(pred: Regions, target: Regions) -> tuple[PerRegion, PerRegion]:
    """Dice (1945) and Jaccard (1912, IoU) coefficient of each region; NaN where it is in neither."""
    axes = tuple(range(1, pred.ndim - 1))
    both, sizes = (pred & target).sum(axes), pred.sum(axes) + target.sum(axes)
    found = sizes > 0
    return (jnp.where(found, 2 * both / jnp.maximum(sizes, 1), jnp.nan),
            jnp.where(found, both / jnp.maximum(sizes - both, 1), jnp.nan))


def mcc(pred: Regions, target: Regions) -> PerRegion:
    """Matthews' correlation coefficient (1975) of each region: of two binary maps, whatever threshold made them.

    From -1 over 0 (no better than chance) to 1; NaN where one of the two is empty or everywhere.
    """
    axes = tuple(range(1, pred.ndim - 1))
    both, ours, theirs = (found.mean(axes, dtype=jnp.float32) for found in (pred & target, pred, target))
    spread = ours * (1 - ours) * theirs * (1 - theirs)
    return jnp.where(spread > 0, (both - ours * theirs) / jnp.sqrt(jnp.where(spread > 0, spread, 1)), jnp.nan)


def distances(pred: Regions, target: Regions, spacing_mm: Float[Array, "b n"]) -> Apart:
    """In mm, from the surface voxels of `pred` to the nearest of `target` (first) and back (second); NaN elsewhere.

    A surface voxel has a neighbour across a face, or the image's side, outside the region. Infinite where there is no other.
    """
    def one(pred: Array, target: Array, spacing: Array) -> Array:
        p, t = surface(pred), surface(target)
        return jnp.where(jnp.stack([p, t]), jnp.stack([distance(t, spacing), distance(p, spacing)]), jnp.nan)

    each_region = jax.vmap(one, (-1, -1, None), -1)
    return jax.lax.map(lambda sample: each_region(*sample), (pred, target, spacing_mm))


def hausdorff(apart: Apart, percentile: float = 100.0) -> PerRegion:
    """The Hausdorff distance (1914) of each region, or a percentile of the `distances` of both ways taken together, in mm.

    Percentiles are as in MedPy, whose `hd95` is the 95th. NaN where a region is empty.
    """
    value = jnp.nanpercentile(apart, percentile, axis=_but_the_ends(apart))
    return jnp.where(_both(apart), value, jnp.nan)


def surface_distance(apart: Apart) -> PerRegion:
    """The average symmetric surface distance in mm: the mean of the `distances` both ways; NaN where a region is empty."""
    return jnp.where(_both(apart), jnp.nanmean(apart, _but_the_ends(apart)), jnp.nan)


def surface_dice(apart: Apart, tolerance_mm: float) -> PerRegion:
    """The share of both surfaces that is no farther from the other than the tolerance (Nikolov et al., 2021).

    A surface is its voxels, whatever their area. 0 where one of the regions is empty, NaN where both are.
    """
    known, near = (found.sum(_but_the_ends(apart)) for found in (~jnp.isnan(apart), apart <= tolerance_mm))
    return jnp.where(known > 0, near / jnp.maximum(known, 1), jnp.nan)


def _both(apart: Apart) -> Bool[Array, "b k"]:
    """Whether neither region is empty."""
    return (~jnp.isnan(apart)).any(tuple(range(2, apart.ndim - 1))).all(1)


def _but_the_ends(apart: Apart) -> tuple[int, ...]:
    return tuple(range(1, apart.ndim - 1))


def surface(region: Bool[Array, "*space"]) -> Bool[Array, "*space"]:
    """The voxels of a region that have a neighbour across a face, or the image's side, outside it."""
    inner = region
    for axis in range(region.ndim):
        for step in (1, -1):
            shifted = jnp.roll(region, step, axis)
            side = (slice(None),) * axis + (0 if step == 1 else -1,)
            inner &= shifted.at[side].set(False)
    return region & ~inner


def distance(region: Bool[Array, "*space"], spacing_mm: Float[Array, " n"]) -> Float[Array, "*space"]:
    """Exact Euclidean distance in mm from each voxel to the nearest of `region`, an axis at a time (Meijster, 2000)."""
    squared = jnp.where(region, 0.0, jnp.inf)
    for axis in range(region.ndim):
        place = jnp.arange(region.shape[axis]).reshape([-1 if a == axis else 1 for a in range(region.ndim)])

        def nearer(j: Array, best: Array, axis: int = axis, place: Array = place, before: Array = squared) -> Array:
            row = jax.lax.dynamic_slice_in_dim(before, j, 1, axis)
            return jnp.minimum(best, row + jnp.square((place - j) * spacing_mm[axis]))

        squared = jax.lax.fori_loop(0, region.shape[axis], nearer, jnp.full_like(squared, jnp.inf))
    return jnp.sqrt(squared)
