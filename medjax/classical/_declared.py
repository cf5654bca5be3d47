"""Methods without training are declared where they are defined, and found by what they are for.

A function in any module of `medjax/classical`, or of a package that extends medjax, is declared with `method(kind)`. A task
offers all methods of its kind as references. Kinds and how a method is called:

| kind | call |
|---|---|
| "denoise" | `(image (*space, C), noise: NoiseModel, strength)` |
| "solve" | `(operator, y, strength)`, batched and traceable |
| "interpolate" | `(image (*space, C), factors, strength)` |
| "contrast", "fuse" | `(image (*space, C), strength)` |
| "segment" | `(image (*space, C), classes: int, strength)` to labels `(*space)` in the order of brightness |
| "region" | `(image (*space, C), strength)` to labels `(*space)`, 1 in one bright region |
| "register" | `(fixed (*space), moving (*space), strength)` to displacements `(*space, n)` in voxels |
| "inpaint" | `(image (*space, C), known (*space) bool, strength)` |
| "compress" | `(image (H, W, C), rate)` |

All images are in unit range. `strength` comes from the grid that was declared, and is 1 for methods without one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from medjax import registry
from medjax.types import Array, Example, Reference

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class NoiseModel:
    """What is known of an image's noise: its `kind` (`config.task.noise`), and its `level` in the units of that kind.

    `level` is None where it is not known and has to be estimated from the image.
    """

    kind: str = "gaussian"
    level: float | None = None


def method(kind: str, strengths: tuple[float, ...] = ()) -> Callable[[Function], Function]:
    """Declares a function as a method of `kind`, its strength to be chosen from the increasing grid `strengths`."""
    def declare(function: Function) -> Function:
        function.method = (kind, strengths)  # type: ignore[attr-defined]
        return function

    return declare


def methods(kind: str) -> dict[str, tuple[Callable[..., Any], tuple[float, ...]]]:
    """The declared methods of a kind by name, with `_` as "-", and the grids of their strengths."""
    found = {}
    for module in registry.loaded("classical").values():
        for name, value in vars(module).items():
            if getattr(value, "method", ("",))[0] == kind and value.__module__ == module.__name__:
                found[name.replace("_", "-")] = (value, value.method[1])
    return found


def by_sample(function: Callable[[np.ndarray, float], np.ndarray]) -> Callable[[Example, float], Array]:
    """A method of one image's input `(*space, C)` for all samples of an example."""
    def run(example: Example, strength: float) -> Array:
        return jnp.asarray(np.stack([function(x, strength) for x in np.asarray(example.input.image)]))

    return run


def denoisers(noise: NoiseModel) -> dict[str, Reference]:
    """The declared denoisers, as they are for an image with this noise."""
    def knowing(denoise: Callable[..., np.ndarray]) -> Callable[[np.ndarray, float], np.ndarray]:
        return lambda x, strength: denoise(x, noise, strength)

    return {name: Reference(by_sample(knowing(fn)), strengths) for name, (fn, strengths) in methods("denoise").items()}


def grid(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` strengths from `low` to `high`, by equal factors."""
    return tuple(float(f"{value:.3g}") for value in np.geomspace(low, high, count))
