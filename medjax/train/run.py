"""From a config to the things a run is made of, and a run's folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import ml_collections

from medjax import registry
from medjax.data.split import Splits, split
from medjax.data.statistics import value_range
from medjax.files import write_atomically
from medjax.models.features import FeatureNetwork
from medjax.train.checkpoint import Checkpoints
from medjax.train.optim import optimizer
from medjax.train.step import Optimizers
from medjax.types import UserError

Config = ml_collections.ConfigDict
MAY_CHANGE = ("steps", "log_every", "eval_every", "eval_samples", "checkpoint_every", "keep", "mesh", "remat",
              "data.workers")


@dataclass(frozen=True)
class Run:
    """What a config describes: the task, the objective with its networks, the optimizers."""

    config: Config
    task: Any
    objective: Any
    optimizers: Optimizers


def load_splits(config: Config) -> Splits:
    """The records of `config.data`, as train, validation and test. `data.path` takes the place of a built-in source."""
    source = registry.spec("data.sources", "files", path=config.data.path) if config.data.path else config.data.source
    return split(registry.build("data.sources", source).load(), config.data.fractions, config.seed)


def resolve(config: Config, splits: Splits) -> Config:
    """The config with what it leaves to the training images filled in: the range of values, the number of channels."""
    config = Config(config.to_dict())
    config.data.channels = int(splits["train"][0].image.shape[-1])
    if not config.data.range:
        config.data.range = value_range(splits["train"])
    low, high = config.data.range
    if not low < high:
        raise UserError("config.data.range", f"from {low} to {high} there is nothing; give a range, or images that vary")
    config.task.update(_task(config).settled(splits))
    return config


def assemble(config: Config) -> Run:
    """Builds everything that a resolved config names. Raises UserError for what doesn't fit together."""
    task = _task(config)
    given = {"ndim": config.data.ndim, "channels": task.outputs(config.data.channels), "scale": task.scale}
    networks = {key: registry.build("models", config[key], **given) for key in ("model", "critic") if key in config}
    objective = registry.build("objectives", config.objective, task=task, features=features_of(config), **networks)
    optimizers = {player: optimizer(config.steps, **config.optim) for player in set(objective.players)}
    return Run(config, task, objective, optimizers)


def claim(workdir: Path, config: Config) -> None:
    """Makes `workdir` this config's run: writes `config.json`, or checks that the one there is of the same run."""
    path = workdir / "config.json"
    if path.exists():
        old, new = (_flat(c) for c in (load_config(workdir), config))
        changed = [key for key in sorted(old | new) if old.get(key) != new.get(key) and not _may_change(key)]
        if changed:
            was = ", ".join(f"{key}={old.get(key)}" for key in changed)
            raise UserError(workdir, f"holds a run with {was}; give those values, or another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(config.to_dict(), indent=1))


def load_config(workdir: Path) -> Config:
    """The resolved config of the run in `workdir`."""
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(workdir, "holds no run (no config.json); train first: python train.py --config=… --workdir=…")
    return Config(json.loads(path.read_text(encoding="utf-8")))


def features_of(config: Config) -> FeatureNetwork | None:
    """The trained network of the run in `config.features_workdir`; None where the config has no such key or it is empty."""
    if not config.get("features_workdir"):
        return None
    workdir = Path(config.features_workdir)
    trained = load_config(workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", trained.metric)
    try:
        step = checkpoints.best()
        if step is None:
            raise UserError(workdir, "has no checkpoint yet; train it first")
        state = jax.device_get(checkpoints.networks(step))
    finally:
        checkpoints.close()
    variables = {"params": (state.params | state.ema)["model"], **state.variables["model"]}
    return FeatureNetwork(assemble(trained).objective.model, variables, trained.data.ndim, trained.data.channels)


def _task(config: Config) -> Any:
    return registry.build("tasks", config.task, data_range=registry.frozen(config.data.range), ndim=config.data.ndim,
                        features=features_of(config))


def _may_change(key: str) -> bool:
    return any(key == name or key.startswith(name + ".") for name in MAY_CHANGE)


def _flat(config: Config, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Config) else {prefix + key: registry.frozen(value)}
    return flat
