"""How one loop's members lie on the devices: a single run over a mesh, or runs side by side, a device each.

Runs that differ in their seed or learning rate alone are members of one program: their states, batches and logs have a
leading member axis. A single run has one member and no such axis.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax import registry
from medjax.data.augment import Augment
from medjax.data.pipeline import HostBatch, Share
from medjax.data.prefetch import Position
from medjax.train import padding, sharding
from medjax.train.evaluator import Evaluator
from medjax.train.optim import optimizer
from medjax.train.run import Config, Run
from medjax.train.step import QUICK, init_state, make_step
from medjax.types import Array, Batch, Key, State, Tree

MEMBER = PartitionSpec("member")


class HostStream(Protocol):
    """What gives a loop its batches."""

    def __iter__(self) -> Iterator[HostBatch]: ...
    def __next__(self) -> HostBatch: ...
    def first(self) -> HostBatch: ...
    def names(self, index: int) -> list[str]: ...
    def get_state(self) -> Position: ...
    def set_state(self, state: Position) -> None: ...
    def close(self) -> None: ...


class Layout(Protocol):
    """Where members' states and batches lie, and the program that moves them on by a step."""

    evaluator: Evaluator
    initial: Callable[[Batch, Key], State]
    """A member's first state, from one row of a batch; jitted, so that it is traced once for all who call it."""
    step: Callable[[State, Batch], tuple[State, dict[str, Array]]]
    """A member's step alone; jitted, as `initial`."""

    @property
    def share(self) -> Share:
        """What this process reads of a member's batches."""

    def multiple_of(self, first: Callable[[], HostBatch]) -> int:
        """What the first axis of a member's images has to be padded to a multiple of; `first` reads one row.

        Raises UserError where it may not be padded.
        """

    def start(self, stream: HostStream, seed: int) -> State:
        """A member's state before its first step."""

    def placed(self, state: State, batch: Batch) -> tuple[State, Batch]:
        """The shapes of a member's state and batch, with where they lie if its step is to be traced so."""

    def join(self, states: Sequence[State]) -> State:
        """The state of all members."""

    def streams(self, streams: Sequence[HostStream]) -> Iterable[HostBatch]:
        """The streams of all members as one."""

    def place(self, batch: HostBatch) -> dict[str, Array]:
        """A batch of all members on the devices."""

    def compile(self, state: State) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
        """One step of all members."""

    def member(self, tree: Tree, index: int) -> Tree:
        """A member's own of a state, logs or ids of all."""


def initial(run: Run) -> Callable[[Batch, Key], State]:
    """A function from a batch and a key to a run's first state."""
    return partial(init_state, run.task, run.objective, run.optimizers, run.config.ema_decay)


class OneRun:
    """A run over a mesh `(data, space)`."""

    def __init__(self, run: Run):
        config = run.config
        self._run = run
        self.mesh = sharding.make_mesh(config.mesh.data, config.mesh.space)
        sharding.check_mode(self.mesh, config.mesh.mode, config.mesh.fsdp, config.mesh.offload)
        sharding.check_batch(self.mesh, config.batch_size, config.accumulate)
        self.evaluator = Evaluator(run, self.mesh, only_metrics=True)
        self.initial = jax.jit(initial(run), inline=True)
        self.step = jax.jit(train_step(run), inline=True)

    @property
    def share(self) -> Share:
        """The rows and planes of this process's devices."""
        return sharding.share_of(self.mesh)

    def multiple_of(self, first: Callable[[], HostBatch]) -> int:
        """What divides over `space` at every level of the network, where the config allows padding to it."""
        space = self._run.config.mesh.space
        if space == 1:
            return 1
        row = first()
        multiple = padding.multiple_of(self._run, row, space)
        if not self._run.config.mesh.pad:
            padding.check_space(row["image"].shape[1], multiple, space)
        return multiple

    def start(self, stream: HostStream, seed: int) -> State:
        """The first state, laid out over the mesh."""
        first = probe(stream.first(), self.share)
        key = jax.random.PRNGKey(seed)
        shardings = self._places(jax.eval_shape(self.initial, first, key))
        return jax.jit(self.initial, out_shardings=shardings, compiler_options=QUICK)(first, key)

    def placed(self, state: State, batch: Batch) -> tuple[State, Batch]:
        """Over the mesh, where the compiler splits the step."""
        if self._run.config.mesh.mode != "jit":
            return state, batch
        places = (self._places(state), sharding.batch_sharding(self.mesh, batch))
        return jax.tree.map(lambda array, place: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place),
                            (state, dict(batch)), places)

    def _places(self, state: State) -> State:
        """Where each array of a state lies."""
        places = sharding.state_sharding(self.mesh, state, self._run.config.mesh.fsdp)
        return sharding.offloaded(places) if self._run.config.mesh.offload else places

    def join(self, states: Sequence[State]) -> State:
        """The only one."""
        return states[0]

    def streams(self, streams: Sequence[HostStream]) -> Iterable[HostBatch]:
        """The only one."""
        return streams[0]

    def place(self, batch: HostBatch) -> dict[str, Array]:
        """Rows over `data`, the first spatial axis over `space`."""
        return sharding.place(self.mesh, batch)

    def compile(self, state: State) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
        """The step as one program over the mesh."""
        config = self._run.config
        step = self.step if config.mesh.mode == "jit" else train_step(self._run, axis="data")
        shardings = jax.tree.map(lambda array: array.sharding, state)
        return sharding.parallel(step, self.mesh, config.mesh.mode, shardings, config.remat)

    def member(self, tree: Tree, index: int) -> Tree:
        """The whole."""
        return tree


class SideBySide:
    """Runs that differ in seed or learning rate alone, in one program without communication between them."""

    def __init__(self, run: Run, configs: Sequence[Config]):
        self._run, self._configs = run, configs
        self._mesh = member_mesh(len(configs))
        self._place = NamedSharding(self._mesh, MEMBER)
        self.initial = jax.jit(initial(run), compiler_options=QUICK)
        self.step = jax.jit(train_step(run), inline=True)
        self._rates = jax.device_put(np.array([config.optim.lr for config in configs], np.float32), self._place)
        self.evaluator = Evaluator(run, sharding.make_mesh(1, 1), only_metrics=True)

    @property
    def share(self) -> Share:
        """All: members are those of one process."""
        return Share()

    def multiple_of(self, first: Callable[[], HostBatch]) -> int:
        """1: no member is split."""
        return 1

    def start(self, stream: HostStream, seed: int) -> State:
        """The first state, on one device."""
        return self.initial({name: array[:1] for name, array in stream.first().items()}, jax.random.PRNGKey(seed))

    def placed(self, state: State, batch: Batch) -> tuple[State, Batch]:
        """As they are."""
        return state, batch

    def join(self, states: Sequence[State]) -> State:
        """The states, stacked, each on its device."""
        return jax.device_put(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), self._place)

    def streams(self, streams: Sequence[HostStream]) -> Iterable[HostBatch]:
        """Their batches, stacked."""
        return Stacked(streams)

    def place(self, batch: HostBatch) -> dict[str, Array]:
        """Each member's rows on its device."""
        return {name: jax.device_put(array, self._place) for name, array in batch.items()}

    def compile(self, state: State) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
        """One step of every member."""
        program = members_step(self._run, self._mesh)
        return lambda state, batch: program(state, batch, self._rates)

    def member(self, tree: Tree, index: int) -> Tree:
        """The member's slice, on one device."""
        return jax.device_put(jax.tree.map(lambda leaf: leaf[index], tree), jax.devices()[0])


class Stacked:
    """Streams of the members as one, their batches stacked."""

    def __init__(self, streams: Sequence[HostStream]):
        self._streams = streams

    def __iter__(self) -> "Stacked":
        return self

    def __next__(self) -> HostBatch:
        return _stacked([next(stream) for stream in self._streams])

    def first(self) -> HostBatch:
        """The members' first batches, without moving."""
        return _stacked([stream.first() for stream in self._streams])

    def get_state(self) -> list[Position]:
        """The members' positions."""
        return [stream.get_state() for stream in self._streams]

    def set_state(self, state: list[Position]) -> None:
        """Goes to saved positions, one of each member."""

        for stream, own in zip(self._streams, state, strict=True):
            stream.set_state(own)

    def close(self) -> None:
        """Ends their reading."""
        for stream in self._streams:
            stream.close()


def _stacked(batches: Sequence[HostBatch]) -> HostBatch:
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def probe(batch: HostBatch, share: Share) -> HostBatch:
    """One row of a batch with all planes, though only a share of them was read: what it holds is not looked at."""
    return {name: np.repeat(array[:1], share.planes, 1) if array.ndim > 2 else array[:1] for name, array in batch.items()}


def train_step(run: Run, axis: str | None = None) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
    """A run's step (see `make_step`)."""
    config = run.config
    augment = Augment(**registry.frozen(config.augment))
    return make_step(run.task, run.objective, run.optimizers, config.ema_decay, augment, config.accumulate, axis,
                     config.remat)


def member_mesh(members: int) -> Mesh:
    """As many devices as divide the members evenly."""
    devices = jax.local_devices()
    count = max(n for n in range(1, min(members, len(devices)) + 1) if members % n == 0)
    return Mesh(np.array(devices[:count]), ("member",))


def members_step(run: Run, mesh: Mesh) -> Callable[[State, Batch, Array], tuple[State, dict[str, Array]]]:
    """One step of every member, all with a leading member axis; the third argument are their learning rates."""
    config = run.config

    def one(member: tuple[State, Batch, Array]) -> tuple[State, dict[str, Array]]:
        state, batch, rate = member
        own = {player: optimizer(config.steps, **dict(config.optim) | {"lr": rate}) for player in run.optimizers}
        step = make_step(run.task, run.objective, own, config.ema_decay, Augment(**registry.frozen(config.augment)),
                         config.accumulate, remat=config.remat)
        return step(state, batch)

    def here(state: State, batch: Batch, rates: Array) -> tuple[State, dict[str, Array]]:
        return jax.lax.map(one, (state, batch, rates))

    mapped = jax.shard_map(here, mesh=mesh, in_specs=MEMBER, out_specs=MEMBER)
    return jax.jit(mapped, donate_argnums=0, compiler_options=sharding.compiler_options(config.remat))


FREE = ("seed", "optim.lr")
"""What members of one program may differ in: it is data of the program."""


def shared(config: Config) -> str:
    """All of a config but what is `FREE`: the same for all members of one program."""
    rest = {key: value for key, value in registry.flat(config).items() if key not in FREE}
    return json.dumps(rest, sort_keys=True, default=str)
