"""Wrong types and shapes raise where they are given: every layer's functions are checked at run time under pytest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from medjax.classical.interpolate import spline
from medjax.measures.image_quality import psnr
from medjax.models.unet import UNet
from medjax.ops.fft import fft
from medjax.physics.ct import Parallel, angles


@pytest.mark.parametrize("call", [
    lambda: fft(jnp.zeros((4, 4), int), 2),
    lambda: Parallel((8, 8), 1.0, angles(4), 12, 1.0)(jnp.zeros((8, 8, 1))),
    lambda: psnr(jnp.zeros((1, 8, 8, 1)), jnp.zeros((1, 8, 8, 1)), 1.0, jnp.zeros((1, 8, 8, 1))),
    lambda: UNet(2, 1, (1, 1), 4, 1).init(jax.random.key(0), [0.0]),
    lambda: spline(np.zeros((8, 8, 1), int), 2),
], ids=["ops", "physics", "measures", "models", "classical"])
def test_a_wrong_shape_or_type_raises(call) -> None:
    with pytest.raises(TypeCheckError):
        call()


def test_what_is_right_passes() -> None:
    spectrum = fft(jnp.ones((2, 4, 4)), 2)
    assert spectrum.shape == (2, 4, 4)
