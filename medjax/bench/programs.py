"""The compiled programs that are measured: a train step, and inference."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax

from medjax.bench.cases import Case
from medjax.train.step import QUICK, init_state, make_step
from medjax.types import Array, UserError

MODES = ("step", "infer")
Arguments = tuple[Any, Any]
"""Of a step: the state and a batch; of inference: the variables and an input."""


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
        function, initial = _function(case, dtype, mode)
        args = jax.jit(initial, compiler_options=QUICK)(case.images())
        start = time.perf_counter()
        compiled = function.lower(*args).compile()
        compile_s = time.perf_counter() - start
    params = sum(leaf.size for leaf in jax.tree.leaves(args[0].params if mode == "step" else args[0]["params"]))
    memory = analysed(compiled.memory_analysis(), "memory")
    total = (memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
             - memory.alias_size_in_bytes)
    return Program(_loop(compiled, args, mode), params, compile_s, total / 2**20)


def flops(case: Case, dtype: str, mode: str) -> float:
    """Floating-point operations of one step, as XLA counts them in its own convolutions."""
    with convolutions("xla"):
        function, initial = _function(case, dtype, mode)
        args = jax.eval_shape(initial, jax.eval_shape(case.images))
        return float(analysed(function.lower(*args).cost_analysis(), "operations")["flops"])


def analysed(analysis: Any | None, what: str) -> Any:
    """XLA's analysis of a program. Raises UserError on a backend that has none."""
    if analysis is None:
        raise UserError("medjax.bench", f"XLA counts no {what} on {jax.default_backend()}; set JAX_PLATFORMS=cpu")
    return analysis


def _function(case: Case, dtype: str, mode: str) -> tuple[jax.stages.Wrapped, Callable[[dict[str, Array]], Arguments]]:
    """The jitted function, new at each call, and what makes its arguments of a case's images."""
    key = jax.random.PRNGKey(0)
    if mode == "infer":
        network = case.network(dtype)
        function = jax.jit(lambda variables, x: network.apply(variables, x))
        return function, lambda images: (network.init(key, images["input"]), images["input"])
    parts = case.step_parts(dtype)
    return jax.jit(make_step(*parts), donate_argnums=0), lambda images: (init_state(*parts, images, key), images)


def _loop(compiled: jax.stages.Compiled, args: Arguments, mode: str) -> Callable[[], object]:
    if mode == "infer":
        return lambda: jax.block_until_ready(compiled(*args))
    state, images = args

    def step() -> object:
        nonlocal state
        state, logs = compiled(state, images)
        return jax.block_until_ready((state, logs))

    return step
