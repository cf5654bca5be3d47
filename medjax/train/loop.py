"""The training loop: data in, steps, logs, evaluations, checkpoints; killed at any moment, it resumes from the last."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import jax
import numpy as np

from medjax import registry
from medjax.data.pipeline import Stream, train_stream
from medjax.data.prefetch import DeviceBatches, to_device
from medjax.data.split import describe, describe_series, fingerprint
from medjax.train import distributed, evaluator
from medjax.train.checkpoint import Checkpoints, versions
from medjax.train.layouts import FREE, HostStream, Layout, OneRun, SideBySide, probe, shared
from medjax.train.log import Log
from medjax.train.profile import Profile
from medjax.train.run import (
    Config,
    Run,
    assemble,
    load_splits,
    lock_workdir,
    metric_of,
    open_checkpoints,
    resolve,
    write_config,
    write_split,
)
from medjax.train.weights import check_start, start_from
from medjax.types import Array, DivergedError, Splits, State, UserError


@dataclass
class Member:
    """One run in the loop: its folder, its data, its log. A member that has diverged is left out of what is saved."""

    config: Config
    workdir: Path
    splits: Splits
    stream: HostStream
    checkpoints: Checkpoints
    log: Log
    diverged: str = ""


def train(config: Config, workdir: Path, profile: tuple[int, int] = (0, 0)) -> State:
    """Trains `config` in `workdir` to its last step, from where an earlier run there left off.

    The steps `profile` (first, last) are traced. Raises DivergedError where a loss is not finite.
    """
    with distributed.together():
        splits = load_splits(config, workdir)
        config = resolve(config, splits, workdir)
        run = assemble(config)
    distributed.check_same({"steps": config.steps, **registry.flat(config), **versions(), "data": fingerprint(splits)})
    if distributed.is_primary():
        print(*describe(splits), *describe_series(splits), sep="\n")
    return _train(run, OneRun(run), [config], [workdir], [splits], Profile(workdir, profile))


def train_side_by_side(configs: Sequence[Config], workdirs: Sequence[Path]) -> list[str]:
    """Trains every config in its folder, as `train` would one by one, in one program; each can be resumed alone.

    Returns for each why it has diverged, "" where it has not. Raises UserError where they differ in more than their seeds
    and learning rates.
    """
    splits = [load_splits(config, workdir) for config, workdir in zip(configs, workdirs, strict=True)]
    configs = [resolve(*given) for given in zip(configs, splits, workdirs, strict=True)]
    if len({shared(config) for config in configs}) > 1:
        flat = [registry.flat(config) for config in configs]
        keys = [f"config.{key}" for key in flat[0] if key not in FREE and any(one[key] != flat[0][key] for one in flat)]
        raise UserError("--side_by_side", f"members differ in {', '.join(keys)}; side by side they may in config.seed and "
                        "config.optim.lr alone")
    run = assemble(configs[0])
    members: list[Member] = []
    _train(run, SideBySide(run, configs), configs, workdirs, splits, Profile(workdirs[0], (0, 0)), members)
    return [member.diverged for member in members]


def _train(run: Run, layout: Layout, configs: Sequence[Config], workdirs: Sequence[Path], splits: Sequence[Splits],
           profile: Profile, members: list[Member] | None = None) -> State:
    """Opens what the members need, restores them to the newest step that all have, and runs the loop."""
    members = [] if members is None else members
    with ExitStack() as stack:
        with distributed.together():
            streams = [stack.enter_context(open_stream(run, config, own, layout))
                       for config, own in zip(configs, splits, strict=True)]
            shapes = _check(run, layout, streams[0])
            for pair in zip(configs, workdirs, strict=True):
                check_start(*pair, shapes)
        with distributed.together():
            for config, workdir, own in zip(configs, workdirs, splits, strict=True):
                if distributed.is_primary():
                    stack.enter_context(lock_workdir(workdir))
                    write_config(workdir, config)
                    for line in write_split(workdir, own):
                        print(line)
        folders = [stack.enter_context(open_checkpoints(*pair)) for pair in zip(configs, workdirs, strict=True)]
        states = [layout.start(stream, config.seed) for stream, config in zip(streams, configs, strict=True)]
        step = _restore(folders, states, streams)
        if not step:
            states = [start_from(config, state) for config, state in zip(configs, states, strict=True)]
        if step and distributed.is_primary():
            print(f"resuming from step {step}")
        silent = not distributed.is_primary()
        for i, config in enumerate(configs):
            log = Log(workdirs[i], config.steps, step, config.batch_size, silent, bar=i == 0)
            stack.callback(log.close)
            members.append(Member(config, workdirs[i], splits[i], streams[i], folders[i], log))
        return _loop(run, layout, members, layout.join(states), profile)


def _restore(folders: Sequence[Checkpoints], states: list[State], streams: Sequence[HostStream]) -> int:
    """Puts the members at the newest step of which all have a sound checkpoint; returns it, 0 where there is none."""
    found = [folder.restore_latest(state) for folder, state in zip(folders, states, strict=True)]
    step = min(0 if pair is None else int(pair[0].step) for pair in found)
    for i, (folder, pair) in enumerate(zip(folders, found, strict=True)):
        if pair is not None and step:
            states[i], position = pair if int(pair[0].step) == step else folder.restore(step, states[i])
            streams[i].set_state(position)
        if len(folders) > 1:
            folder.forget_after(step)  # a kill came between one member's checkpoint and the next one's
    return step


@contextmanager
def open_stream(run: Run, config: Config, splits: Splits, layout: Layout) -> Iterator[Stream]:
    """The training batches of a run, as its layout takes them; on leaving, reading threads and processes are ended."""
    data = config.data
    open_ = partial(train_stream, splits["train"], batch_size=config.batch_size * run.objective.batches,
                    patch=registry.frozen(data.patch), ndim=data.ndim, seed=config.seed, foreground=data.foreground)
    multiple = layout.multiple_of(lambda: {name: array[:1] for name, array in open_().first().items()})
    stream = open_(workers=data.workers, multiple_of=multiple, share=layout.share)
    try:
        yield stream
    finally:
        stream.close()


def _check(run: Run, layout: Layout, stream: HostStream) -> State:
    """The state's shapes, by tracing a step: what doesn't fit together is said before anything is compiled or written."""
    metric_of(run.config)
    rows = run.config.batch_size * run.objective.batches
    row = probe(stream.first(), layout.share)
    first = {name: jax.ShapeDtypeStruct((rows, *array.shape[1:]), array.dtype) for name, array in row.items()}
    state = jax.eval_shape(layout.initial, row, jax.random.PRNGKey(0))
    jax.eval_shape(layout.step, *layout.placed(state, first))
    return state


def _loop(run: Run, layout: Layout, members: Sequence[Member], state: State, profile: Profile) -> State:
    config, log = run.config, members[0].log
    step_fn, stopped = layout.compile(state), Stop()
    step = first = int(np.asarray(layout.member(state.step, 0)))
    batches = to_device(layout.streams([member.stream for member in members]), layout.place)
    pending: tuple[int, dict[str, Array]] | None = None
    try:
        while step < config.steps and not stopped.at(step):
            profile.before(step + 1)
            batch = next(batches)
            for member in members:
                member.log.spent["input"] = batches.waited
            with jax.transfer_guard("disallow"), log.timed("compile") if step == first else nullcontext():
                state, logs = step_fn(state, batch)
            step += 1
            if profile.after(step, logs):
                log.say(f"trace of the steps to {step}: {profile.folder}")
            log.advance()
            # One step late: the device is already busy with the next step while this one's numbers are read.
            if pending is not None:
                _report(members, *pending)
            pending = (step, logs)
            last = step == config.steps
            evaluated = last or step % config.eval_every == 0
            if evaluated or stopped.at(step) or step % config.checkpoint_every == 0:
                _report(members, *pending)
                pending = None
                _save(run, layout, members, state, batches, step, evaluated)
        with log.timed("checkpoint"):
            for member in members:
                member.checkpoints.wait()
        log.say(log.shares())
    except jax.errors.JaxRuntimeError as error:
        if distributed.several():
            distributed.abort(error)
        raise
    finally:
        batches.close()
        profile.close()
        stopped.restore()
    if stopped.at(step) and step < config.steps:
        if distributed.is_primary():
            print(f"stopped by signal at step {step}, saved; run the same command to resume")
        raise SystemExit(stopped.exit_code)
    return state


def _save(run: Run, layout: Layout, members: Sequence[Member], state: State, batches: DeviceBatches, step: int,
          evaluated: bool) -> None:
    """Evaluates, where it is due, and saves every member that has not diverged."""
    positions = batches.get_state()
    for i, member in enumerate(members):
        if member.diverged:
            continue
        own = layout.member(state, i)
        with member.log.timed("eval"):
            metrics = _validate(layout.evaluator, own, member, step) if evaluated and member.splits["val"] else None
        with member.log.timed("checkpoint"):
            member.checkpoints.save(own, positions[i] if isinstance(positions, list) else positions, metrics)


def _report(members: Sequence[Member], step: int, logs: dict[str, Array]) -> None:
    """Logs a step. A loss that is not finite ends a single run; of several members only that one."""
    everything = jax.device_get(logs)
    for i, member in enumerate(members):
        if member.diverged:
            continue
        own = everything if len(members) == 1 else {name: value[i] for name, value in everything.items()}
        scalars = {name: float(value) for name, value in own.items()}
        broken = [name for name, value in scalars.items() if not np.isfinite(value)]
        if broken:
            member.checkpoints.wait()
            member.diverged = (f"{broken[0]} is not finite; the last checkpoint is of step {member.checkpoints.latest()}; "
                               "try a smaller config.optim.lr or config.optim.clip")
            # Names of files are for the screen: what has diverged is also written to the table of a sweep.
            member.log.say(f"step {step} was on {', '.join(member.stream.names(step - 1))}")
            if len(members) == 1:
                raise DivergedError(f"step {step}", member.diverged)
            member.log.say(f"{member.workdir}: step {step}: {member.diverged}")
        elif step % member.config.log_every == 0 or step == member.config.steps:
            member.log.train(step, scalars)


def _validate(evaluate: evaluator.Evaluator, state: State, member: Member, step: int) -> dict[str, float]:
    batches = evaluate.batches(member.splits["val"], member.config.eval_samples)
    metrics = evaluator.scalars(evaluator.summary(evaluate.run, list(evaluate(state, batches))))
    member.log.write(step, {f"eval/{name}": value for name, value in metrics.items()})
    member.log.say(f"step {step}: validation " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return metrics


class Stop:
    """Turns true once the process is asked to end (SIGTERM, or Ctrl-C), so that the loop can save first.

    Several processes agree on the step, by jax's own handler of SIGTERM, which Ctrl-C is passed on to. `exit_code` is what
    shells give such an end.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._signal: int = signal.SIGTERM
        several = distributed.several()
        handlers = {signal.SIGINT: self._pass_on} if several else {signal.SIGTERM: self._ask, signal.SIGINT: self._ask}
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {
            number: signal.signal(number, handler) for number, handler in handlers.items()}

    @property
    def exit_code(self) -> int:
        """128 and the signal's number: a scheduler sees that the work is not done."""
        return 128 + (self._asked or signal.SIGTERM)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = number

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        os.kill(os.getpid(), signal.SIGTERM)

    def at(self, step: int) -> bool:
        """Whether to stop after this step."""
        if self._asked is None and distributed.all_asked_to_stop(step):
            self._asked = self._signal
        return self._asked is not None

    def restore(self) -> None:
        """Puts the former handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
