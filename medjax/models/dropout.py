"""Dropout in use: every prediction with other features left out, as in training (Gal and Ghahramani, 2016)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import flax.linen as nn
import jax

from medjax.types import Array, Key, UserError


@contextmanager
def dropout_in_use(keys: Key) -> Iterator[None]:
    """Networks that are applied inside leave out features though they are not trained: those of the samples' `keys` `(B,)`.

    Everything else is as in use: statistics of normalisation are not those of the batch. Raises UserError, on leaving, where
    no network had anything to leave out.
    """
    calls = count()

    def intercept(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
                  context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        if not isinstance(layer, nn.Dropout) or context.method_name != "__call__" or not layer.rate:
            return method(*args, **kwargs)
        return _dropped(layer, args[0], jax.vmap(jax.random.fold_in, (0, None))(keys, next(calls)))

    with nn.intercept_methods(intercept):
        yield
    if not next(calls):
        raise UserError("--uncertainty=dropout", "the run's network leaves out no features; train one with "
                        "--config.model.dropout=0.1")


def _dropped(layer: nn.Dropout, x: Array, keys: Key) -> Array:
    """Of each sample of `x` `(B, ...)` the layer's share of values 0, the others larger by as much."""
    shape = tuple(1 if axis in layer.broadcast_dims else size for axis, size in enumerate(x.shape))[1:]
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - layer.rate, shape))(keys)
    return x * (kept / (1 - layer.rate)).astype(x.dtype)
