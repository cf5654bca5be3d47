"""Physics is computed in float32 on accelerators too, whose default for products is TF32 or bfloat16."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.classical import rigid
from medjax.data.augment import Augment
from medjax.ops.conv import conv, conv_transpose
from medjax.physics import ct, nufft
from medjax.physics.cone import Cone
from medjax.physics.espirit import espirit
from medjax.physics.optics import Blur
from medjax.tasks.register import Register

KEY = jax.random.key(0)
IMAGE = jnp.ones((1, 9, 9, 1))
PLAN = nufft.plan(nufft.radial(4, 32, 16), (16, 16))
CONE = Cone((4, 8, 8), 1.0, ct.angles(4, 360), (6, 12), 1.0, 40, 60)
PAIR = rigid.Pair(jnp.ones((10, 3)), jnp.ones((10, rigid.BINS)), jnp.ones((4, 4, 4)), jnp.eye(3), jnp.ones(3))


def energy(f, *args):
    return jnp.square(jnp.abs(f(*args))).sum()


PRODUCTS = {
    "blur": (jax.grad(partial(energy, Blur.motion(4.0, 0.3))), (IMAGE,)),
    "kernel of a blur": (jax.grad(lambda length: energy(Blur.motion(length, 0.3, radius=3), IMAGE)), (4.0,)),
    "convolution": (jax.grad(lambda w: energy(partial(conv, precision="highest"), jnp.ones((1, 8, 3)), w)),
                    (jnp.ones((3, 3, 4)),)),
    "biased convolution": (jax.grad(lambda w: energy(lambda x, w: conv(x, w, bias=jnp.ones(4), precision="highest"),
                                                     jnp.ones((1, 8, 3)), w)), (jnp.ones((3, 3, 4)),)),
    "transposed convolution": (jax.grad(lambda w: energy(partial(conv_transpose, precision="highest"), jnp.ones((1, 8, 4)),
                                                         w)), (jnp.ones((3, 3, 4)),)),
    "fbp": (ct.Parallel((16, 16), 1.0, ct.angles(8), 20, 1.0).fbp, (jnp.ones((1, 8, 20, 1)),)),
    "fdk": (CONE.fbp, (jnp.ones((1, 4, 6, 12, 1)),)),
    "nufft": (jax.grad(lambda x: energy(lambda x: nufft.nufft_adjoint(nufft.nufft(x, PLAN), PLAN), x)),
              (jnp.ones((1, 16, 16)),)),
    "espirit": (partial(espirit, calibration=8, kernel=3, iterations=3), (jnp.ones((2, 12, 12), complex),)),
    "augmentation": (partial(Augment(rotate=10.0, shear=0.1)._placed, order=1, mode="nearest"),
                     (KEY, jnp.ones((6, 6, 6, 1)))),
    "random motion": (Register((0.0, 1.0), 2)._velocity, (KEY, IMAGE[0])),
    "rigid alignment": (jax.grad(lambda place: rigid._score(place, PAIR)), (jnp.ones(6),)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_in_float32(name):
    f, args = PRODUCTS[name]
    program = jax.jit(f).trace(*args).lower(lowering_platforms=("cuda", "tpu")).as_text()
    products = re.findall(r"^.*(?:dot_general|stablehlo\.convolution|chlo\.ragged_dot).*$", program, re.MULTILINE)
    assert products
    assert all(line.count("HIGHEST") == 2 for line in products), [line for line in products if line.count("HIGHEST") != 2]


def test_networks_keep_the_default():
    program = jax.jit(conv).trace(np.ones((1, 8, 3)), np.ones((3, 3, 4))).lower(lowering_platforms=("cuda", "tpu")).as_text()
    assert "stablehlo.convolution" in program
    assert "HIGHEST" not in program
