"""Blocks whose insides are computed again in the backward pass instead of kept (Chen et al., 2016): memory for time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax

from medjax.models.blocks import Conv, ConvTranspose, Norm, PReLU
from medjax.types import check_choice

# XLA on CPU undoes rematerialisation: it drops the barriers around it, and finds the computations to be the same.
COMPILER_OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def _products(primitive: Any, *_: Any, **__: Any) -> bool:
    return "conv" in primitive.name or primitive.name == "dot_general"


POLICIES: dict[str, Callable[..., bool] | None] = {"full": None, "dots": _products}
LAYERS = (Conv, ConvTranspose, Norm, PReLU, nn.Dense, nn.Dropout)


@contextmanager
def rematerialised(policy: str) -> Iterator[None]:
    """Networks that are applied inside keep only the inputs of their blocks ("full"), or what their convolutions and
    matrix products made, too ("dots"); "none" leaves it to XLA.

    A block is any part of a network that is more than one layer: a module of several, or a method of the network.
    Raises UserError for a policy that there is not.
    """
    if policy == "none":
        yield
        return
    check_choice("config.remat", policy, ("none", *POLICIES))
    inside: list[str] = []

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module, method = context.module, context.method_name
        whole = not module.path and method == "__call__"
        arrays = [i for i, arg in enumerate(args) if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(arg))]
        if inside or whole or isinstance(module, LAYERS) or not arrays or method == "setup":
            return call(*args, **kwargs)
        inside.append(method)
        try:
            static = tuple(i + 1 for i in range(len(args)) if i not in arrays)
            block = nn.remat(getattr(type(module), method), policy=POLICIES[policy], static_argnums=static)
            return block(module, *args, **kwargs)
        finally:
            inside.pop()

    with nn.intercept_methods(intercept):
        yield
