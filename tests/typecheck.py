"""What checks types and shapes at every call under pytest; `conftest` puts it before medjax's imports.

Tests give NumPy's arrays where users give JAX's, and JAX takes both: here either will do for the other.
"""

import jax
import jaxtyping
import numpy as np
from beartype import BeartypeConf, beartype

import medjax.types

EITHER = jax.Array | np.ndarray
PACKAGES = ["medjax.ops", "medjax.physics", "medjax.measures", "medjax.models", "medjax.classical"]

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as type checkers have it


def install() -> None:
    """Not by pytest's option `--jaxtyping-packages`, which xdist's workers don't get from the configuration."""
    jaxtyping.Array = medjax.types.Array = EITHER  # of Float[Array, "b h w"], …
    jaxtyping.install_import_hook(PACKAGES, "tests.typecheck.check")
