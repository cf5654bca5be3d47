"""A process whose oneDNN is told to be that of another processor: ONEDNN_MAX_CPU_ISA counts when the library is loaded."""

import resource
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.ops.conv import conv
from tests import test_conv


def main():
    for case in (3, 8, 16):
        test_conv.test_values_and_gradients_equal_xla(*test_conv.CASES[case])
        test_conv.test_bfloat16_is_float32_rounded(case)
    test_conv.test_bias_keeps_the_dtype()
    too_little_memory_is_an_error_once()


def too_little_memory_is_an_error_once():
    """oneDNN wants this kernel in a layout that is eight times as large."""
    large = jax.jit(conv).lower(x := jnp.ones((1, 3, 3, 1 << 18)), w := jnp.ones((3, 3, 1 << 18, 1))).compile()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), before[1]))
    with pytest.raises(jax.errors.JaxRuntimeError, match="bad_alloc"):
        large(x, w)
    resource.setrlimit(resource.RLIMIT_AS, before)
    np.testing.assert_allclose(jax.jit(conv)(jnp.ones((1, 4, 4, 3)), jnp.ones((1, 1, 3, 4))), 3)


if __name__ == "__main__":
    main()
