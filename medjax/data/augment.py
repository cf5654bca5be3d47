"""Augmentation on the device, inside the jitted step: one linear warp and one intensity curve per sample."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from medjax.types import Array, Batch, Key, UserError

MEASURED = {"kspace", "sinogram"}


@dataclass(frozen=True)
class Augment:
    """How much images may change; all off by default. Each sample draws its own, keyed by its id.

    `flip`: probability to mirror each spatial axis. `rotate`: largest angle in degrees, about every axis (one in 2-D).
    `shear`: largest tangent. `zoom`: 0.1 draws magnifications from 1/1.1 to 1.1. `scale`, `shift`: intensities times
    1 ± `scale`, plus ± `shift` of the image's own range. `contrast`: 0.2 draws gammas from 1/1.2 to 1.2, over the
    image's own range. Angles and shears are of the voxel grid. Raises UserError for strengths that make no sense.
    """

    flip: float = 0.0
    rotate: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (name in ("flip", "scale") and value > 1):
                raise UserError(f"config.augment.{name}", f"{value}; give 0 or more, for flip and scale at most 1")

    @property
    def warps(self) -> bool:
        return self.rotate > 0 or self.shear > 0 or self.zoom > 0

    def __call__(self, key: Key, batch: Batch) -> Batch:
        """The batch with its images changed, now float32 in physical units; masks and labels follow, 0 outside."""
        if not any(vars(self).values()):
            return batch
        if batch.keys() & MEASURED:
            raise UserError("config.augment", "what was measured can't be changed like an image; leave augmentation out for "
                            "k-space and sinograms")
        row = (slice(None),) + (None,) * (batch["image"].ndim - 1)
        units = batch["image"].astype(jnp.float32) * batch["slope"][row] + batch["intercept"][row]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["id"])
        fields = [name for name, value in batch.items() if name != "image" and value.shape[:-1] == units.shape[:-1]]
        return {**batch, **{name: jax.vmap(self._field)(keys, batch[name]) for name in fields},
                "image": jax.vmap(self._image)(keys, units),
                "slope": jnp.ones_like(batch["slope"]), "intercept": jnp.zeros_like(batch["intercept"])}

    def _image(self, key: Key, image: Array) -> Array:
        """One image `(*space, C)`."""
        place_key, value_key = jax.random.split(key)
        return self._values(value_key, self._placed(place_key, image, order=1, mode="nearest"))

    def _field(self, key: Key, field: Array) -> Array:
        """What lies on the image's grid, `(*space, C)`: labels keep their values."""
        place_key, _ = jax.random.split(key)
        exact = not jnp.issubdtype(field.dtype, jnp.floating)
        moved = self._placed(place_key, field.astype(jnp.float32), order=0 if exact else 1, mode="constant")
        return (moved if not exact else jnp.rint(moved)).astype(field.dtype)

    def _placed(self, key: Key, image: Array, order: int, mode: str) -> Array:
        ndim = image.ndim - 1
        flip_key, warp_key = jax.random.split(key)
        if self.flip:
            for axis, mirrored in enumerate(jax.random.bernoulli(flip_key, self.flip, (ndim,))):
                image = jnp.where(mirrored, jnp.flip(image, axis), image)
        if not self.warps:
            return image
        centre = jnp.array([(n - 1) / 2 for n in image.shape[:-1]], jnp.float32).reshape((1,) * ndim + (ndim,))
        grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in image.shape[:-1]), indexing="ij"), -1)
        places = _product(grid - centre, self.matrix(warp_key, ndim).T) + centre
        axes = list(jnp.moveaxis(places, -1, 0))
        return jax.vmap(lambda channel: map_coordinates(channel, axes, order, mode), -1, -1)(image)

    def matrix(self, key: Key, ndim: int) -> Array:
        """A random `(ndim, ndim)` map from places in the new image to places in the old one, about the centre."""
        turn_key, shear_key, zoom_key = jax.random.split(key, 3)
        matrix = jnp.eye(ndim)
        planes = [(i, j) for i in range(ndim) for j in range(i + 1, ndim)]
        for (i, j), angle in zip(planes, _even(turn_key, jnp.deg2rad(self.rotate), (len(planes),)), strict=True):
            here = np.eye(ndim)[[i, j]]
            swap = np.outer(here[1], here[0]) - np.outer(here[0], here[1])
            turn = jnp.eye(ndim) + (jnp.cos(angle) - 1) * (here.T @ here) + jnp.sin(angle) * swap
            matrix = _product(matrix, turn)
        shears = _even(shear_key, self.shear, (ndim, ndim)) * (1 - jnp.eye(ndim))
        magnified = jnp.exp(_even(zoom_key, jnp.log1p(self.zoom), ()))
        return _product(matrix, jnp.eye(ndim) + shears) / magnified

    def _values(self, key: Key, image: Array) -> Array:
        scale_key, shift_key, contrast_key = jax.random.split(key, 3)
        low, high = image.min(), image.max()
        if self.contrast:
            gamma = jnp.exp(_even(contrast_key, jnp.log1p(self.contrast), ()))
            span = jnp.maximum(high - low, jnp.finfo(jnp.float32).tiny)
            image = ((image - low) / span) ** gamma * span + low
        return image * (1 + _even(scale_key, self.scale, ())) + _even(shift_key, self.shift, ()) * (high - low)


def _product(a: Array, b: Array) -> Array:
    """Of coordinates: in the default precision of accelerators places would be off by a voxel in 500."""
    return jnp.matmul(a, b, precision="highest")


def _even(key: Key, bound: float | Array, shape: tuple[int, ...]) -> Array:
    """Uniform between -bound and bound."""
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) * bound
