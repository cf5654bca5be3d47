"""The compiled programs that are measured: a train step, and inference."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax

from medjax.bench.cases import Case, Given
from medjax.objectives.supervised import Supervised
from medjax.train.step import init_state, make_step

MODES = ("step", "infer")


@dataclass(frozen=True)
class Program:
    """A compiled program and what it costs before it runs. `step()` returns when the work is done."""

    step: Callable[[], object]
    params: int
    compile_s: float
    memory_mb: float


@contextmanager
def convolutions(implementation: str) -> Iterator[None]:
    """Programs compiled inside take their convolutions from `implementation` ("" for the automatic choice)."""
    before = os.environ.get("MEDJAX_CONV", "")
    os.environ["MEDJAX_CONV"] = implementation or before
    try:
        yield
    finally:
        os.environ["MEDJAX_CONV"] = before


def build(case: Case, dtype: str, mode: str, conv: str = "") -> Program:
    """Compiles `mode` ("step": forward, L1, backward, Adam; "infer": forward) of a case."""
    with convolutions(conv):
        function, args = _function(case, dtype, mode)
        start = time.perf_counter()
        compiled = function.lower(*args).compile()
        compile_s = time.perf_counter() - start
    params = sum(leaf.size for leaf in jax.tree.leaves(args[0].params if mode == "step" else args[0]["params"]))
    memory = compiled.memory_analysis()
    total = (memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
             - memory.alias_size_in_bytes)
    return Program(_loop(compiled, args, mode), params, compile_s, total / 2**20)


def flops(case: Case, dtype: str, mode: str) -> float:
    """Floating-point operations of one step, as XLA counts them in its own convolutions."""
    with convolutions("xla"):
        function, args = _function(case, dtype, mode)
        return float(function.lower(*args).cost_analysis()["flops"])


def _function(case: Case, dtype: str, mode: str) -> tuple[Any, tuple[Any, ...]]:
    """The jitted function, new at each call, and its arguments."""
    network, images, key = case.network(dtype), case.images(), jax.random.PRNGKey(0)
    if mode == "infer":
        variables = jax.jit(network.init)(key, images["input"])
        return jax.jit(lambda variables, x: network.apply(variables, x)), (variables, images["input"])
    objective = Supervised(Given(), network)
    optimizers = {"model": optax.adam(1e-3)}
    state = jax.jit(partial(init_state, Given(), objective, optimizers, 0.0))(images, key)
    return jax.jit(make_step(Given(), objective, optimizers, 0.0), donate_argnums=0), (state, images)


def _loop(compiled: Any, args: tuple[Any, ...], mode: str) -> Callable[[], object]:
    if mode == "infer":
        return lambda: jax.block_until_ready(compiled(*args))
    state, images = args

    def step() -> object:
        nonlocal state
        state, logs = compiled(state, images)
        return jax.block_until_ready((state, logs))

    return step
