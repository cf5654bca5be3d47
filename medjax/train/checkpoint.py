"""Checkpoints: the state, the pipeline's position and the versions, written asynchronously and atomically.

Each carries the checksums of its files, so that one that lost bits since is told from a sound one, and passed over.
"""

import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax.data.prefetch import Position
from medjax.files import NO_ROOM
from medjax.train import distributed
from medjax.types import Array, Metric, State, Tree, UserError

# Orbax warns of every checkpoint without metrics; most are meant to have none.
logging.getLogger("absl").addFilter(lambda record: "tracked_metric" not in record.getMessage())
POLICY = ocp.checkpoint_managers
SUMS = "checksums.json"


def versions() -> dict[str, str]:
    """What a bit-exact resume depends on."""
    return {"jax": jax.__version__, "flax": flax.__version__, "numpy": np.__version__, "orbax": ocp.__version__}


class Checkpoints:
    """The latest checkpoints of a run and its best one, in `folder`.

    A checkpoint that carries metrics competes for the best by `metric`; one whose value is not finite is the worst.
    """

    def __init__(self, folder: Path, metric: Metric, keep: int = 2):
        lower = metric.lower_is_better

        def value(metrics: dict[str, float]) -> float:
            found = metrics[metric.name]
            return found if math.isfinite(found) else (math.inf if lower else -math.inf)

        keep_best = POLICY.BestN(get_metric_fn=value, n=1, reverse=lower, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            best_fn=value, best_mode="min" if lower else "max",
            preservation_policy=POLICY.AnyPreservationPolicy([POLICY.LatestN(keep), keep_best]),
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._sum_up))
        self._folder = folder.absolute()
        handlers = {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler(),
                    "versions": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)
        self._writing = 0

    def save(self, state: State, data: Position, metrics: dict[str, float] | None = None) -> None:
        """Starts writing the state and the pipeline's position; returns once they are copied from the device.

        Raises UserError where the disk has no room for it; the checkpoints that are there stay as they are.
        """
        stored = _storable(state)
        step = int(state.step)
        self.wait()
        self._writing = step
        self._check_room(step, sum(leaf.nbytes for leaf in jax.tree.leaves(stored)))
        with self._room():
            self._manager.save(step, metrics=metrics, args=ocp.args.Composite(
                state=ocp.args.StandardSave(stored), data=ocp.args.JsonSave(data), versions=ocp.args.JsonSave(versions())))

    def latest(self) -> int | None:
        """The newest checkpoint's step."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step of the sound checkpoint with the best metric; the newest sound one where none has metrics.

        None where there is no checkpoint yet. Raises UserError where every one is damaged.
        """
        best = self._manager.best_step()
        steps = sorted(self._manager.all_steps(), reverse=True)
        return self._first_sound(steps if best is None else [best, *(step for step in steps if step != best)])

    def restore_latest(self, like: State) -> tuple[State, Position] | None:
        """The newest sound checkpoint: its state, placed as `like` is, and the pipeline's position.

        Damaged ones are said and set aside, as `<step>.damaged`. None where there is no checkpoint yet. Raises UserError
        where every one is damaged.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        sound = self._first_sound(steps)
        damaged = [step for step in steps if sound is not None and step > sound]
        if damaged and distributed.is_primary():
            for step in damaged:
                shutil.rmtree(self._folder / f"{step}.damaged", ignore_errors=True)
                (self._folder / str(step)).rename(self._folder / f"{step}.damaged")
        if damaged:
            distributed.wait_for_all("set aside")
            self._manager.reload()
        return None if sound is None else self.restore(sound, like)

    def forget_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps, which the run repeats."""
        for later in self._manager.all_steps():
            if later > step:
                self._manager.delete(later)

    def restore(self, step: int, like: State) -> tuple[State, Position]:
        """The state at `step`, placed as `like` is, and the pipeline's position."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _storable(like))
        asked = ocp.args.Composite(state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore(),
                                   versions=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=asked)
        self._compare(found.versions)
        leaves = [found.state["opt_state"][path] for path in _by_path(like.opt_state)]
        opt_state = jax.tree.unflatten(jax.tree.structure(like.opt_state), leaves)
        return State(**found.state | {"opt_state": opt_state}), found.data

    def _compare(self, saved: dict[str, str]) -> None:
        """Says which libraries have changed since: the run goes on, but not bit for bit as it would have."""
        here = versions()
        changed = [f"{name} {saved[name]} is now {here[name]}" for name in here if saved.get(name, here[name]) != here[name]]
        if changed and distributed.is_primary():
            absl_logging.warning("%s: %s; what follows may differ in the last digits", self._folder, ", ".join(changed))

    def networks(self, step: int) -> State:
        """The state at `step` without its optimizers: what evaluation and use need, whatever devices made it."""
        state, _ = self.contents(step)
        return State(**state | {"opt_state": {}})

    def contents(self, step: int) -> tuple[dict[str, Tree], Position]:
        """All arrays at `step`, the optimizers' by path, with a copy in every process; and the pipeline's position."""
        here = jax.devices() if distributed.several() else jax.devices()[:1]
        place = NamedSharding(Mesh(np.array(here), ("copies",)), PartitionSpec())
        target = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=place),
                              dict(self._manager.item_metadata(step)["state"]))
        found = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target),
                                                                    data=ocp.args.JsonRestore()))
        return found.state, found.data

    def wait(self) -> None:
        """Returns when everything is on disk. Raises UserError where the disk filled up meanwhile."""
        with self._room():
            self._manager.wait_until_finished()

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Says in one line what Orbax raises where there is no room, in whatever form: it has several."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            if not any(os.strerror(number) in str(error) for number in NO_ROOM):
                raise
            raise UserError(self._folder, f"the disk filled up while step {self._writing} was written; make room, and the "
                            f"same command {self._going_on()}") from None

    def close(self) -> None:
        """Waits, then lets go of the folder. Raises UserError where the disk filled up meanwhile."""
        with self._room():
            self._manager.close()

    def _first_sound(self, steps: list[int]) -> int | None:
        """The first of `steps` that is whole, as process 0 finds them; what is wrong with those before it is said."""
        found = {}
        for step in steps:
            wrong = distributed.broadcast_from_primary(_damage(self._folder / str(step)) if distributed.is_primary() else "")
            if not wrong:
                return step
            found[step] = wrong
            if distributed.is_primary():
                print(f"checkpoint of step {step} is damaged ({wrong}); taking the one before")
        if found:
            wrong = ", ".join(f"step {step}: {what}" for step, what in found.items())
            raise UserError(self._folder, f"every checkpoint is damaged ({wrong}); put a sound copy back, or delete the "
                            "folder to train from the start")
        return None

    def _check_room(self, step: int, size: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if size > free:
            raise UserError(self._folder, f"no room for the checkpoint of step {step}: it takes {size / 2**20:.3g} MB and "
                            f"{free / 2**20:.3g} MB are free; make room, and the same command {self._going_on()}")

    def _going_on(self) -> str:
        kept = [step for step in self._manager.all_steps() if step != self._writing]
        return f"goes on from step {max(kept)}" if kept else "starts again"

    def _sum_up(self) -> None:
        """Writes the checksums of a checkpoint, as its last file before it gets its name."""
        for folder in self._folder.glob(f"{self._writing}.*tmp*") if distributed.is_primary() else ():
            sums = {str(path.relative_to(folder)): _checksum(path) for path in _files(folder)}
            (folder / SUMS).write_text(json.dumps(sums), encoding="utf-8")


def _damage(folder: Path) -> str:
    """What is wrong with a checkpoint's files; nothing where all are as they were written."""
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        for name, expected in sums.items():
            if not (folder / name).exists():
                return f"{name} is missing"
            if _checksum(folder / name) != expected:
                return f"{name} is not what was written"
    except (OSError, ValueError) as error:
        return f"{SUMS} cannot be read: {error}" if (folder / SUMS).exists() else f"it has no {SUMS}: half-written"
    return ""


def _files(folder: Path) -> Iterable[Path]:
    # Orbax writes the time into its own notes once more, after everything else.
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (SUMS, "_CHECKPOINT_METADATA"))


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(2**22):
            total = zlib.crc32(block, total)
    return total


def _storable(state: State) -> dict[str, Tree]:
    """The state as nested dictionaries; what optax makes of its own types goes by path."""
    return vars(state) | {"opt_state": _by_path(state.opt_state)}


def _by_path(tree: Tree) -> dict[str, Array]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
