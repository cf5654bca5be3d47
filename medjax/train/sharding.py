"""Where arrays live: a mesh of devices `(data, space)`, batches split over it, the state copied to each."""

import functools
from collections.abc import Mapping
from dataclasses import replace

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax.data.pipeline import Share
from medjax.models.rematerialise import COMPILER_OPTIONS
from medjax.train.step import Step
from medjax.types import Array, Batch, State, UserError, check_choice

MODES = ("jit", "shard_map", "pmap")
FSDP_FROM = 2**14


def make_mesh(data: int = -1, space: int = 1) -> Mesh:
    """All devices as `(data, space)`; -1 takes what is left."""
    devices = jax.devices()
    if space < 1 or (data == -1 and len(devices) % space):
        raise UserError("config.mesh.space", f"{space} does not divide the {len(devices)} devices")
    data = len(devices) // space if data == -1 else data
    if data * space > len(devices) or data < 1:
        raise UserError("config.mesh", f"{data} x {space} devices asked for, there are {len(devices)}")
    return Mesh(np.array(devices[: data * space]).reshape(data, space), ("data", "space"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, batch: Mapping[str, Array | np.ndarray]) -> dict[str, NamedSharding]:
    """Samples over `data`; the first spatial axis of images and masks over `space`."""
    def spec(array: Array | np.ndarray) -> PartitionSpec:
        return PartitionSpec("data", "space") if array.ndim > 2 else PartitionSpec("data")

    return {name: NamedSharding(mesh, spec(array)) for name, array in batch.items()}


@functools.lru_cache(maxsize=4)  # asked for by every batch
def share_of(mesh: Mesh) -> Share:
    """What this process reads of a batch: the rows and planes that its own devices hold."""
    mine = np.argwhere(np.vectorize(lambda device: device.process_index == jax.process_index())(mesh.devices))
    (row, plane), (rows, planes) = mine.min(0), mine.max(0) - mine.min(0) + 1
    if len(mine) != rows * planes or mesh.devices.shape[0] % rows or mesh.devices.shape[1] % planes:
        raise UserError("config.mesh", f"the devices of process {jax.process_index()} are no block of the mesh "
                        f"{'x'.join(map(str, mesh.devices.shape))}; choose a mesh.space that divides or is divided by the "
                        "devices of a process")
    return Share(int(row // rows), int(mesh.devices.shape[0] // rows), int(plane // planes),
                 int(mesh.devices.shape[1] // planes))


def place(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """A batch, of which each process has read its share, on the devices of the mesh."""
    share, placed = share_of(mesh), {}
    for name, where in batch_sharding(mesh, batch).items():
        array = batch[name]
        planes = share.planes if array.ndim > 2 else 1
        shape = (array.shape[0] * share.rows, *(n * (planes if axis == 0 else 1) for axis, n in enumerate(array.shape[1:])))
        placed[name] = jax.make_array_from_process_local_data(where, array, shape)
    return placed


def state_sharding(mesh: Mesh, state: State, fsdp: bool) -> State:
    """Where a state lives: a copy on every device, or with `fsdp` each large array split over `data` (ZeRO-3).

    An array is split along its longest axis that divides, from `FSDP_FROM` elements up: smaller ones cost more to
    gather than to keep.
    """
    ways = mesh.shape["data"]

    def spec(array: Array) -> PartitionSpec:
        axes = [i for i, size in enumerate(array.shape) if size % ways == 0]
        if not fsdp or array.size < FSDP_FROM or not axes:
            return PartitionSpec()
        longest = max(axes, key=lambda i: array.shape[i])
        return PartitionSpec(*(None,) * longest, "data")

    return jax.tree.map(lambda array: NamedSharding(mesh, spec(array)), state)


def offloaded(shardings: State) -> State:
    """The same places, but for the optimizers' state: it stays in host memory while a step does not need it."""
    away = jax.tree.map(lambda place: place.with_memory_kind("pinned_host"), shardings.opt_state)
    return replace(shardings, opt_state=away)


def parallel(step: Step, mesh: Mesh, mode: str, shardings: State, remat: str = "none", more: tuple[Array, ...] = ()) -> Step:
    """The step as one program over the mesh, its state kept as `shardings` say.

    "jit": the compiler splits it. "shard_map" and "pmap": each device runs the step (made with `axis="data"`) on its own
    samples, and gradients are averaged; no `space`, no fsdp, batch statistics of each device. `remat` is the step's. `more`
    are arguments of the step behind the batch that stay, the same on every device.
    """
    options = compiler_options(remat)
    if mode == "jit":
        def fetched(state: State, batch: Batch, *more: Array) -> tuple[State, dict[str, Array]]:
            return step(replace(state, opt_state=jax.device_put(state.opt_state, jax.memory.Space.Device)), batch, *more)

        away = any(place.memory_kind == "pinned_host" for place in jax.tree.leaves(shardings))
        program = jax.jit(fetched if away else step, donate_argnums=0, out_shardings=(shardings, replicated(mesh)),
                          compiler_options=options)
        return (lambda state, batch: program(state, batch, *more)) if more else program
    if mode == "shard_map":
        everywhere, split = PartitionSpec(), PartitionSpec("data")
        mapped = jax.shard_map(step, mesh=mesh, in_specs=(everywhere, split, *(everywhere for _ in more)),
                               out_specs=everywhere)
        program = jax.jit(mapped, donate_argnums=0, compiler_options=options)
        return (lambda state, batch: program(state, batch, *more)) if more else program
    ways = mesh.shape["data"]
    program = jax.pmap(step, axis_name="data", in_axes=(None, 0, *(None for _ in more)), out_axes=None,
                       devices=list(mesh.devices[:, 0]))
    return lambda state, batch: program(state, jax.tree.map(lambda a: a.reshape(ways, -1, *a.shape[1:]), batch), *more)


def compiler_options(remat: str) -> dict[str, str] | None:
    """What XLA must be told for a step with `remat` to be compiled as written."""
    return COMPILER_OPTIONS if remat != "none" and jax.default_backend() == "cpu" else None


def check_mode(mesh: Mesh, mode: str, fsdp: bool, offload: bool = False) -> None:
    """Raises UserError for a mode that there is not, or that cannot do what is asked."""
    check_choice("config.mesh.mode", mode, MODES)
    if mode != "jit" and (fsdp or offload or mesh.shape["space"] > 1):
        raise UserError("config.mesh.mode", f"{mode} keeps a copy of the state on every device and splits no volume; "
                        "mesh.space > 1, mesh.fsdp and mesh.offload need mode=jit")


def check_batch(mesh: Mesh, size: int, parts: int = 1) -> None:
    """Raises UserError where a batch, or each of its `parts` (gradient accumulation), cannot be split evenly."""
    ways = mesh.shape["data"] * parts
    if size < 1 or size % ways:
        among = f"{ways} devices" if parts == 1 else f"{mesh.shape['data']} devices in {parts} parts"
        raise UserError("config.batch_size", f"{size} does not split over {among}; the nearest that does is "
                        f"{max(1, round(size / ways)) * ways}")
