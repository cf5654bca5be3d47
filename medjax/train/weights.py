"""Weights in runs: the shapes that a network needs, a run made of weights, and a run that starts from those of another."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax import registry
from medjax.files import move, staging, write_atomically
from medjax.train.run import CONFIG, WEIGHTS, Config, Run, open_checkpoints, restore_best, write_config
from medjax.types import Batch, State, Tree, UserError, Variables

KEPT = ("params", "batch_stats")
SIDE = 64  # voxels of an image for which shapes are inferred, where the config's are of any size


def shapes_of(run: Run) -> dict[str, tuple[int, ...]]:
    """The shapes of the one network's variables by path, "params/Conv_0/kernel".

    Raises UserError for a run that trains several networks.
    """
    network = getattr(run.objective, "model", None)
    if network is None or tuple(run.objective.networks) != ("model",):
        raise UserError("config.objective.name", f"{run.config.objective.name} has other networks than a model; "
                        "use supervised")
    found = jax.eval_shape(lambda batch: _initial(run, network, batch), _any_batch(run.config))
    return {path: leaf.shape for path, leaf in by_path(found).items()}


def by_path(tree: Tree) -> dict[str, Any]:
    """The leaves of nested dictionaries by their keys, joined by "/"."""
    return {"/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def variables_of(state: State) -> dict[str, np.ndarray]:
    """The model's weights that are used, by path."""
    params, variables = jax.device_get(state.for_use())
    return by_path({"params": params["model"], **variables["model"]})


def write_run(workdir: Path, config: Config, arrays: Mapping[str, np.ndarray], noted: Mapping[str, Any]) -> None:
    """Makes `workdir` a run whose model has the weights `arrays`, by path, at step 0; `noted` says where they are from.

    Raises UserError where there is a run already.
    """
    if (workdir / CONFIG).exists():
        raise UserError(workdir, "holds a run already; name another --workdir")
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *groups, last = path.split("/")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = jnp.asarray(array)
    params = tree.pop("params")
    state = State(jnp.zeros((), jnp.int32), {"model": params}, {"model": tree}, {}, {}, jax.random.PRNGKey(config.seed))
    with staging(workdir.parent) as folder:
        made = folder / workdir.name
        write_config(made, config)
        write_atomically(made / WEIGHTS, json.dumps(noted, indent=1))
        with open_checkpoints(config, made) as checkpoints:
            checkpoints.save(state, {})
        move(made, workdir)


def start_from(config: Config, state: State) -> State:
    """The first state of a run, with the weights of the run in `config.init_workdir` for the players that both have.

    Raises UserError where a network has other layers there.
    """
    if not config.init_workdir:
        return state
    players, params, variables = _given(config, state)

    def placed(own: Tree, given: Tree) -> Tree:
        return jax.tree.map(lambda old, new: jax.device_put(jnp.asarray(new), old.sharding), own, given)

    new = {player: placed(state.params[player], params[player]) for player in players}
    rest = {player: placed(state.variables[player], variables[player]) for player in players}
    ema = {player: {"params": new[player], "variables": {k: rest[player][k] for k in averaged["variables"]}}
           for player, averaged in state.ema.items() if player in new}
    return State(state.step, state.params | new, state.variables | rest, state.opt_state,
                 state.ema | jax.tree.map(jnp.copy, ema), state.key)


def check_start(config: Config, workdir: Path, shapes: State) -> None:
    """Raises UserError where a new run in `workdir`, its state of these shapes, can't start from `config.init_workdir`."""
    if config.init_workdir and not (workdir / CONFIG).exists():
        _given(config, shapes)


def _given(config: Config, state: State) -> tuple[list[str], dict[str, Tree], dict[str, Tree]]:
    """The players that a run has in common with the one in `config.init_workdir`, and their params and variables there.

    Raises UserError where there is none, or a network has other layers.
    """
    run, found = restore_best(Path(config.init_workdir))
    params, variables = jax.device_get(found.for_use())
    players = [player for player in state.params if player in params]
    if not players:
        raise UserError("config.init_workdir", f"its run has {', '.join(params)}, this one {', '.join(state.params)}")
    others = [f"--config.{player}.{key}={shlex.quote(str(value))}" for player in players
              for key, value in registry.flat(run.config[player]).items() if registry.flat(config[player]).get(key) != value]
    for player in players:
        for own, given in ((state.params[player], params[player]), (state.variables[player], variables[player])):
            _check_same(player, by_path(own), by_path(given), " ".join(others) or "both the same data.channels and task")
    return players, params, variables


def _initial(run: Run, network: Any, batch: Batch) -> Variables:
    given = run.task.input(batch)
    found = network.init(jax.random.PRNGKey(0), given.image, given.context)
    return {name: tree for name, tree in found.items() if name in KEPT}


def _any_batch(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of one sample as files have it; measured k-space of two coils beside."""
    space = tuple(config.data.patch) or (SIDE,) * config.data.ndim
    shapes = {"image": (1, *space, config.data.channels), "kspace": (1, *space, 4), "slope": (1,), "intercept": (1,),
              "count": (1,)}
    found = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    return {**found, "id": jax.ShapeDtypeStruct((1,), jnp.uint32)}


def _check_same(player: str, own: Mapping[str, Any], given: Mapping[str, Any], help: str) -> None:
    for path in [*own, *(path for path in given if path not in own)]:
        shapes = [tree[path].shape if path in tree else "nothing" for tree in (given, own)]
        if shapes[0] != shapes[1]:
            raise UserError("config.init_workdir", f"{player}/{path} is {shapes[0]} there and {shapes[1]} in this run; give "
                            + help)
