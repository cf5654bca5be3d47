"""Runs that differ in their seed or learning rate alone, side by side in one program: each on a device of its own."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax import registry
from medjax.data.augment import Augment
from medjax.data.prefetch import to_device
from medjax.train import evaluator, sharding
from medjax.train.log import Log
from medjax.train.loop import Stop, initial, open_checkpoints, open_stream, report, validate
from medjax.train.optim import optimizer
from medjax.train.run import Config, Run, assemble, claim, load_splits, resolve
from medjax.train.step import make_step
from medjax.types import Array, Batch, State, UserError

MEMBER = PartitionSpec("member")


def shared(config: Config) -> str:
    """All of a config but its seed and learning rate, which are data of the one program: the same for all members."""
    rest = Config(config.to_dict())
    rest.seed, rest.optim.lr = 0, 0.0
    return rest.to_json(sort_keys=True)


def train_together(configs: Sequence[Config], workdirs: Sequence[Path]) -> None:
    """Trains every config in its folder, as `loop.train` would one by one; so each can be gone on with alone.

    Raises UserError where they differ in more than their seeds and learning rates, once their data is known.
    """
    splits = [load_splits(config) for config in configs]
    configs = [resolve(config, own) for config, own in zip(configs, splits, strict=True)]
    if len({shared(config) for config in configs}) > 1:
        raise UserError("--side_by_side", "another seed means other training images, and of these follow other ranges or "
                        "weights; state config.data.range, or train the members one by one")
    run, mesh = assemble(configs[0]), member_mesh(len(configs))
    with ExitStack() as stack:
        streams = Streams([stack.enter_context(open_stream(*pair)) for pair in zip(configs, splits, strict=True)])
        for config, workdir in zip(configs, workdirs, strict=True):
            claim(workdir, config)
        folders = [stack.enter_context(open_checkpoints(*pair)) for pair in zip(configs, workdirs, strict=True)]
        init = jax.jit(initial(run))
        states = [init({name: a[:1] for name, a in stream.first().items()}, jax.random.PRNGKey(config.seed))
                  for config, stream in zip(configs, streams.streams, strict=True)]
        found = [folder.restore_latest(state) for folder, state in zip(folders, states, strict=True)]
        step = min(0 if pair is None else int(pair[0].step) for pair in found)
        for i, (folder, pair) in enumerate(zip(folders, found, strict=True)):
            if pair is not None and step:
                states[i], position = folder.restore(step, states[i])
                streams.streams[i].set_state(position)
            folder.forget_after(step)  # a kill came between one member's checkpoint and the next one's
        steps, size = configs[0].steps, configs[0].batch_size
        logs = [Log(workdir, steps, step, size, bar=i == 0) for i, workdir in enumerate(workdirs)]
        for log in logs:
            stack.callback(log.close)
        _loop(run, mesh, configs, splits, streams, states, folders, logs)


def member_mesh(members: int) -> Mesh:
    """As many devices as divide the members evenly."""
    devices = jax.devices()
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

    def here(*members: Any) -> tuple[State, dict[str, Array]]:
        return jax.lax.map(one, members)

    mapped = jax.shard_map(here, mesh=mesh, in_specs=MEMBER, out_specs=MEMBER)
    return jax.jit(mapped, donate_argnums=0, compiler_options=sharding.compiler_options(config.remat))


class Streams:
    """Streams of the members as one, their batches stacked."""

    def __init__(self, streams: Sequence[Any]):
        self.streams = streams

    def __iter__(self) -> "Streams":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        batches = [next(stream) for stream in self.streams]
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}

    def get_state(self) -> list[dict[str, Any]]:
        """The members' positions."""
        return [stream.get_state() for stream in self.streams]


def _loop(run: Run, mesh: Mesh, configs: Sequence[Config], splits: Sequence[Any], streams: Streams, states: list[State],
          folders: Sequence[Any], logs: Sequence[Log]) -> None:
    config, place = run.config, NamedSharding(mesh, MEMBER)
    judge = evaluator.Judge(run, sharding.make_mesh(1, 1), only_metrics=True)
    state = jax.device_put(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), place)
    rates = jax.device_put(np.float32([member.optim.lr for member in configs]), place)
    step_fn, step, stopped = members_step(run, mesh), int(states[0].step), Stop()
    batches = to_device(streams, lambda batch: dict.fromkeys(batch, place))
    try:
        while step < config.steps and not stopped.at(step):
            batch = next(batches)
            state, made = step_fn(state, batch, rates)
            step += 1
            logs[0].advance()
            last = step == config.steps or stopped.at(step)
            saved = last or step % config.checkpoint_every == 0
            judged = step == config.steps or step % config.eval_every == 0
            if not (saved or judged or step % config.log_every == 0):
                continue
            scalars, ids = jax.device_get(made), batch["id"]
            for i, (log, folder) in enumerate(zip(logs, folders, strict=True)):
                log.spent["input"] = batches.waited
                report(log, config, step, {name: value[i] for name, value in scalars.items()}, ids[i], folder)
                if saved or judged:
                    own = jax.device_put(jax.tree.map(lambda leaf, i=i: leaf[i], state), jax.devices()[0])
                    metrics = validate(judge, own, splits[i], log, step) if judged and splits[i]["val"] else None
                    folder.save(own, batches.get_state()[i], metrics)
    finally:
        batches.close()
        stopped.restore()
    if step < config.steps:
        print(f"stopped by signal at step {step}, saved; run the same command to go on")
        raise SystemExit(0)
