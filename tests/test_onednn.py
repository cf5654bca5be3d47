"""oneDNN on other processors and with threads, and the choice between it and XLA."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from medjax import native
from medjax.ops.conv import conv, conv_transpose
from medjax.types import UserError
from tests.test_conv import TARGET, V, W, X, calls, draw, error, needs_onednn, oracle


@needs_onednn
@pytest.mark.parametrize("processor", ["AVX2", "SSE41"])
def test_older_processors(processor):
    """Without AVX-512 oneDNN has no bfloat16 and other kernels in float32."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": processor, "PYTHONPATH": "."}
    child = subprocess.run([sys.executable, "-m", "tests.conv_child"], cwd=Path(__file__).parents[1], env=environment,
                           capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]


@needs_onednn
def test_bfloat16_where_the_processor_has_none(monkeypatch):
    """The convolution is oneDNN's in float32, rounded."""
    x, w = X.astype(jnp.bfloat16), W.astype(jnp.bfloat16)
    for has_bfloat16, dtype in ((False, "xf32>"), (True, "xbf16>")):
        monkeypatch.setattr(native, "bfloat16", lambda has=has_bfloat16: has)
        (call,) = [line for line in jax.jit(lambda x, w: conv(x, w)).lower(x, w).as_text().splitlines() if TARGET in line]
        assert dtype in call.rsplit("->", 1)[1]


@needs_onednn
@pytest.mark.parametrize(("threads", "dtype"), [(2, "xbf16>"), (4, "xf32>")])
def test_shallow_volumes_count_the_threads_of_onednn(monkeypatch, threads, dtype):
    """More threads than cores leave fewer slices to each: OMP_NUM_THREADS counts, not the cores."""
    monkeypatch.setattr(native, "bfloat16", lambda: True)
    monkeypatch.setattr(native, "threads", lambda: threads)
    x = draw(0, 1, 8, 4, 4, 16, dtype=jnp.bfloat16)
    f = jax.jit(jax.grad(lambda w: conv(x, w).astype(jnp.float32).sum()))
    lines = f.lower(draw(1, 3, 3, 3, 16, 16, dtype=jnp.bfloat16)).as_text().splitlines()
    (call,) = [line for line in lines if TARGET in line and "kind = 2" in line]
    assert dtype in call.rsplit("->", 1)[1]


@needs_onednn
def test_threads_are_those_of_openmp():
    program = "from medjax import native; print(native.threads())"
    child = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True, text=True,
                           env=os.environ | {"OMP_NUM_THREADS": "7"}, check=True)
    assert child.stdout.strip() == "7"


def test_threads_at_once():
    f = jax.jit(conv)
    batches = [draw(i, 2, 8 + i, 8, 3) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda x: f(x, W), batches))
    assert error(got, [oracle(x, W) for x in batches]) < 2e-6


def test_stride_one_transposed_weight_gradient_is_not_padded_in_xla(monkeypatch):
    """With the padding of the transposed form XLA takes over a hundred times as long."""
    monkeypatch.setenv("MEDJAX_CONV", "xla")
    f = jax.jit(jax.grad(lambda v: conv_transpose(draw(3, 2, 7, 7, 4), v, padding="VALID").sum()))
    assert "pad = [[0, 0], [0, 0]]" in f.lower(V).as_text()


def test_the_choice_can_be_forced(monkeypatch):
    monkeypatch.setenv("MEDJAX_CONV", "xla")
    assert calls(jax.jit(lambda x: conv(x, W)), X) == 0
    monkeypatch.setenv("MEDJAX_CONV", "fast")
    with pytest.raises(UserError, match="'fast' is neither xla nor onednn"):
        jax.jit(lambda x: conv(x, W)).lower(X)
    monkeypatch.setenv("MEDJAX_CONV", "onednn")
    monkeypatch.setattr(native, "problem", lambda: "no compiler")
    with pytest.raises(UserError, match="no compiler"):
        jax.jit(lambda x: conv(x, W)).lower(X)


def test_without_onednn_one_warning_and_xla(monkeypatch):
    monkeypatch.setattr(native, "problem", lambda: "install g++")
    native.available.cache_clear()
    f = jax.jit(lambda x: conv(conv(x, W), V))
    with pytest.warns(UserWarning, match=r"convolutions run on XLA.*install g\+\+") as warned:
        assert calls(f, X) == 0
    assert len(warned) == 1
    monkeypatch.undo()
    native.available.cache_clear()


@pytest.mark.parametrize("bad", [
    lambda: conv(X, V),
    lambda: conv(X, W, groups=2),
    lambda: conv(X[0], W),
    lambda: conv(X, W, stride=(1, 2, 1)),
    lambda: conv(X, W, padding="CIRCULAR"),
    lambda: conv(X, W, padding=[(1, 1)]),
    lambda: conv_transpose(X, W),
])
def test_what_does_not_fit_is_one_line(bad):
    with pytest.raises(UserError, match=r"fit|padding"):
        bad()
