"""Runs made of weights that others trained, and back: between a family's table (`medjax/weights`) and a run's folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjax import registry
from medjax.train.run import Config, assemble, load_config, read_weights, restore_best
from medjax.train.weights import shapes_of, variables_of, write_run
from medjax.types import UserError
from medjax.weights import _files as files
from medjax.weights._table import Family, Shapes, find, to_ours, to_theirs, without_prefix


@dataclass(frozen=True)
class Converted:
    """What was converted, for the screen: the family, the run's config, the keys that followed from the file."""

    family: Family
    config: Config
    settings: Mapping[str, object]
    parameters: int


def take_over(name: str, file: Path, workdir: Path, config: Config, given: Mapping[str, Any]) -> Converted:
    """Makes `workdir` a run of `config` with the weights that the family `name` has in a file.

    What follows from the file stands over the config, but for the keys `given` by the user. Raises UserError for weights
    that do not fit, with the first array that differs.
    """
    family = find(name)
    arrays = without_prefix(files.read(file), family.PREFIXES, getattr(family, "LEFT_OUT", ""))
    settings = family.settings(Shapes(file, family.TITLE, {name: array.shape for name, array in arrays.items()}))
    if beside := getattr(family, "beside", None):
        settings = {**settings, **beside(file, settings)}
    config = configured(config, settings, given)
    found, kept = to_ours(file, family.rows(config.model), arrays, shapes_of(assemble(config)), _hint(config, settings))
    write_run(workdir, config, found, {"family": name, "file": file.name, "kept": kept})
    parameters = sum(array.size for path, array in found.items() if path.startswith("params/"))
    return Converted(family, config, settings, parameters)


def give_back(workdir: Path, file: Path, name: str = "") -> Family:
    """Writes the weights of a run to a file, under the names of its family, or of the one called `name`.

    Raises UserError where the run has no family, or its network is not that family's.
    """
    if file.exists():
        raise UserError(file, "is there already; name a new file")
    noted = read_weights(workdir)
    name = name or noted.get("family", "")
    if not name:
        raise UserError("--from", "the run was trained, not converted; say which family's names its weights are to have")
    family = find(name)
    rows = family.rows(load_config(workdir).model)
    _, state = restore_best(workdir)
    files.write(file, to_theirs(workdir, rows, variables_of(state), noted.get("kept", {})))
    return family


def configured(config: Config, settings: Mapping[str, object], given: Mapping[str, Any]) -> Config:
    """The config with what follows from the weights, but for the keys that the user has `given`, as a run's is resolved.

    Raises UserError where its model is not the family's.
    """
    config = Config(config.to_dict())
    task = str(settings.get("task.name", config.task.name))
    if task != config.task.name and "task.name" not in given:
        config.task = registry.spec("tasks", task)
    for key, value in settings.items():
        group, _, name = key.rpartition(".")
        if group not in ("data",) and name not in config[group]:
            raise UserError("--config", f"its {group} is {config[group].name}, which has no key {name}; give the family's "
                            "own, or leave --config out")
        if key not in given:
            config[group][name] = value
    if config.task.name == "translate":
        config.task.contrasts = (*config.task.source, config.task.target)
        config.task.curve = (0.0, 1.0)  # as it is: no training images say otherwise
    config.data.domain = {"modality": "", "units": "HU" if config.task.name == "ct_lowdose" else "", "contrasts": (),
                          "percentiles": tuple(config.data.range), "spacing_mm": ()}
    return config


def _hint(config: Config, settings: Mapping[str, object]) -> str:
    """The flags that would make the network that of the file, where the user has given others."""
    flat = registry.flat(config)
    found = [f"--config.{key}={value}" for key, value in settings.items()
             if flat.get(key) != registry.frozen(value) and _is_size(value)]
    return f": give {' '.join(found)}" if found else ""


def _is_size(value: object) -> bool:
    """Whether a value of the config is a whole number, or several."""
    values = value if isinstance(value, tuple) else (value,)
    return all(isinstance(number, int) and not isinstance(number, bool) for number in values)
