"""What the first axis of images must be a multiple of, so that it divides over `space` at every level of a network."""

from collections.abc import Mapping

import jax
import numpy as np

from medjax.train.run import Run
from medjax.types import Array, Batch, Model, Tree, UserError

PROBE = 256


def check_space(depth: int, multiple: int, space: int) -> None:
    """Raises UserError where an image's first axis cannot be divided evenly, at every level of the network."""
    if depth % multiple:
        below, above = depth // multiple * multiple, -(-depth // multiple) * multiple
        nearest = f"{below} and {above}" if below else f"{above}"
        raise UserError("config.data.patch", f"a first axis of {depth} does not divide over {space} devices at every level "
                        f"of the network; multiples of {multiple} do, the nearest {nearest}; or use --config.mesh.pad=True")


def multiple_of(run: Run, batch: Mapping[str, Array | np.ndarray], space: int) -> int:
    """What the first axis of an image must be a multiple of: `space` times how much coarser the network gets.

    The network is traced on large images (nothing is computed), and its smallest intermediate image counts.
    """
    if space == 1:
        return 1
    probe = {name: jax.ShapeDtypeStruct((1, *(PROBE if i < run.config.data.ndim else n for i, n in enumerate(a.shape[1:]))),
                                        a.dtype) for name, a in batch.items()}

    model: Model | None = getattr(run.objective, "model", None)
    if model is None:
        raise UserError("config.mesh.space", f"a run of {run.config.objective.name} has no network called model, whose "
                        "levels would be counted; set it to 1")

    def layers(batch: Batch) -> Tree:
        key = jax.random.PRNGKey(0)
        given = run.task.example(key, batch).input
        keys = {"params": key, "dropout": key, "sample": key}

        variables = model.init(keys, given.image, given.context, mutable=True, capture_intermediates=True)
        return variables["intermediates"]

    images = [leaf for leaf in jax.tree.leaves(jax.eval_shape(layers, probe)) if leaf.ndim == run.config.data.ndim + 2]
    return space * max(1, PROBE // min(leaf.shape[1] for leaf in images))
