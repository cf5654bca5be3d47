"""A volume from one or few of its projections, as radiographs see them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from medjax.physics.noise import Gaussian
from medjax.physics.projections import Projections
from medjax.tasks._restoration import Restoration
from medjax.types import (
    Array,
    Batch,
    Key,
    NetworkInput,
    Output,
    Port,
    Prediction,
    Record,
    Reference,
    UserError,
)

ITERATIONS = 30


@dataclass(frozen=True)
class Volume(Restoration):
    """Volumes from `views` parallel projections around the long axis, with Gaussian noise of `sigma` times the range.

    It is applied to projections (the mean along the rays) `(D, W, views)`: the channels of an image, the frames of a file,
    or the slices of a volume; planes are taken to be square. The simulation projects by the operator that SIRT inverts, on
    the same grid: SIRT is scored better than it would be of radiographs.
    """

    views: int = 2
    sigma: float = 0.0

    keeps_format = False
    tileable = False

    def __post_init__(self) -> None:
        if self.ndim != 3:
            raise UserError("config.data.ndim", "volumes come from projections of volumes; set it to 3")
        if not 1 <= self.views <= 32 or self.sigma < 0:
            raise UserError("config.task.views", f"{self.views} views with sigma={self.sigma}; give 1 to 32 and at least 0")

    @property
    def flip_axes(self) -> tuple[int, ...]:
        """None: projections have other axes than volumes."""
        return ()

    @property
    def input_ndim(self) -> int:
        """Projections are 2-D."""
        return 2

    @property
    def operator(self) -> Projections:
        """Volumes to projections."""
        return Projections(self.views)

    def simulate(self, key: Key, batch: Batch, clean: Array) -> Batch:
        """Projections."""
        seen = self.operator(clean)
        if self.sigma:
            seen = self.per_sample(key, batch, Gaussian(self.sigma), seen)
        return {**self.with_image(batch, seen), "grid": clean[..., :0]}

    def input(self, batch: Batch) -> NetworkInput:
        """Projections `(B, D, W, views)`; the context `(B, D, H, W, 0)` is the grid to fill."""
        seen, _ = self.unit(batch)
        if seen.shape[-1] != self.views:
            raise UserError("config.task.views", f"the model takes {self.views} projections and the image has "
                            f"{seen.shape[-1]} channels; give (D, W, {self.views})")
        depth, width = seen.shape[1:3]
        return NetworkInput(seen, batch.get("grid", jnp.zeros((seen.shape[0], depth, width, width, 0))))

    def references(self) -> dict[str, Reference]:
        """The projections smeared back, and SIRT; planes are taken to be square."""
        return super().references() | {"sirt": Reference(lambda example, _: _sirt(self.operator, example.input.image))}

    def on_target_grid(self, image: Array) -> Array:
        """The projections smeared back along their rays."""
        return self.operator.backproject(jnp.asarray(image), image.shape[2])

    def arrange(self, records: Sequence[Record]) -> list[Record]:
        """The projections of a study as the channels of one image."""
        first = records[0]
        if len(records) > 1 and all(r.image.shape == (*first.image.shape[:2], 1) for r in records):
            return [replace(first, image=np.concatenate([r.in_units() for r in records], -1), slope=1.0, intercept=0.0)]
        if first.ndim == 3 and first.image.shape[::3] == (self.views, 1):
            return [replace(r, image=np.moveaxis(np.asarray(r.image)[..., 0], 0, -1), spacing_mm=r.spacing_mm[1:],
                            affine=None, extras={}) for r in records]
        return list(records)

    def exported_inputs(self, channels: int, size: Sequence[int | str]) -> tuple[Port, ...]:
        """The projections, as channels."""
        return (Port("image", (*size, self.views), "parallel projections (means along the rays) around the first axis",
                     "{units}", (), self._random_image),)

    def exported_output(self, channels: int) -> Port:
        """The volume."""
        return Port("volume", (), "volume (D, H, W, C) in physical units", "{units}", as_input=True)

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The volume."""
        return self.nifti_outputs(predictions, records)


@partial(jax.jit, static_argnums=0)
def _sirt(operator: Projections, y: Array) -> Array:
    """Simultaneous iterative reconstruction (Gilbert, 1972) of volumes that are nowhere negative."""
    def better(_: int, x: Array) -> Array:
        return jnp.maximum(x + operator.backproject(y - operator(x), y.shape[2]), 0)

    return jax.lax.fori_loop(0, ITERATIONS, better, operator.backproject(y, y.shape[2]))

