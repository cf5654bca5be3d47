"""Names to objects: a file is the registry, and a constructor's signature its config schema.

`medjax/<layer>/<name>.py` holds the class or function `name` (case and "_" aside) of a layer: "models", "tasks",
"objectives", "data.sources". Files whose names begin with "_" are not offered. Packages that declare the entry point group
"medjax" add their own `<package>/<layer>/<name>.py`. Arguments without a default are supplied when an object is built;
arguments with one are config keys.
"""

import functools
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import ml_collections

from medjax.types import UserError


def modules(layer: str) -> dict[str, str]:
    """The modules of `layer` in medjax and in the packages that extend it: name to full module path, by name.

    Raises UserError where two packages have a module of one name.
    """
    found: dict[str, str] = {}
    for package in packages():
        try:
            folder = importlib.import_module(f"{package}.{layer}")
        except ModuleNotFoundError as error:
            if not f"{package}.{layer}".startswith(error.name or "?"):
                raise
            continue  # an extension need not have every layer
        for module in pkgutil.iter_modules(folder.__path__):
            if module.name.startswith("_"):
                continue
            if module.name in found:
                raise UserError(f"{package}/{_path(layer)}/{module.name}.py", f"medjax has a module {module.name!r} in "
                                f"{layer} already; give the file another name")
            found[module.name] = f"{folder.__name__}.{module.name}"
    return dict(sorted(found.items()))


@functools.cache
def packages() -> tuple[str, ...]:
    """medjax, and the packages that extend it. Raises UserError for an entry point that names no package."""
    points = entry_points(group="medjax")
    for point in points:
        if importlib.util.find_spec(point.module.partition(".")[0]) is None:
            raise UserError(f"entry point {point.name!r} of the group medjax", f"there is no package {point.module!r}; name "
                            "the package that has the folders tasks, models, …, and install it again")
    return ("medjax", *(point.module for point in points))


def loaded(layer: str) -> dict[str, ModuleType]:
    """The modules of `layer`, imported, by name."""
    return {name: importlib.import_module(path) for name, path in modules(layer).items()}


def names(layer: str) -> list[str]:
    """The names that `layer` offers."""
    return [name for name in modules(layer) if _constructor(layer, name) is not None]


def spec(layer: str, name: str, **values: Any) -> ml_collections.ConfigDict:
    """The config of `name` in `layer`: its `name`, and every argument that has a default, changed by `values`."""
    config = ml_collections.ConfigDict({"name": name, **_with_default(find(layer, name))})
    _check(layer, name, values, f"{layer}.{name}")
    for key, value in values.items():
        try:
            config[key] = value
        except TypeError:
            kind = type(config[key]).__name__
            raise UserError(f"{layer}.{name}.{key}", f"{value!r} is no {kind}; the default is {config[key]!r}") from None
    return config


def build(layer: str, config: ml_collections.ConfigDict, **supplied: Any) -> Any:
    """The object that `config` describes. `supplied` fills the arguments that have no default.

    Keys that are missing take their defaults, so `--config.model.name=edsr` with a config written for another model
    is caught here, where a key does not fit, and not deep in a network.
    """
    values = {key: frozen(value) for key, value in config.items() if key != "name"}
    constructor = find(layer, config.name)
    _check(layer, config.name, values, f"config.{_config_key(layer)}")
    wanted = set(_parameters(constructor)) - set(values)
    for name in sorted(wanted - set(supplied) - set(_with_default(constructor))):
        raise UserError(_file(layer, config.name), f"{_named(constructor)} has the argument {name!r} without a default; "
                        f"supplied: {', '.join(supplied) or 'none'}; give other arguments a default")
    return constructor(**{k: v for k, v in supplied.items() if k in wanted}, **values)


def keywords(function: Callable[..., Any], *without: str) -> ml_collections.ConfigDict:
    """The config of a plain function or class: its arguments that have a default, but for those in `without`."""
    return ml_collections.ConfigDict({k: v for k, v in _with_default(function).items() if k not in without})


def find(layer: str, name: str) -> Callable[..., Any]:
    """The constructor of `name` in `layer`: the public class or function of that name in its file, case and `_` aside."""
    known = modules(layer) if name.isidentifier() else {}
    found = _constructor(layer, name) if name in known else None
    if found is not None:
        return found
    if name in known:
        there = [n for n, v in vars(importlib.import_module(known[name])).items() if isinstance(v, type)
                 and v.__module__ == known[name] and not n.startswith("_")]
        classes = f" it has {', '.join(there)};" if there else ""
        raise UserError(_file(layer, name), f"has no class named like the file;{classes} call it "
                        f"{''.join(part.capitalize() for part in name.split('_'))}")
    raise UserError(f"config.{_config_key(layer)}.name", f"unknown {name!r}; choose from {', '.join(names(layer))}")


def check_members(layer: str, name: str, built: object, protocol: type) -> None:
    """Raises UserError, naming the file, where an object lacks what its protocol asks for."""
    members = {*vars(protocol), *getattr(protocol, "__annotations__", ())}
    missing = sorted(member for member in members if not member.startswith("_") and not hasattr(built, member))
    if missing:
        raise UserError(_file(layer, name), f"{type(built).__name__} lacks {', '.join(missing)} of the contract "
                        f"{protocol.__name__} (medjax/types/contracts.py)")


def check_call(layer: str, name: str, network: Any, *arguments: str) -> None:
    """Raises UserError, naming the file, where a network can't be called with `arguments`, with and without `train`."""
    signature = inspect.signature(network.__call__)
    try:
        signature.bind(*arguments)
        signature.bind(*arguments, train=True)
    except TypeError as error:
        asked = ", ".join((*arguments, "train"))
        raise UserError(_file(layer, name), f"{type(network).__name__}.__call__ can't be called with ({asked}): {error}; "
                        "give it these arguments, all but the first with a default") from None


def file_of(built: object) -> str:
    """The file that an object's class is defined in, to be named in errors."""
    return type(built).__module__.replace(".", "/") + ".py"


def frozen(value: Any) -> Any:
    """Config values as hashable Python values: lists become tuples, nested configs dictionaries."""
    if isinstance(value, ml_collections.ConfigDict):
        return value.to_dict()
    return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value


def flat(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, object]:
    """The values of a config by their whole key ("optim.lr")."""
    found: dict[str, object] = {}
    for key, value in config.items():
        nested = isinstance(value, ml_collections.ConfigDict)
        found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: frozen(value)}
    return found


def _constructor(layer: str, name: str) -> Callable[..., Any] | None:
    module = importlib.import_module(modules(layer)[name])
    for attribute, value in vars(module).items():
        if attribute.lower() == name.replace("_", "") and callable(value):
            return value
    return None


def _named(constructor: Callable[..., Any]) -> str:
    """The name of a constructor, or of what a `functools.partial` calls."""
    return getattr(getattr(constructor, "func", constructor), "__name__", repr(constructor))


def _parameters(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(constructor).parameters)
    flax_fields = {"parent", "name"} if "parent" in found else set()
    return {k: p for k, p in found.items() if k not in flax_fields}


def _with_default(constructor: Callable[..., Any]) -> dict[str, Any]:
    return {k: p.default for k, p in _parameters(constructor).items() if p.default is not inspect.Parameter.empty}


def _check(layer: str, name: str, values: dict[str, Any], where: str) -> None:
    allowed = _with_default(find(layer, name))
    for key in values:
        if key not in allowed:
            raise UserError(f"{where}.{key}", f"{name} has no such key; it has {', '.join(allowed) or 'none'}")


def _config_key(layer: str) -> str:
    return layer.removesuffix("s")


def _path(layer: str) -> str:
    return layer.replace(".", "/")


def _file(layer: str, name: str) -> str:
    return modules(layer)[name].replace(".", "/") + ".py"
