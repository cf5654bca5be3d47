"""Conversion of weights as the command does it, in the process of a test."""

import importlib
from pathlib import Path

import jax

from medjax.train.converted import Converted, take_over
from medjax.train.run import restore_best
from medjax.types import Array
from medjax.weights._table import find


def convert(family: str, file: Path, workdir: Path, **given: object) -> Converted:
    """As the command with `--config.KEY=VALUE` for each of `given`, where "__" stands for the dot."""
    name, _, structure = find(family).CONFIG.partition(":")
    module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    config, keys = module.get_config(structure), {key.replace("__", "."): value for key, value in given.items()}
    config.update_from_flattened_dict(keys)
    return take_over(family, file, workdir, config, keys)


def output(workdir: Path, x: Array, context: object = None) -> Array:
    """What the model of a run makes of `x` `(B, *space, C)` in use."""
    run, state = restore_best(workdir)
    params, variables = state.for_use()
    return jax.jit(run.objective.model.apply)({"params": params["model"], **variables["model"]}, x, context)
