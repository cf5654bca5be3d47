"""Metrics of images are declared where they are defined, and found by name."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from medjax import registry
from medjax.types import Array, Metric, UserError

Function = TypeVar("Function", bound=Callable[..., Array])


def image_metric(label: str = "", unit: str = "", lower_is_better: bool = False,
                 decimals: int | None = None) -> Callable[[Function], Function]:
    """Declares a function as the metric of its name (see `Metric`): `(B,)` from what it names of pred, target, …

    It raises UserError where `pred` and `target` differ in shape: arrays that broadcast would give a number of other images.
    """
    def declare(function: Function) -> Function:
        names = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Array:
            given = dict(zip(names, args, strict=False)) | kwargs
            pred, target = (given.get(name) for name in ("pred", "target"))
            if pred is not None and target is not None and pred.shape != target.shape:
                raise UserError(function.__name__, f"compares images of one shape, not {pred.shape} with {target.shape}")
            return function(*args, **kwargs)

        checked.metric = Metric(function.__name__, label, unit, lower_is_better, decimals)  # type: ignore[attr-defined]
        return cast(Function, checked)

    return declare


def image_metrics() -> dict[str, Callable[..., Array]]:
    """The declared metrics of images in `medjax/measures` and in the packages that extend medjax, by name."""
    found = {}
    for module in registry.loaded("measures").values():
        for value in vars(module).values():
            if isinstance(getattr(value, "metric", None), Metric) and value.__module__ == module.__name__:
                found[value.metric.name] = value
    return found


def metrics_of(names: Sequence[str]) -> tuple[Metric, ...]:
    """What is known of the named metrics of images. Raises UserError for an unknown one."""
    return tuple(_find(name).metric for name in names)  # type: ignore[attr-defined]


def measure(names: Sequence[str], **given: Any) -> dict[str, Array]:
    """The named metrics, each `(B,)`, of the `given` `pred`, `target`, `data_range` and `mask`."""
    return {name: _find(name)(**{k: v for k, v in given.items() if k in inspect.signature(_find(name)).parameters})
            for name in names}


@functools.cache
def _find(name: str) -> Callable[..., Array]:
    known = image_metrics()
    if name not in known:
        raise UserError("config.task.measures", f"unknown {name!r}; choose from {', '.join(sorted(known))}")
    return known[name]
