"""Where arrays live: a mesh of devices `(data, space)`, batches split over it, the state copied to each."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax.types import Batch, UserError


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


def batch_sharding(mesh: Mesh, batch: Batch) -> dict[str, NamedSharding]:
    """Samples over `data`; the first spatial axis of images and masks over `space`."""
    def spec(array: jax.Array) -> PartitionSpec:
        return PartitionSpec("data", "space") if array.ndim > 2 else PartitionSpec("data")

    return {name: NamedSharding(mesh, spec(array)) for name, array in batch.items()}


def check_batch(mesh: Mesh, size: int) -> None:
    """Raises UserError where a batch cannot be split evenly."""
    if size % mesh.shape["data"]:
        ways = mesh.shape["data"]
        raise UserError("config.batch_size", f"{size} does not split over {ways} devices; the nearest that does is "
                        f"{max(1, round(size / ways)) * ways}")
