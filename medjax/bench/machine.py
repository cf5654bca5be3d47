"""What the numbers were measured on: hardware, versions, and how fast it multiplies matrices."""

import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp

from medjax.bench.cases import DTYPES
from medjax.ops.conv import conv

PACKAGES = ("medjax", "jax", "jaxlib", "flax", "optax", "grain", "numpy", "onednn-cpu-gomp")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")


def hardware() -> dict[str, object]:
    """The processor, its cores and instructions, and the accelerator if there is one."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in info.splitlines())}
    device = jax.devices()[0]
    return {
        "cpu": fields.get("model name", platform.processor()),
        "cores": threads(),
        "instructions": [name for name in INSTRUCTIONS if name in fields.get("flags", "").split()],
        "accelerator": "" if device.platform == "cpu" else device.device_kind,
    }


def versions() -> dict[str, str]:
    """Python's and every package's that the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def threads() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def matrix_peak(dtype: str) -> float:
    """FLOP/s of the faster of a large matrix product and the same product as a 1x1 convolution."""
    n = 2048 if jax.default_backend() == "cpu" else 8192
    a, b = (jnp.full((n, n), 0.5, DTYPES[dtype]) for _ in range(2))
    products = (jnp.dot, lambda a, b: conv(a[None], b[None]))
    first = {product: _seconds(product, a, b) for product in map(jax.jit, products)}
    fastest = min(first, key=first.__getitem__)
    return 2 * n**3 / min(_seconds(fastest, a, b) for _ in range(5))


def _seconds(product: Callable[..., jax.Array], a: jax.Array, b: jax.Array) -> float:
    """Of the second of two calls: the first compiles."""
    jax.block_until_ready(product(a, b))
    start = time.perf_counter()
    jax.block_until_ready(product(a, b))
    return time.perf_counter() - start
