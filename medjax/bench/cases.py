"""What is measured: the named suites, and a run's config as one more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from medjax import registry
from medjax.measures.losses import l1
from medjax.objectives.supervised import Supervised
from medjax.tasks._restoration import Restoration
from medjax.train.step import Optimizers
from medjax.types import Array, Batch, Example, Key, Mean, Model, NetworkInput, Objective, Task, UserError

DTYPES = {"f32": "float32", "bf16": "bfloat16"}
SUITES = {"latency": ("frame256", "frame512", "volume128", "clip30"), "tiled": ("unet2d", "unet3d")}
"""What is measured where no suite is named; else `NETWORKS`."""
NETWORKS = ("unet2d", "unet3d", "redcnn", "edsr")


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

    @property
    def target_patch(self) -> tuple[int, ...]:
        """The spatial size of the target."""
        return tuple(size * s for size, s in zip(self.patch, self.scale, strict=True))

    def network(self, dtype: str) -> Model:
        """The module; parameters are float32, `dtype` (f32, bf16) is what it computes in."""
        config = ConfigDict({**self.model.to_dict(), "dtype": DTYPES[dtype]})
        return registry.build("models", config, ndim=self.ndim, channels=self.channels, scale=self.scale)

    def step_parts(self, dtype: str) -> "StepParts":
        """What `init_state` and `make_step` take: L1 and Adam on batches of `images`."""
        task: Task = Given((0.0, 1.0), self.ndim)
        objective: Objective = Supervised(task, self.network(dtype))
        return task, objective, {"model": optax.adam(1e-3)}, 0.0

    def images(self) -> dict[str, Array]:
        """The batch of `Given`."""
        return {"input": _waves(self.batch, *self.patch, self.channels),
                "target": _waves(self.batch, *self.target_patch, self.channels)}


def _waves(*shape: int) -> Array:
    return jnp.sin(jnp.arange(math.prod(shape), dtype=jnp.float32)).reshape(shape)


@dataclass(frozen=True)
class Given(Restoration):
    """The task whose batches already hold `input` and `target`, float32: what the network and its update alone cost."""

    def example(self, key: Key, batch: Batch) -> Example:
        """The batch as it is; everything counts."""
        rows, *space, _ = batch["target"].shape
        return Example(NetworkInput(batch["input"]), batch["target"], jnp.ones((rows, *space, 1), bool),
                       jnp.arange(rows, dtype=jnp.uint32), jnp.ones((rows, len(space))))

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """L1."""
        return {"l1": l1(pred, example.target)}


StepParts = tuple[Task, Objective, Optimizers, float]


def choose(config: ConfigDict | None, names: Sequence[str], batches: Sequence[str] = (),
           patches: Sequence[str] = ()) -> list[Case]:
    """The case of a run's config, else the suites `names`; once for each of the sizes, if any. Raises UserError."""
    known = {case.name: case for case in _suites()}
    for name in names:
        if name not in known:
            raise UserError("--suite", f"unknown {name!r}; choose from {', '.join(known)}")
    chosen = [from_config(config)] if config else [known[name] for name in names]
    return [replace(case, batch=batch, patch=patch) for case in chosen
            for batch in ([parse_sizes("--batch", b, 1)[0] for b in batches] or [case.batch])
            for patch in ([parse_patch(p, case.ndim) for p in patches] or [case.patch])]


def parse_patch(text: str, ndim: int) -> tuple[int, ...]:
    """Sizes from "64x64x64", or from "64" for all axes. Raises UserError."""
    return parse_sizes("--patch", text, ndim if "x" in text else 1) * (1 if "x" in text else ndim)


def parse_sizes(flag: str, text: str, count: int) -> tuple[int, ...]:
    """`count` sizes from "4x2". Raises UserError."""
    sizes = text.split("x")
    if len(sizes) != count or not all(size.isdecimal() and int(size) for size in sizes):
        raise UserError(flag, f"{text!r}; give {count} size{'s' * (count > 1)} like {'x'.join(['8'] * count)}")
    return tuple(int(size) for size in sizes)


def _suites() -> list[Case]:
    return [
        Case("unet2d", registry.spec("models", "unet", width=32, depth=4), 2, (1, 1), 8, (128, 128)),
        Case("unet3d", registry.spec("models", "unet", width=16, depth=4), 3, (1, 1, 1), 1, (64, 64, 64)),
        Case("redcnn", registry.spec("models", "redcnn", width=96), 2, (1, 1), 8, (64, 64)),
        Case("edsr", registry.spec("models", "edsr", width=64, blocks=8), 2, (2, 2), 8, (64, 64)),
        # One input at a time, as it comes from a scanner.
        Case("frame256", registry.spec("models", "unet", width=32, depth=4), 2, (1, 1), 1, (256, 256)),
        Case("frame512", registry.spec("models", "unet", width=32, depth=4), 2, (1, 1), 1, (512, 512)),
        Case("volume128", registry.spec("models", "unet", width=16, depth=4), 3, (1, 1, 1), 1, (128, 128, 128)),
        Case("clip30", registry.spec("models", "conv_rnn", width=16), 3, (1, 1, 1), 1, (30, 128, 128)),
    ]


def from_config(config: ConfigDict) -> Case:
    """The network of a run on the images it trains on. Raises UserError where the config doesn't say their size."""
    data = config.data
    if not data.patch:
        raise UserError("config.data.patch", "() leaves the size to the data; name one, e.g. --config.data.patch=128,128")
    task = registry.build("tasks", config.task, data_range=(0.0, 1.0), ndim=data.ndim)
    patch = tuple(size // s for size, s in zip(data.patch, task.scale, strict=True))
    return Case(config.model.name, config.model, data.ndim, task.scale, config.batch_size, patch)
