"""A volume from one or few of its projections, as radiographs see them."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from medjax.physics.noise import Gaussian
from medjax.physics.projections import Projections
from medjax.tasks._restoration import Restoration
from medjax.types import Array, Batch, Example, Key, UserError

ITERATIONS = 30


@dataclass(frozen=True)
class Volume(Restoration):
    """Volumes from `views` parallel projections around the long axis, with Gaussian noise of `sigma` times the range."""

    views: int = 2
    sigma: float = 0.0

    def __post_init__(self):
        if self.ndim != 3:
            raise UserError("config.data.ndim", "volumes come from projections of volumes; set it to 3")
        if not 1 <= self.views <= 32 or self.sigma < 0:
            raise UserError("config.task.views", f"{self.views} views with sigma={self.sigma}; give 1 to 32 and at least 0")

    @property
    def operator(self) -> Projections:
        """Volumes to projections."""
        return Projections(self.views)

    def example(self, key: Key, batch: Batch) -> Example:
        """Projections `(B, D, W, views)` to volumes; `context` `(B, D, H, W, 0)` is the grid to fill."""
        volume, mask = self.clean(batch)
        seen = self.operator(volume)
        if self.sigma:
            seen = self.per_sample(key, batch, Gaussian(self.sigma), seen)
        return Example(seen, volume, mask, volume[..., :0])

    def answers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The projections smeared back, and SIRT; planes are taken to be square."""
        return {"input": np.asarray(self.show(x[None])[0]), "sirt": np.asarray(_sirt(self.operator, x[None])[0])}

    def show(self, x: Array) -> Array:
        """The projections smeared back along their rays."""
        return self.operator.backproject(jnp.asarray(x), x.shape[2])


@partial(jax.jit, static_argnums=0)
def _sirt(operator: Projections, y: Array) -> Array:
    """Simultaneous iterative reconstruction (Gilbert, 1972) of volumes that are nowhere negative."""
    def better(_: int, x: Array) -> Array:
        return jnp.maximum(x + operator.backproject(y - operator(x), y.shape[2]), 0)

    return jax.lax.fori_loop(0, ITERATIONS, better, operator.backproject(y, y.shape[2]))
