"""A trained model on one record, whatever its size: from the record to the whole of its prediction."""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator

import jax
import numpy as np

from medjax.data.pipeline import HostBatch, whole_batch
from medjax.infer.progress import Progress
from medjax.infer.tiling import tiled
from medjax.train.run import Run
from medjax.types import Batch, Derivation, Operator, Prediction, Record, State, Tree, UserError

VOXELS = 2**20  # larger images go through in tiles, where the task allows
USE_SEED = 2  # what is random in use is the same for a sample in every run

TILE = 16  # sizes of tiles are multiples of it: images of nearly one size share a compilation

Predict = Callable[[Record], Prediction]


def make_program(run: Run, state: State) -> Callable[[Batch, Operator | None], Prediction]:
    """What a run makes of a batch in use, on the device: the one program that `apply` compiles and `export` writes."""
    task, objective = run.task, run.objective
    params, variables = state.for_use()

    def program(batch: Batch, operator: Operator | None) -> Prediction:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(USE_SEED), batch["id"])
        found: dict[str, Tree] = {**batch} if operator is None else {**batch, "operator": operator}
        return objective.predict(params, variables, task.input(found), keys)

    return program


def make_predict(run: Run, state: State, progress: Progress | None = None, voxels: int = VOXELS) -> Predict:
    """A function from a record to its prediction, arrays of NumPy without the batch's axis, in unit range.

    A 2-D model takes volumes slice by slice. Networks compile once per size of tile, which has at most `voxels`. `progress`
    is told of slices and tiles. Raises UserError where the record doesn't suit the model.
    """
    task, progress = run.task, progress or Progress()
    program = jax.jit(make_program(run, state))

    def one(batch: HostBatch, operator: Operator | None) -> Prediction:
        found = jax.device_get(program(batch, operator))
        return Prediction(found.image[0], None if found.std is None else found.std[0],
                          None if found.samples is None else found.samples[:, 0],
                          {name: value[0] for name, value in found.extras.items()})

    def predict(record: Record) -> Prediction:
        check_record(run, record)
        operator = task.operators(record)
        whole = record.ndim == task.input_ndim
        indices = range(1 if whole else record.image.shape[0])
        batches = (whole_batch(record, task.input_ndim, index) for index in progress.parts(indices))
        most = voxels if task.tileable else 0
        parts = (_whole_or_tiled(batch, most, lambda rows: one(rows, operator), progress) for batch in batches)
        return next(parts) if whole else _stacked(parts, len(indices))

    return predict


def derivation(run: Run, state: State) -> Derivation:
    """What makes the results, for their headers: the task and its networks, and a hash of the checkpoint and config."""
    networks = "+".join(run.config[key].name for key in run.objective.networks)
    return Derivation(f"{run.config.task.name} by a trained network", f"medjax {run.config.task.name}: {networks}",
                      f"step {int(state.step)}", hash_of(state, run.config.to_json(sort_keys=True)))


def hash_of(state: State, config: str = "") -> str:
    """16 hexadecimal digits that stand for the weights in use, and a config."""
    digest = hashlib.sha256(config.encode())
    for leaf in jax.tree.leaves(jax.device_get(state.for_use())):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def check_record(run: Run, record: Record) -> None:
    """Raises UserError where a record has other axes or channels than the model takes."""
    ndim, wanted = run.task.input_ndim, run.config.data.channels
    if record.ndim < ndim:
        raise UserError(record.id, f"is a {record.ndim}-D image and the model takes {ndim}-D ones")
    if run.task.inputs[0] != "image":
        wanted = len(run.task.inputs)
    if run.task.input_ndim == run.config.data.ndim and record.image.shape[-1] != wanted:
        raise UserError(record.id, f"has {record.image.shape[-1]} channels and the model was trained on {wanted}")


def _whole_or_tiled(batch: HostBatch, voxels: int, predict: Callable[[HostBatch], Prediction],
                    progress: Progress) -> Prediction:
    """The prediction of a batch of one image, in tiles of at most `voxels`; whole if that is 0."""
    if not voxels:
        return predict(batch)
    space = batch["image"].shape[1:-1]
    on_grid = [name for name, array in batch.items() if array.shape[1:-1] == space]

    def of_tile(tile: HostBatch) -> HostBatch:
        found = predict({**batch, **{name: array[None] for name, array in tile.items()}})
        return {name: np.asarray(array) for name, array in (("image", found.image), ("std", found.std)) if array is not None}

    # Arrays of NumPy, as those of `device_get`.
    on_image = {name: batch[name][0] for name in on_grid}
    made: dict[str, Tree] = {**tiled(of_tile, on_image, tile_of(space, voxels), progress=progress)}
    return Prediction(made["image"], made.get("std"))


def tile_of(shape: tuple[int, ...], voxels: int = VOXELS) -> tuple[int, ...]:
    """The whole image rounded up to a multiple of `TILE`, or a part of it with at most `voxels`."""
    tile = [-(-size // TILE) * TILE for size in shape]
    while math.prod(tile) > voxels:
        axis = int(np.argmax(tile))
        tile[axis] = -(-tile[axis] // (2 * TILE)) * TILE
    return tuple(tile)


def _stacked(parts: Iterator[Prediction], count: int) -> Prediction:
    """The predictions of `count` slices as that of a volume."""
    first = next(parts)
    whole = Prediction(_room(first.image, count), _room(first.std, count), _room(first.samples, count, 1),
                       {name: _room(value, count) for name, value in first.extras.items()})
    for index, part in enumerate(itertools.chain([first], parts)):
        for room, value in ((whole.image, part.image), (whole.std, part.std),
                            *((whole.extras[name], part.extras[name]) for name in whole.extras)):
            if room is not None:
                room[index] = value
        if whole.samples is not None:
            whole.samples[:, index] = part.samples
    return whole


def _room(value: Tree, count: int, axis: int = 0) -> Tree:
    """An empty array for `count` such values along a new axis; None for None."""
    if value is None:
        return None
    shape = np.shape(value)
    return np.empty((*shape[:axis], count, *shape[axis:]), np.asarray(value).dtype)
