"""Checkpoints: the state, the pipeline's position and the versions, written asynchronously and atomically."""

import logging
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp

from medjax.types import State

# Orbax warns of every checkpoint without metrics; most are meant to have none.
logging.getLogger("absl").addFilter(lambda record: "tracked_metric" not in record.getMessage())
POLICY = ocp.checkpoint_managers


def versions() -> dict[str, str]:
    """What a bit-exact resume depends on."""
    return {"jax": jax.__version__, "flax": flax.__version__, "numpy": np.__version__, "orbax": ocp.__version__}


class Checkpoints:
    """The latest checkpoints of a run and its best one, in `folder`.

    A checkpoint that carries metrics competes for the best by `metric` (the higher the better with `best="max"`).
    """

    def __init__(self, folder: Path, metric: str, best: str = "max", keep: int = 2):
        keep_best = POLICY.BestN(get_metric_fn=lambda m: m[metric], n=1, reverse=best == "min",
                                 keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            best_fn=lambda m: m[metric], best_mode=best,
            preservation_policy=POLICY.AnyPreservationPolicy([POLICY.LatestN(keep), keep_best]))
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, state: State, data: dict[str, Any], metrics: dict[str, float] | None = None) -> None:
        """Starts writing the state and the pipeline's position; returns once they are copied from the device."""
        stored = ocp.args.Composite(state=ocp.args.StandardSave(_storable(state)), data=ocp.args.JsonSave(data),
                                    versions=ocp.args.JsonSave(versions()))
        self._manager.save(int(state.step), args=stored, metrics=metrics)

    def latest(self) -> int | None:
        """The newest whole checkpoint's step."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step of the checkpoint with the best metric; the newest where none has metrics."""
        best = self._manager.best_step()
        return self.latest() if best is None else best

    def restore(self, step: int, like: State) -> tuple[State, dict[str, Any]]:
        """The state at `step`, placed as `like` is, and the pipeline's position."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _storable(like))
        asked = ocp.args.Composite(state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=asked)
        leaves = [found.state["opt_state"][path] for path in _by_path(like.opt_state)]
        opt_state = jax.tree.unflatten(jax.tree.structure(like.opt_state), leaves)
        return State(**found.state | {"opt_state": opt_state}), found.data

    def networks(self, step: int) -> State:
        """The state at `step` without its optimizers, on the host: what evaluation and use need, whatever made it."""
        found = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
        return State(**found.state | {"opt_state": {}})

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self._manager.close()


def _storable(state: State) -> dict[str, Any]:
    """The state as nested dictionaries; what optax makes of its own types goes by path."""
    return vars(state) | {"opt_state": _by_path(state.opt_state)}


def _by_path(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
