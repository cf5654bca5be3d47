"""How well regions are found: overlap and distance, per sample."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from medjax.types import Array, Metric

DICE = Metric("dice", "Dice", decimals=4)
IOU = Metric("iou", "IoU", decimals=4)
MCC = Metric("mcc", "Matthews correlation", decimals=4)
HAUSDORFF95 = Metric("hausdorff95", "95 % Hausdorff distance", "{length}", lower_is_better=True)

Regions = Bool[Array, "b *space k"]
PerRegion = Float[Array, "b k"]


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


def hausdorff95(pred: Regions, target: Regions, spacing_mm: Float[Array, "b n"]) -> PerRegion:
    """The 95th percentile, in mm, of the distances from either region's surface voxels to the other's, both ways.

    A surface voxel has a neighbour across a face, or the image's side, outside the region. NaN where a region is empty.
    """
    def one(pred: Array, target: Array, spacing: Array) -> Array:
        p, t = surface(pred), surface(target)
        distances = jnp.stack([distance(t, spacing), distance(p, spacing)])
        known = jnp.where(jnp.stack([p, t]), distances, jnp.nan)
        value = jnp.nanpercentile(known, 95)
        return jnp.where(p.any() & t.any(), value, jnp.nan)

    each_region = jax.vmap(one, (-1, -1, None))
    return jax.lax.map(lambda sample: each_region(*sample), (pred, target, spacing_mm))


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
