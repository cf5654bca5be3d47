"""The training loop: data in, steps, logs, evaluations, checkpoints; killed at any moment, it goes on from the last."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from medjax import registry
from medjax.data.augment import Augment
from medjax.data.pipeline import train_stream
from medjax.data.prefetch import to_device
from medjax.data.split import Splits, describe
from medjax.measures.image_quality import LOWER_IS_BETTER
from medjax.train import distributed, evaluator, padding, sharding
from medjax.train.checkpoint import Checkpoints
from medjax.train.log import Log
from medjax.train.profile import Profile
from medjax.train.run import Config, Run, assemble, claim, load_config, load_splits, resolve
from medjax.train.step import init_state, make_step
from medjax.types import Array, Batch, Key, State, UserError


def train(config: Config, workdir: Path, profile: tuple[int, int] = (0, 0)) -> State:
    """Trains `config` in `workdir` to its last step, from where an earlier run there left off.

    The steps `profile` (first, last) are traced.
    """
    splits = load_splits(config)
    config = resolve(config, splits)
    run = assemble(config)
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.space)
    sharding.check_mode(mesh, config.mesh.mode, config.mesh.fsdp, config.mesh.offload)
    sharding.check_batch(mesh, config.batch_size, config.accumulate)
    if distributed.speaks():
        print(*describe(splits), sep="\n")
    with open_stream(config, splits) as stream:
        stream = _fitted(run, stream)
        _check(run, stream)
        if distributed.speaks():
            claim(workdir, config)
        distributed.wait_for_all("claimed")
        with open_checkpoints(config, workdir) as checkpoints:
            state = _start(run, mesh, stream)
            found = checkpoints.restore_latest(state)
            if found is not None:
                state, position = found
                stream.set_state(position)
                if distributed.speaks():
                    print(f"going on from step {int(state.step)}")
            return _loop(run, mesh, splits, workdir, checkpoints, stream, state, Profile(workdir, profile))


@contextmanager
def open_checkpoints(config: Config, workdir: Path) -> Iterator[Checkpoints]:
    """The checkpoints of a run; on leaving, everything is on disk."""
    best = "min" if config.metric in LOWER_IS_BETTER else "max"
    checkpoints = Checkpoints(workdir / "checkpoints", config.metric, best, config.keep)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def restore_best(workdir: Path) -> tuple[Run, State]:
    """A trained run: what it is made of, and the state of its best checkpoint, without optimizers."""
    config = load_config(workdir)
    run = assemble(config)
    with open_checkpoints(config, workdir) as checkpoints:
        step = checkpoints.best()
        if step is None:
            raise UserError(workdir, "has no checkpoint yet; train first")
        return run, checkpoints.networks(step)


@contextmanager
def open_stream(config: Config, splits: Splits) -> Iterator[Any]:
    data = config.data
    stream = train_stream(splits["train"], batch_size=config.batch_size, patch=registry.frozen(data.patch), ndim=data.ndim,
                          seed=config.seed, workers=data.workers, foreground=data.foreground,
                          process_index=jax.process_index(), process_count=jax.process_count())
    try:
        yield stream
    finally:
        stream.close()


def _fitted(run: Run, stream: Any) -> Any:
    """The stream, its images filled up where the config says so; raises UserError where they don't divide over `space`."""
    space, first = run.config.mesh.space, stream.first()
    multiple = padding.multiple_of(run, first, space)
    if run.config.mesh.pad:
        return padding.Padded(stream, multiple)
    padding.check_space(first["image"].shape[1], multiple, space)
    return stream


def _start(run: Run, mesh: Mesh, stream: Any) -> State:
    """The state before the first step, laid out over the mesh."""
    first = {name: array[:1] for name, array in stream.first().items()}
    key = jax.random.PRNGKey(run.config.seed)
    shardings = sharding.state_sharding(mesh, jax.eval_shape(initial(run), first, key), run.config.mesh.fsdp)
    shardings = sharding.offloaded(shardings) if run.config.mesh.offload else shardings
    return jax.jit(initial(run), out_shardings=shardings)(first, key)


def initial(run: Run) -> Callable[[Batch, Key], State]:
    return partial(init_state, run.task, run.objective, run.optimizers, run.config.ema_decay)


def _step(run: Run, axis: str | None = None) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
    augment = Augment(**registry.frozen(run.config.augment))
    return make_step(run.task, run.objective, run.optimizers, run.config.ema_decay, augment, run.config.accumulate, axis,
                     run.config.remat)


def _check(run: Run, stream: Any) -> None:
    """Traces a step: what doesn't fit together is said before anything is compiled or written."""
    first = stream.first()
    state = jax.eval_shape(initial(run), first, jax.random.PRNGKey(0))
    jax.eval_shape(_step(run), state, first)


def _loop(run: Run, mesh: Mesh, splits: Splits, workdir: Path, checkpoints: Checkpoints, stream: Any,
          state: State, profile: Profile) -> State:
    config = run.config
    mode = config.mesh.mode
    shardings = jax.tree.map(lambda array: array.sharding, state)
    step_fn = sharding.parallel(_step(run, axis=None if mode == "jit" else "data"), mesh, mode, shardings, config.remat)
    judge = evaluator.Judge(run, mesh, only_metrics=True)
    stopped = Stop()
    step = first = int(state.step)
    log = Log(workdir, config.steps, step, config.batch_size, silent=not distributed.speaks())
    batches = to_device(stream, partial(sharding.batch_sharding, mesh))
    pending: tuple[int, dict[str, Array], Array] | None = None
    try:
        while step < config.steps and not stopped.at(step):
            profile.before(step + 1)
            batch = next(batches)
            log.spent["input"] = batches.waited
            with jax.transfer_guard("disallow"), log.timed("compile") if step == first else nullcontext():
                state, logs = step_fn(state, batch)
            step += 1
            if profile.after(step, logs):
                log.say(f"trace of the steps to {step}: {workdir / 'profile'}")
            log.advance()
            # One step late: the device is already busy with the next step while this one's numbers are read.
            if pending is not None:
                report(log, config, *pending, checkpoints)
            pending = (step, logs, batch["id"])
            last = step == config.steps
            judged = splits["val"] and (last or step % config.eval_every == 0)
            if judged or last or stopped.at(step) or step % config.checkpoint_every == 0:
                report(log, config, *pending, checkpoints)
                pending = None
                with log.timed("eval"):
                    metrics = validate(judge, state, splits, log, step) if judged else None
                with log.timed("checkpoint"):
                    checkpoints.save(state, batches.get_state(), metrics)
        with log.timed("checkpoint"):
            checkpoints.wait()
        log.say(log.shares())
    except jax.errors.JaxRuntimeError as error:
        if distributed.several():
            distributed.leave(error)
        raise
    finally:
        batches.close()
        profile.close()
        log.close()
        stopped.restore()
    if stopped.at(step):
        print(f"stopped by signal at step {step}, saved; run the same command to go on")
        raise SystemExit(0)
    return state


def report(log: Log, config: Config, step: int, logs: dict[str, Array], ids: Array,
            checkpoints: Checkpoints) -> None:
    """Logs a step; ends the run where a loss is no number."""
    scalars = {name: float(value) for name, value in jax.device_get(logs).items()}
    broken = [name for name, value in scalars.items() if not np.isfinite(value)]
    if broken:
        samples = ", ".join(str(i) for shard in ids.addressable_shards for i in np.asarray(shard.data).tolist())
        checkpoints.wait()
        raise UserError(f"step {step}", f"{broken[0]} is not finite, on samples {samples}; the last checkpoint is of step "
                        f"{checkpoints.latest()}; try a smaller config.optim.lr or config.optim.clip")
    if step % config.log_every == 0 or step == config.steps:
        log.train(step, scalars)


def validate(judge: evaluator.Judge, state: State, splits: Splits, log: Log, step: int) -> dict[str, float]:
    batches = judge.batches(splits["val"], judge.run.config.eval_samples)
    metrics = evaluator.scalars(judge.run.task.summary([judged.metrics for judged in judge(state, batches)]))
    log.write(step, {f"eval/{name}": value for name, value in metrics.items()})
    log.say(f"step {step}: validation " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return metrics


class Stop:
    """Turns true once the process is asked to end (SIGTERM, or Ctrl-C), so that the loop can save first.

    Several processes agree on the step, by jax's own handler of SIGTERM.
    """

    def __init__(self) -> None:
        self._asked = False
        signals = () if distributed.several() else (signal.SIGTERM, signal.SIGINT)
        self._before = {number: signal.signal(number, self._ask) for number in signals}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def at(self, step: int) -> bool:
        self._asked = self._asked or distributed.all_asked_to_stop(step)
        return self._asked

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
