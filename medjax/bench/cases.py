"""What is measured: the named suites, and a run's config as one more."""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from medjax import registry
from medjax.measures.losses import l1
from medjax.types import Array, Batch, Example, Key, Mean, NetworkInput, UserError

DTYPES = {"f32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Case:
    """A network and the images it is given: `batch` of `patch` with `channels`, to `patch * scale`."""

    name: str
    model: ConfigDict
    ndim: int
    scale: tuple[int, ...]
    batch: int
    patch: tuple[int, ...]
    channels: int = 1

    def network(self, dtype: str) -> Any:
        """The module; parameters are float32, `dtype` (f32, bf16) is what it computes in."""
        config = ConfigDict({**self.model.to_dict(), "dtype": DTYPES[dtype]})
        return registry.build("models", config, ndim=self.ndim, channels=self.channels, scale=self.scale)

    def images(self) -> dict[str, Array]:
        """`input` and `target`, float32."""
        fine = [size * s for size, s in zip(self.patch, self.scale, strict=True)]
        return {"input": _waves(self.batch, *self.patch, self.channels),
                "target": _waves(self.batch, *fine, self.channels)}


def _waves(*shape: int) -> Array:
    return jnp.sin(jnp.arange(math.prod(shape), dtype=jnp.float32)).reshape(shape)


@dataclass(frozen=True)
class Given:
    """The task whose batches already hold `input` and `target`: what the network and its update alone cost."""

    def example(self, key: Key, batch: Batch) -> Example:
        """The batch as it is."""
        rows = batch["target"].shape[0]
        mask = jnp.ones((*batch["target"].shape[:-1], 1), bool)
        return Example(NetworkInput(batch["input"]), batch["target"], mask, jnp.arange(rows, dtype=jnp.uint32),
                       jnp.ones((rows, batch["target"].ndim - 2)))

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """L1."""
        return {"l1": l1(pred, example.target)}


def suites(names: list[str]) -> list[Case]:
    """The suites called `names`. Raises UserError."""
    known = {case.name: case for case in _suites()}
    for name in names:
        if name not in known:
            raise UserError("--suite", f"no {name!r}; there is {', '.join(known)}")
    return [known[name] for name in names]


def _suites() -> list[Case]:
    return [
        Case("unet2d", registry.spec("models", "unet", width=32, depth=4), 2, (1, 1), 8, (128, 128)),
        Case("unet3d", registry.spec("models", "unet", width=16, depth=4), 3, (1, 1, 1), 1, (64, 64, 64)),
        Case("redcnn", registry.spec("models", "redcnn", width=96), 2, (1, 1), 8, (64, 64)),
        Case("edsr", registry.spec("models", "edsr", width=64, blocks=8), 2, (2, 2), 8, (64, 64)),
    ]


def from_config(config: ConfigDict) -> Case:
    """The network of a run on the images it trains on. Raises UserError where the config doesn't say their size."""
    data = config.data
    if not data.patch:
        raise UserError("config.data.patch", "() leaves the size to the data; name one, e.g. --config.data.patch=128,128")
    task = registry.build("tasks", config.task, data_range=(0.0, 1.0), ndim=data.ndim)
    patch = tuple(size // s for size, s in zip(data.patch, task.scale, strict=True))
    return Case(config.model.name, config.model, data.ndim, task.scale, config.batch_size, patch)
