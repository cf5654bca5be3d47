"""Images filled up so that their first axis divides over `space`; what is filled up does not count."""

from typing import Any

import jax
import numpy as np

from medjax.data.pipeline import Stream
from medjax.train.run import Run
from medjax.types import Batch, Tree, UserError

PROBE = 256


def check_space(depth: int, multiple: int, space: int) -> None:
    """Raises UserError where an image's first axis cannot be divided evenly, at every level of the network."""
    if depth % multiple:
        below, above = depth // multiple * multiple, -(-depth // multiple) * multiple
        nearest = f"{below} and {above}" if below else f"{above}"
        raise UserError("config.data.patch", f"a first axis of {depth} does not divide over {space} devices at every level "
                        f"of the network; multiples of {multiple} do, the nearest {nearest}; or use --config.mesh.pad=True")


def multiple_of(run: Run, batch: Batch, space: int) -> int:
    """What the first axis of an image must be a multiple of: `space` times how much coarser the network gets.

    The network is traced on large images (nothing is computed), and its smallest intermediate image counts.
    """
    if space == 1:
        return 1
    probe = {name: jax.ShapeDtypeStruct((1, *(PROBE if i < run.config.data.ndim else n for i, n in enumerate(a.shape[1:]))),
                                        a.dtype) for name, a in batch.items()}

    def layers(batch: Batch) -> Tree:
        key = jax.random.PRNGKey(0)
        given = run.task.example(key, batch).input
        keys = {"params": key, "dropout": key, "sample": key}
        model: Any = run.objective.model  # type: ignore[attr-defined]
        _, variables = model.init_with_output(keys, given.image, given.context, mutable=True, capture_intermediates=True)
        return variables["intermediates"]

    images = [leaf for leaf in jax.tree.leaves(jax.eval_shape(layers, probe)) if leaf.ndim == run.config.data.ndim + 2]
    return space * max(1, PROBE // min(leaf.shape[1] for leaf in images))


class Padded:
    """A stream whose images, and what lies on their grid, are filled up with their edge to a multiple; `mask` says where."""

    def __init__(self, stream: Stream, multiple: int):
        self._stream = stream
        self._multiple = multiple
        self.get_state, self.set_state, self.close = stream.get_state, stream.set_state, stream.close

    def __iter__(self) -> "Padded":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return self._padded(next(self._stream))

    def first(self) -> dict[str, np.ndarray]:
        """Batch 0, without moving."""
        return self._padded(self._stream.first())

    def _padded(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        image = batch["image"]
        depth, more = image.shape[1], -image.shape[1] % self._multiple
        whole = {"mask": np.ones((*image.shape[:-1], 1), bool)} | batch
        grown = {name: np.pad(array, [(0, 0), (0, more), *[(0, 0)] * (array.ndim - 2)], mode="edge")
                 if array.ndim > 2 else array for name, array in whole.items()}
        grown["mask"][:, depth:] = False
        return grown
