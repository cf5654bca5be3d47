"""The published networks: their numbers of parameters, and the same function as the originals' code (`make peers-test`).

A number comes from the paper or the authors' code; the peer's own network has it too (published_child.py).
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from medjax import registry
from medjax.bench.peer import INSTALLED, find_python
from medjax.models import resnet
from medjax.physics.mri import Cartesian
from medjax.physics.sampling import ComplexChannels
from medjax.types import Measurement, UserError, pytree
from medjax.weights._table import find, to_ours

KEY = jax.random.key(0)
FASTMRI = {"norm": "instance_plain", "act": "leaky_relu", "residual": False, "pool": "mean", "up": "transposed_norm"}
VARNET = {"published": True, "sensitivities": True, "depth": 5}


def coils(shape) -> Measurement:
    """Of a multi-coil measurement, the shapes."""
    kspace = jnp.zeros(shape, jnp.complex64)
    return Measurement(ComplexChannels(Cartesian(kspace, jnp.ones((1, 1, *shape[2:])))), kspace, kspace)


MONAI = {"norm": "instance", "residual": False, "up": "transposed"}
BASIC = {**MONAI, "widths": (32, 32, 64, 128, 256), "depth": 5, "act": "leaky_relu_0.1", "bias": True}
DYNUNET_2D = {"widths": (32, 64, 128, 256, 512, 512, 512), "depth": 7, "bias": False}
DYNUNET_3D = {"widths": (32, 64, 128, 256, 320, 320), "depth": 6, "bias": False}
# What nnU-Net plans for the hippocampus (its task 4), in 2-D and 3-D, with heads for deep supervision.
NNUNET, RESIDUAL = {"depth": 4, "deep_supervision": 2}, {"depth": 4, "deep_supervision": 2, "encoder": "residual"}
GRID = jnp.zeros((1, 64, 64, 0))
ENLARGED = {"scale": (4, 4)}

VGG = {"depth": 16, "width": 64, "dense": (4096, 4096), "norm": "none", "head": "grid"}
MODL = {"iterations": 10, "cg_iterations": 10, "layers": 5, "width": 64, "norm": "batch"}
PRIMAL_DUAL = {"iterations": 10, "width": 32, "memory": 5, "act": "prelu_channel"}
NAFNET = {"width": 32, "encoder": (2, 2, 4, 8), "middle": 12, "decoder": (2, 2, 2, 2)}
RESTORMER = {"width": 48, "blocks": (4, 6, 6, 8), "heads": (1, 2, 4, 8), "refinement": 4}


@pytree
class Rows:
    """A matrix along the rows of images `(B, H, W, C)`."""

    matrix: jax.Array

    def __call__(self, x):
        return jnp.einsum("mh,bhwc->bmwc", self.matrix, x)

    def adjoint(self, y):
        return jnp.einsum("mh,bmwc->bhwc", self.matrix, y)

    def init(self, y):
        return self.adjoint(y)


def rows(channels) -> Measurement:
    """Of a measurement, the shapes."""
    return Measurement(Rows(jnp.zeros((5, 8))), jnp.zeros((1, 5, 6, channels)))


# model, its settings, what it is given, channels of the output, context, parameters
PUBLISHED = {
    "fastmri-unet": ("unet", {"width": 32, "depth": 5, **FASTMRI}, (1, 32, 32, 1), 1, None, 7_756_097),
    "varnet": ("varnet", {**VARNET, "iterations": 12, "width": 18}, (1, 16, 16, 2), 2, coils((1, 2, 16, 16)), 29_936_966),
    "patchgan": ("patch", {"published": True, "norm": "batch"}, (1, 32, 32, 6), 1, None, 2_768_705),
    "pix2pix": ("pix2pix_generator", {}, (1, 256, 256, 3), 3, None, 54_413_955),
    "cyclegan": ("cyclegan_generator", {}, (1, 32, 32, 3), 3, None, 11_378_179),
    "dcgan-generator": ("dcgan_generator", {"bias": False}, (1, 100), 3, GRID, 3_576_704),
    "dcgan-critic": ("dcgan", {"published": True}, (1, 64, 64, 3), 1, None, 2_765_568),
    "srresnet": ("srresnet", ENLARGED, (1, 8, 8, 3), 3, None, 1_549_462),
    "rrdb": ("rrdb", {**ENLARGED, "blocks": 23, "up": "repeat", "residual": False}, (1, 8, 8, 3), 3, None, 16_697_987),
    "redcnn": ("redcnn", {"published": True}, (1, 32, 32, 1), 1, None, 1_848_865),
    "basic-unet": ("unet", BASIC, (1, 16, 16, 1), 2, None, 1_978_466),
    "basic-unet-3d": ("unet", BASIC, (1, 16, 16, 16, 1), 2, None, 5_749_410),
    "dynunet": ("nnunet", DYNUNET_2D, (1, 64, 64, 1), 2, None, 33_460_322),
    "dynunet-3d": ("nnunet", DYNUNET_3D, (1, 32, 32, 32, 1), 2, None, 31_189_410),
    "nnunet": ("nnunet", NNUNET, (1, 56, 40, 1), 3, None, 1_928_489),
    "nnunet-3d": ("nnunet", NNUNET, (1, 40, 56, 40, 1), 3, None, 5_603_177),
    "nnunet-residual": ("nnunet", RESIDUAL, (1, 56, 40, 1), 3, None, 8_728_681),
    "nnunet-residual-3d": ("nnunet", RESIDUAL, (1, 40, 56, 40, 1), 3, None, 25_895_593),
    "vgg16": ("vgg", VGG, (1, 224, 224, 3), 1000, None, 138_357_544),
    "resnet152": ("resnet", {"depth": 152, "width": 64, "published": True}, (1, 64, 64, 3), 1000, None, 60_192_808),
    "fcn8s": ("fcn8s", {}, (1, 32, 32, 3), 21, None, 134_489_759),
    "voxelmorph-1": ("voxelmorph", {"published": 1}, (1, 16, 16, 16, 2), 3, None, 259_675),
    "voxelmorph-2": ("voxelmorph", {"published": 2}, (1, 16, 16, 16, 2), 3, None, 300_547),
    "modl": ("modl", MODL, (1, 8, 6, 2), 2, rows(2), 113_413),
    "primal-dual": ("primal_dual", PRIMAL_DUAL, (1, 8, 6, 1), 1, rows(1), 253_220),
    "segresnet": ("segresnet", {}, (1, 16, 16, 1), 2, None, 394_986),
    "segresnet-3d": ("segresnet", {}, (1, 16, 16, 16, 1), 2, None, 1_176_186),
    "nafnet": ("nafnet", NAFNET, (1, 16, 16, 3), 3, None, 29_159_715),
    "restormer": ("restormer", RESTORMER, (1, 8, 8, 3), 3, None, 26_126_644),
    "swinir": ("swinir", {"width": 180, "depths": (6,) * 6, "heads": 6}, (1, 8, 8, 1), 1, None, 11_497_681),
}


def config_of(model, settings):
    return registry.spec("models", model, **{name: value for name, value in settings.items() if name != "scale"})


def network(model, settings, ndim, channels, scale=1):
    return registry.build("models", config_of(model, settings), ndim=ndim, channels=channels,
                          scale=settings.get("scale", (scale,) * ndim))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in ("rrdb", "resnet152") else name
                                  for name in PUBLISHED])
def test_published_networks_have_their_published_size(name):
    model, settings, shape, channels, context, size = PUBLISHED[name]
    module = network(model, settings, len(shape) - 2 or 2, channels)  # noise has no axes of space
    known = () if context is None else (context,)  # a critic has no context
    shapes = jax.eval_shape(lambda x: module.init(KEY, x, *known), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == size


@pytest.mark.parametrize(("published", "field"), [(True, 70), (False, 46)])
def test_how_many_voxels_a_logit_of_patchgan_sees(published, field):
    module, x = network("patch", {"width": 1, "norm": "none", "published": published}, 1, 1), jnp.zeros((1, 200, 1))
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), jax.eval_shape(module.init, KEY, x))
    slope = jax.jit(jax.grad(lambda x: module.apply(variables, x)[0, 12, 0]))(x)
    assert np.flatnonzero(slope).size == field


NEW = {"pix2pix_generator": {"width": 2, "depth": 3}, "cyclegan_generator": {"width": 2, "blocks": 1},
       "srresnet": {"width": 2, "blocks": 1}, "segresnet": {"down": (1, 1)}, "fcn8s": {"width": 2, "dense": 3},
       "unet": {"width": 2, "depth": 2, **FASTMRI, "standardise": True}, "denoising_resnet": {"width": 8, "blocks": 1},
       "dncnn": {"features": (4, 4), "kernels": (3, 3, 3), "bias": False, "padding": "circular"},
       "voxelmorph": {"published": 1, "width": 2}, "nafnet": {"width": 4}, "restormer": {"width": 4},
       "swinir": {"width": 4, "depths": (2,), "window": 4},
       "nnunet": {"width": 2, "depth": 3, "encoder": "residual", "strides": (1, 2, 3)}}


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("ndim", [2, 3])
def test_they_take_any_size_in_half_precision(name, ndim):
    scale, channels = (2 if name == "srresnet" else 1), ndim if name == "voxelmorph" else 1
    shape = (1, 9, 10, 13)[: 1 + ndim]
    module = network(name, NEW[name] | {"dtype": "bfloat16"}, ndim, channels, scale)
    y, variables = jax.eval_shape(module.init_with_output, KEY, jnp.zeros((*shape, 2)))
    assert (y.shape, y.dtype) == ((1, *(scale * size for size in shape[1:]), channels), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("name", "settings", "key"), [
    ("unet", {"pool": "average"}, "pool"), ("unet", {"up": "bilinear"}, "up"), ("unet", {"widths": (8, 16)}, "widths"),
    ("rrdb", {"up": "bilinear"}, "up"), ("vgg", {"head": "voxels"}, "head"), ("redcnn", {"published": True}, "published"),
    ("nafnet", {"decoder": (1,)}, "decoder"), ("restormer", {"heads": (1, 2)}, "heads"), ("swinir", {"heads": 3}, "heads"),
    ("restormer", {"norm": "batch"}, "norm"), ("voxelmorph", {"published": 3}, "published"),
    ("varnet", {"published": True}, "published")])
def test_settings_that_do_not_fit_are_named(name, settings, key):
    channels = 2 if name in ("voxelmorph", "varnet") else 1
    module, x = network(name, settings, 2, channels), jnp.zeros((1, 8, 6, channels))
    with pytest.raises(UserError, match=rf"^config\.model\.{key}: "):
        jax.eval_shape(module.init, KEY, x, rows(2) if name == "varnet" else None)


# What differs from the published settings in the small networks of published_child.py, and channels of the output.
SMALL = {
    "fastmri-unet": ({"width": 4, "depth": 3}, 2),
    "varnet": ({"width": 2, "depth": 2, "iterations": 2, "sensitivity_width": 2}, 2),
    "patchgan": ({"width": 2}, 1),
    "pix2pix": ({"width": 2, "depth": 4, "dropout": 0.0}, 1),
    "cyclegan": ({"width": 2, "blocks": 1}, 1),
    "dcgan-generator": ({"width": 2}, 1),
    "dcgan-critic": ({"width": 2}, 1),
    "srresnet": ({"width": 2, "blocks": 1}, 1),
    "rrdb": ({"width": 4, "growth": 2, "blocks": 1}, 1),
    "redcnn": ({"width": 4}, 1),
    "basic-unet": ({"widths": (2, 2, 4, 8, 16)}, 2),
    "basic-unet-3d": ({"widths": (2, 2, 4, 8, 16)}, 2),
    "dynunet": ({"widths": (2, 3, 4), "depth": 3}, 2),
    "dynunet-3d": ({"widths": (2, 3, 4), "depth": 3}, 2),
    "vgg16": ({"width": 2, "dense": (3, 3), "dropout": 0.0}, 4),
    "resnet152": ({"width": 2, "dropout": 0.0}, 3),
    "fcn8s": ({"width": 2, "dense": 3, "dropout": 0.0}, 2),
    "voxelmorph-1": ({"width": 2, "steps": 0}, 3),
    "voxelmorph-2": ({"width": 2, "steps": 0}, 3),
    "modl": ({"iterations": 2, "cg_iterations": 2, "layers": 3, "width": 4}, 2),
    "primal-dual": ({"iterations": 2, "width": 4, "memory": 3}, 1),
    "segresnet": ({"down": (1, 1)}, 2),
    "segresnet-3d": ({"down": (1, 1)}, 2),
}
FAMILIES = {"fastmri-unet": "fastmri_unet", "varnet": "fastmri_varnet", "pix2pix": "pix2pix", "cyclegan": "cyclegan",
            "redcnn": "ldct_redcnn", "basic-unet": "monai_basicunet", "basic-unet-3d": "monai_basicunet",
            "dynunet": "monai_dynunet", "dynunet-3d": "monai_dynunet", "vgg16": "torchvision_vgg",
            "resnet152": "torchvision_resnet", "segresnet": "monai_segresnet", "segresnet-3d": "monai_segresnet"}
"""Those whose weights medjax converts, by its tables; the others' layers are paired in the order of calls."""


@dataclass(frozen=True)
class Run:
    """A network as a function of one array."""

    module: nn.Module
    call: Callable[..., Any]

    def init(self, key, x):
        return self.module.init(key, x, method=self.call)

    def apply(self, variables, x, mutable):
        return self.module.apply(variables, x, method=self.call, mutable=mutable, rngs={"dropout": KEY})


def plain(module, peer) -> tuple[Run, jax.Array]:
    return Run(module, lambda model, x: model(x, train=True)), last(peer["x"])


def in_kspace(module, peer) -> tuple[Run, jax.Array]:
    """From the parts of k-space, with coil images and mask."""
    images, mask = complex_of(peer["given/0"]), jnp.asarray(peer["given/1"], jnp.float32)

    def call(model, x):
        operator = ComplexChannels(Cartesian(jnp.ones(images.shape, jnp.complex64), mask))
        return model(operator.adjoint(complex_of(x)), Measurement(operator, complex_of(x), images), train=True)

    return Run(module, call), jnp.asarray(peer["x"])


def complex_of(parts) -> jax.Array:
    return jax.lax.complex(jnp.asarray(parts[..., 0]), jnp.asarray(parts[..., 1]))


def from_noise(module, peer) -> tuple[Run, jax.Array]:
    return Run(module, lambda model, x: model(x, GRID, train=True)), jnp.asarray(peer["x"])


def of_rows(module, peer) -> tuple[Run, jax.Array]:
    known = Measurement(Rows(jnp.asarray(peer["given/1"])), last(peer["given/0"]))
    return Run(module, lambda model, x: model(x, known, train=True)), last(peer["x"])


CALLS = {"varnet": in_kspace, "dcgan-generator": from_noise, "modl": of_rows, "primal-dual": of_rows}


@pytest.fixture(scope="module")
def peers(tmp_path_factory) -> dict[str, dict[str, np.ndarray]]:
    """What the originals make of random weights and images."""
    folder = tmp_path_factory.mktemp("published")
    subprocess.run([find_python(), Path(__file__).with_name("published_child.py"), folder], check=True, timeout=300)
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


def last(array) -> jax.Array:
    """Channels last."""
    return jnp.asarray(np.moveaxis(array, 1, -1))


def called(module, *args) -> tuple[dict, list[tuple[str, ...]]]:
    """The shapes of a network's variables, and the paths of its layers that have any of their own, in the order of calls."""
    met: list[tuple[str, ...]] = []

    def note(call, args, kwargs, context):
        if context.method_name == "__call__" and context.module.path not in met:
            met.append(context.module.path)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        variables = jax.eval_shape(partial(module.init, KEY), *args)
    params = traverse_util.flatten_dict(variables["params"])
    return variables, [path for path in met if any(key[:-1] == path for key in params)]


NAMES = {"weight": ("kernel", "scale", "slope"), "bias": ("bias",), "running_mean": ("mean",), "running_var": ("var",),
         "dc_weight": ("length",), "log_weight": ("log_weight",)}


def by_table(case, peer, prefix, variables, config, paths) -> dict[tuple[str, ...], np.ndarray]:
    """PyTorch's arrays under Flax's paths, by the table with which medjax converts weights."""
    start = f"{prefix}state/"
    arrays = {name.removeprefix(start): value for name, value in peer.items() if name.startswith(start)}
    if case == "pix2pix":  # the original's network is an attribute of its class
        arrays = {f"model.{name}": value for name, value in arrays.items()}
    needed = {"/".join(path): leaf.shape for path, leaf in traverse_util.flatten_dict(variables).items()}
    rows = [row for row in find(FAMILIES[case]).rows(config) if not row.here or row.here in needed]
    found, _ = to_ours(case, rows, arrays, needed)
    return {tuple(path.split("/")): value for path, value in found.items()}


def in_order(case, peer, prefix, variables, config, paths) -> dict[tuple[str, ...], np.ndarray]:
    """PyTorch's arrays under Flax's paths, layer by layer in the order of calls."""
    arrays = {name.removeprefix(prefix): value for name, value in peer.items()
              if name.removeprefix(prefix)[0].isdigit() and name.startswith(prefix)}
    return moved(case, arrays, variables, paths)


def moved(case, arrays, variables, paths) -> dict[tuple[str, ...], np.ndarray]:
    """PyTorch's arrays in Flax's layout, under Flax's paths; each has one, and none is left over."""
    ours = traverse_util.flatten_dict(variables)
    layers: dict[int, dict[str, np.ndarray]] = {}
    kinds = {}
    for name, value in arrays.items():
        label, _, entry = name.partition("/")
        number, _, kinds[int(number)] = label.partition(".")
        layers.setdefault(int(number), {})[entry] = value
    assert len(layers) == len(paths)
    found = {}
    for number, path in enumerate(paths):
        for entry, value in layers[number].items():
            key = next(key for key in ours if key[1:-1] == path and key[-1] in NAMES[entry])
            found[key] = in_our_layout(value, kinds[number], key, ours[key].shape)
            if case == "srresnet" and value.shape[0] == 4 * layers[0]["weight"].shape[0]:
                found[key] = shuffled(found[key])
    return found


def in_our_layout(value, kind, key, shape) -> np.ndarray:
    """Kernels to `(*k, in, out)`, of transposed convolutions `(*k, out, in)`; what both have otherwise stays."""
    layer = key[-2].partition("_")[0]
    if value.ndim < 2:
        return value.reshape(shape) if shape == () else value
    if layer == "Dense" and kind.startswith("ConvTranspose"):  # of one voxel
        return np.moveaxis(value, 1, -1).reshape(shape)
    if value.ndim == 2:
        return value.T
    return np.moveaxis(value, (0, 1), (-1, -2))


def shuffled(array) -> np.ndarray:
    """Pixel shuffle takes (2, 2, C) channels here and (C, 2, 2) in PyTorch."""
    return array.reshape(*array.shape[:-1], -1, 4).swapaxes(-1, -2).reshape(array.shape)


@pytest.mark.skipif(not (os.environ.get("MEDJAX_PEER_PYTHON") or INSTALLED.exists()),
                    reason="no PyTorch and MONAI; install them with `make peers`")
@pytest.mark.parametrize("name", SMALL)
def test_the_originals_weights_make_the_same_function(peers, name, monkeypatch):
    """Output and all gradients, in training and float32."""
    monkeypatch.setitem(resnet.DEPTHS, 152, ((1, 1, 1, 1), True))
    peer = peers[name]
    model, settings, shape, *_, size = PUBLISHED[name]
    changes, channels = SMALL[name]
    assert peer["size"] == size
    run, x = CALLS.get(name, plain)(network(model, settings | changes, len(shape) - 2 or 2, channels), peer)
    variables, paths = called(run, x)
    config = config_of(model, settings | changes)
    move = by_table if name in FAMILIES else in_order
    given = traverse_util.unflatten_dict(move(name, peer, "", variables, config, paths))
    assert jax.tree.map(jnp.shape, given) == jax.tree.map(jnp.shape, variables)
    cotangent = last(peer["cotangent"])

    @jax.jit
    def both(params, x):
        def product(params, x):
            y, _ = run.apply(given | {"params": params}, x, mutable=["batch_stats"])
            return (y * cotangent).sum(), y

        return jax.value_and_grad(product, (0, 1), has_aux=True)(params, x)

    (_, y), (grads, grad_x) = both(given["params"], x)
    near(y, last(peer["y"]), "y")
    near(grad_x, peer["grad/x"] if peer["grad/x"].shape == x.shape else last(peer["grad/x"]), "x")
    expected = move(name, peer, "grad/", {"params": variables["params"]}, config, paths)
    least = 3e-2 * max(np.abs(value).max() for value in expected.values())
    for key, value in traverse_util.flatten_dict({"params": grads}).items():
        near(value, expected[key], "/".join(key), least)


def near(found, expected, what, least=0.0) -> None:
    """To 1e-4 of the largest. A bias before a normalisation has no gradient but rounding, which `least` allows."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * max(np.abs(expected).max(), least), err_msg=what)
