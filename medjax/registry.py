"""Names to objects: `medjax/<floor>/<name>.py` is the registry, and a constructor's signature its config schema.

Arguments without a default are supplied by the house when it builds the object; arguments with one are config keys.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import ml_collections

from medjax.types import UserError


def names(floor: str) -> list[str]:
    """The names that `floor` ("models", "tasks", "objectives", …) offers."""
    package = importlib.import_module(f"medjax.{floor}")
    return sorted(
        m.name for m in pkgutil.iter_modules(package.__path__) if _constructor(floor, m.name) is not None
    )


def modules(package: str) -> dict[str, ModuleType]:
    """The modules of `medjax/<package>` ("data.formats") by name, for packages whose modules are what is offered.

    Those that begin with an underscore are left out.
    """
    where = importlib.import_module(f"medjax.{package}")
    found = sorted(m.name for m in pkgutil.iter_modules(where.__path__) if not m.name.startswith("_"))
    return {name: importlib.import_module(f"medjax.{package}.{name}") for name in found}


def spec(floor: str, name: str, **values: Any) -> ml_collections.ConfigDict:
    """The config of `medjax/<floor>/<name>.py`: `name`, and every argument that has a default, changed by `values`."""
    config = ml_collections.ConfigDict({"name": name, **_defaults(floor, name)})
    _check(floor, name, values, f"{floor}.{name}")
    for key, value in values.items():
        try:
            config[key] = value
        except TypeError:
            kind = type(config[key]).__name__
            raise UserError(f"{floor}.{name}.{key}", f"{value!r} is no {kind}; the default is {config[key]!r}") from None
    return config


def build(floor: str, config: ml_collections.ConfigDict, **supplied: Any) -> Any:
    """The object that `config` describes. `supplied` fills the arguments that have no default.

    Keys that are missing take their defaults, so `--config.model.name=edsr` with a config written for another model
    is caught here, where a key does not fit, and not deep in a network.
    """
    values = {key: frozen(value) for key, value in config.items() if key != "name"}
    constructor = find(floor, config.name)
    _check(floor, config.name, values, f"config.{_config_key(floor)}")
    wanted = set(_parameters(constructor)) - set(values)
    for name in wanted - set(supplied) - set(_with_default(constructor)):
        raise UserError(f"config.{name}", f"{config.name} needs it and the config has none")
    return constructor(**{k: v for k, v in supplied.items() if k in wanted}, **values)


def keywords(function: Callable[..., Any]) -> ml_collections.ConfigDict:
    """The config of a plain function or class: its arguments that have a default."""
    return ml_collections.ConfigDict(_with_default(function))


def find(floor: str, name: str) -> Callable[..., Any]:
    """The constructor of `medjax/<floor>/<name>.py`: its public class or function of that name, case and `_` aside."""
    found = _constructor(floor, name) if name.isidentifier() else None
    if found is None:
        raise UserError(f"config.{_config_key(floor)}.name", f"no {name!r} in {floor}; there is {', '.join(names(floor))}")
    return found


def _constructor(floor: str, name: str) -> Callable[..., Any] | None:
    path = f"medjax.{floor}.{name}"
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        return None
    for attribute in vars(module):
        if attribute.lower() == name.replace("_", "") and callable(getattr(module, attribute)):
            return getattr(module, attribute)
    return None


def _parameters(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    flax_fields = {"parent", "name"}
    return {k: p for k, p in inspect.signature(constructor).parameters.items() if k not in flax_fields}


def _defaults(floor: str, name: str) -> dict[str, Any]:
    return _with_default(find(floor, name))


def _with_default(constructor: Callable[..., Any]) -> dict[str, Any]:
    return {k: p.default for k, p in _parameters(constructor).items() if p.default is not inspect.Parameter.empty}


def _check(floor: str, name: str, values: dict[str, Any], where: str) -> None:
    allowed = _defaults(floor, name)
    for key in values:
        if key not in allowed:
            raise UserError(f"{where}.{key}", f"{name} has no such key; it has {', '.join(allowed) or 'none'}")


def _config_key(floor: str) -> str:
    return floor.removesuffix("s")


def frozen(value: Any) -> Any:
    """Config values as hashable Python values: lists become tuples, nested configs dictionaries."""
    if isinstance(value, ml_collections.ConfigDict):
        return value.to_dict()
    return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value
