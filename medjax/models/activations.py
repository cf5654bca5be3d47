"""The activations inside any network: which there are, and a network with something added to one of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax

from medjax.types import Array


@dataclass(frozen=True)
class Activation:
    """What a module, or a method of one, made of its input: the `place` counts them in the order in which they are made."""

    place: int
    module: str
    shape: tuple[int, ...]


@contextmanager
def recorded() -> Iterator[list[Activation]]:
    """A list of all activations of the networks that are called inside."""
    found: list[Activation] = []

    def note(place: int, module: str, made: Array) -> Array:
        found.append(Activation(place, module, tuple(made.shape)))
        return made

    with _watched(note):
        yield found


@contextmanager
def shifted(at: int, shift: Array) -> Iterator[list[Array]]:
    """Adds `shift` to the activation in the place `at` of a network that is called inside.

    The gradient by `shift`, at 0, is that by the activation. The list has the activation as it was, once it was made.
    """
    seen: list[Array] = []

    def add(place: int, module: str, made: Array) -> Array:
        if place != at:
            return made
        seen.append(made)
        return made + shift.astype(made.dtype)

    with _watched(add):
        yield seen


@contextmanager
def _watched(change: Callable[[int, str, Array], Array]) -> Iterator[None]:
    count = 0

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal count
        made = call(*args, **kwargs)
        if not isinstance(made, jax.Array):
            return made
        count += 1
        return change(count - 1, "/".join((*context.module.path, type(context.module).__name__)), made)

    with nn.intercept_methods(intercept):
        yield
