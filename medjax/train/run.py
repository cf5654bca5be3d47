"""A run: from a config to the things it is made of, and its folder: what is written there, and how it is restored."""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import jax
import ml_collections

from medjax import registry
from medjax.data.domain import domain_of
from medjax.data.normalise import normalised
from medjax.data.split import assignment, changes, fingerprint, held_parts, split
from medjax.data.statistics import value_range
from medjax.data.storage.tfds_layout import is_prepared
from medjax.files import locked, write_atomically
from medjax.models.features import FeatureNetwork, Features
from medjax.train import privacy
from medjax.train.checkpoint import Checkpoints
from medjax.train.optim import optimizer
from medjax.train.step import Optimizers
from medjax.types import Metric, Model, Objective, Record, Source, Splits, State, Task, UserError

CONFIG, SPLIT, DATA, WEIGHTS = "config.json", "split.json", "data.json", "weights.json"
Config: TypeAlias = ml_collections.ConfigDict
MAY_CHANGE = ("steps", "log_every", "eval_every", "eval_samples", "checkpoint_every", "keep", "mesh", "remat",
              "data.workers", "references", "init_workdir")


@dataclass(frozen=True)
class Run:
    """What a config describes: the task, the objective with its networks, the optimizers."""

    config: Config
    task: Task
    objective: Objective
    optimizers: Optimizers


def load_splits(config: Config, workdir: Path | None = None) -> Splits:
    """The records of `config.data`, as train, validation and test.

    Subjects that the run in `workdir` has divided before stay in their part.
    """
    return split(load_records(config), config.data.fractions, config.data.split_seed, held_split(workdir))


def load_records(config: Config, path: Path | None = None, series: str | None = None) -> list[Record]:
    """The records of `config.data`, or those of `path` in the place of `config.data.path`; `series` stands for the config's.

    The path goes to the source that the config names, if that reads files; else images there are read as they are. Raises
    UserError.
    """
    chosen = _source_at(config.data.source, str(path or config.data.path))
    series = config.data.series if series is None else series
    if series:
        chosen = _of_series(chosen, series)
    source = registry.build("data.sources", chosen)
    registry.check_members("data.sources", chosen.name, source, Source)
    records = [_checked(record, chosen.name) for record in source.load()]
    spacing = registry.frozen(config.data.spacing_mm)
    if spacing:
        records = [record if record.spacing_mm else replace(record, spacing_mm=spacing[-record.ndim:]) for record in records]
    return [normalised(record, config.data.normalise)[0] for record in records]


def _source_at(source: Config, path: str) -> Config:
    """The source with another path; the user's files in its place where it has none, or where a prepared set is there."""
    if not path:
        return source
    if "path" not in source or is_prepared(Path(path).expanduser()):
        return registry.spec("data.sources", "files", path=path)
    return Config({**source.to_dict(), "path": path})


def _of_series(chosen: Config, series: str) -> Config:
    """A source that takes one series alone. Raises UserError where it has none."""
    if chosen.name != "files":
        raise UserError("config.data.series", f"{series!r} can't be chosen from the source {chosen.name}; give "
                        "config.data.path")
    return Config({**chosen.to_dict(), "series": series})


def resolve(config: Config, splits: Splits, workdir: Path | None = None) -> Config:
    """The config with what it leaves to the training images filled in: range of values, channels, what they show.

    A run that is resumed in `workdir` keeps what was filled in at its start, though images may have come or gone since.
    """
    config = Config(config.to_dict())
    saved = load_config(workdir) if workdir is not None and (workdir / CONFIG).exists() else None
    private = privacy.is_private(config)
    if private:
        _check_unseen(config, splits)
        privacy.resolve(config, splits, saved)
    config.data.channels = int(splits["train"][0].image.shape[-1])
    config.data.domain = domain_of(splits) if saved is None else saved.data.domain
    if private:
        config.data.domain.percentiles = config.data.range
    if not config.data.range:
        config.data.range = value_range(splits["train"]) if saved is None else saved.data.range
    low, high = config.data.range
    if not low < high:
        raise UserError("config.data.range", f"from {low} to {high} there is nothing; give a range, or images that vary")
    for key, value in build_task(config).resolve_from_data(splits).items():
        if private and isinstance(value, tuple) and any(isinstance(one, float) for one in value):
            raise UserError(f"config.task.{key}", "would be taken from the training images, which is not private; give it")
        config.task[key] = value if saved is None else saved.task[key]
    return config


def _check_unseen(config: Config, splits: Splits) -> None:
    """Raises UserError where a private run begins with, or looks through, a network that has seen its patients."""
    subjects = {region.record.subject for region in splits["train"]}
    for key in ("init_workdir", "features_workdir"):
        held = held_split(Path(config[key])) if config[key] else None
        seen = [part for part in held_parts(held or {}, subjects).values() if part != "test"]
        if seen:
            raise UserError(f"config.{key}", f"{config[key]} was trained on {len(seen)} of the patients that are to be "
                            "private; give a run that has not seen them")


def held_split(workdir: Path | None) -> dict[str, str] | None:
    """Which part each subject of the run in `workdir` is in, by salted hashes; None where there is no such run."""
    path = None if workdir is None else workdir / SPLIT
    if path is None or not path.exists():
        return None
    return _read(path)


def write_split(workdir: Path, splits: Splits) -> list[str]:
    """Notes in the run's folder who is in which part; returns in words what has changed since it was noted."""
    held = held_split(workdir)
    found = assignment(splits, held)
    if held != found:
        write_atomically(workdir / SPLIT, json.dumps((held or {}) | found, indent=1))
    said = changes(held, splits) if held else []
    noted, now = _read(workdir / DATA) if (workdir / DATA).exists() else {}, {"fingerprint": fingerprint(splits)}
    if noted != now:
        write_atomically(workdir / DATA, json.dumps(now))
    if noted and noted != now and not said:
        said = ["the images of these subjects are not those that the run began with: other files, sizes or times"]
    return said


@contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
    """Holds a run's folder for one training at a time.

    Raises UserError while another holds it, and where it has converted weights.
    """
    if (workdir / WEIGHTS).exists():
        raise UserError(workdir, "holds converted weights, which stay as they are; start from them in another --workdir: "
                        f"--config.init_workdir={workdir}")
    workdir.mkdir(parents=True, exist_ok=True)
    busy = UserError(workdir, "another training is writing here; wait for it, or name another --workdir")
    with locked(workdir / ".lock", busy):
        yield


def assemble(config: Config) -> Run:
    """Builds everything that a resolved config names. Raises UserError for what doesn't fit together."""
    task = build_task(config)
    given = {"ndim": config.data.ndim, "channels": task.out_channels(config.data.channels), "scale": task.scale}
    wanted = registry.find("objectives", config.objective.name).networks  # type: ignore[attr-defined]
    for key in wanted:
        if key not in config:
            raise UserError(f"config.{key}", f"{config.objective.name} needs this network and the config has none; choose "
                            f"the objective behind the colon: --config=…:objective={config.objective.name}")
    networks = {key: registry.build("models", config[key], **given) for key in wanted}
    objective = registry.build("objectives", config.objective, task=task, features=features_of(config), **networks)
    registry.check_members("objectives", config.objective.name, objective, Objective)
    for key, network in networks.items():
        context = ("context",) if key in objective.predictors else ()  # critics see images alone
        registry.check_call("models", config[key].name, network, "image", *context)
    optimizers = {player: optimizer(config.steps, **config.optim) for player in set(objective.players)}
    return Run(config, task, objective, optimizers)


def build_task(config: Config) -> Task:
    """The task of a config."""
    task = registry.build("tasks", config.task, data_range=registry.frozen(config.data.range), ndim=config.data.ndim,
                          features=features_of(config))
    registry.check_members("tasks", config.task.name, task, Task)
    return task


def metric_of(config: Config) -> Metric:
    """The metric that a resolved config's best checkpoint is best at. Raises UserError for one that its task has not."""
    known = {metric.name: metric for metric in build_task(config).metrics}
    if config.metric not in known:
        raise UserError("config.metric", f"unknown {config.metric!r}; {config.task.name} has {', '.join(known)}")
    return known[config.metric]


def described(config: Config, task: Task) -> dict[str, Metric]:
    """The task's metrics by name, the one that chooses the checkpoint first, with the units that the config's data has."""
    domain = config.data.domain
    words = {"units": domain.units or "units", "length": "mm" if domain.spacing_mm else "px"}
    found = {metric.name: replace(metric, unit=metric.unit.format(**words)) for metric in task.metrics}
    return {name: found[name] for name in sorted(found, key=lambda name: name != config.metric)}


def write_config(workdir: Path, config: Config) -> None:
    """Makes `workdir` this config's run: writes `config.json`, or checks that the one there is of the same run."""
    path = workdir / CONFIG
    if path.exists():
        old, new = (registry.flat(c) for c in (_completed(load_config(workdir)), config))
        changed = [key for key in sorted(old | new) if old.get(key) != new.get(key) and not may_change(key)]
        if changed:
            was = ", ".join(f"{key}={old.get(key)}" for key in changed)
            raise UserError(workdir, f"holds a run with {was}; give those values, or another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(config.to_dict(), indent=1))


def _completed(config: Config) -> Config:
    """The config of a run with the keys that its task, objective, networks and source have got since, at their defaults."""
    config = Config(config.to_dict())
    config.privacy = config.get("privacy", privacy.default())
    networks = registry.find("objectives", config.objective.name).networks  # type: ignore[attr-defined]
    named = {"tasks": [config.task], "objectives": [config.objective], "data.sources": [config.data.source],
             "models": [config[key] for key in networks if key in config]}
    for layer, groups in named.items():
        for group in groups:
            for key, value in registry.spec(layer, group.name).items():
                if key not in group:
                    group[key] = value
    return config


def load_config(workdir: Path) -> Config:
    """The resolved config of the run in `workdir`."""
    path = workdir / CONFIG
    if not path.exists():
        raise UserError(workdir, "holds no run (no config.json); train first: python train.py --config=… --workdir=…")
    return Config(_read(path))


def read_weights(workdir: Path) -> dict[str, Any]:
    """Where the weights of a converted run are from; nothing for a run that was trained."""
    path = workdir / WEIGHTS
    return _read(path) if path.exists() else {}


def _read(path: Path) -> dict[str, Any]:
    """The JSON of a file in a run's folder."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(path, f"is damaged ({error}); put a sound copy back, or train in another folder") from error


@contextmanager
def open_checkpoints(config: Config, workdir: Path) -> Iterator[Checkpoints]:
    """The checkpoints of a run; on leaving, everything is on disk."""
    checkpoints = Checkpoints(workdir / "checkpoints", metric_of(config), config.keep)
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


def features_of(config: Config) -> Features:
    """The trained network of the run in `config.features_workdir`, loaded when it is first used."""
    return _features(config.features_workdir)


@functools.lru_cache(maxsize=8)
def _features(workdir: str) -> Features:
    def load() -> FeatureNetwork | None:
        if not workdir:
            return None
        run, state = restore_best(Path(workdir))
        params, variables = jax.device_get(state.for_use())
        data = run.config.data
        module: Model | None = getattr(run.objective, "model", None)
        if module is None:
            raise UserError(workdir, f"a run of {run.config.objective.name} has no network called model to look through")
        return FeatureNetwork(module, {"params": params["model"], **variables["model"]}, data.ndim, data.channels)

    return Features(load)


def _checked(record: Record, source: str) -> Record:
    """The record, if it is one that a pipeline can read."""
    shape = record.image.shape
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise UserError(f"config.data.source.name={source}", f"{record.id} has an image of shape {tuple(shape)}; give "
                        "(H, W, C) or (D, H, W, C), with an axis of one channel where there are no others")
    return record


def may_change(key: str) -> bool:
    """Whether a resumed run may have another value of a key."""
    return any(key == name or key.startswith(name + ".") for name in MAY_CHANGE)
