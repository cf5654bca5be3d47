"""Weights of other packages' networks, converted: the same output, and the same weights back (`make peers-test`)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medjax.bench.peer import INSTALLED, find_python
from medjax.models.varnet import KSpaceCascade
from medjax.ops.fft import ifft
from medjax.physics.mri import Cartesian, root_sum_of_squares, to_complex
from medjax.physics.sampling import ComplexChannels
from medjax.train.converted import give_back
from medjax.train.run import restore_best
from medjax.train.weights import by_path
from medjax.types import Measurement
from medjax.weights._table import find, to_ours
from tests.converted import convert, output
from tests.test_published import PUBLISHED, near

NAMES = ("fastmri_unet", "fastmri_varnet", "ldct_redcnn", "ldct_cnn10", "ldct_resnet", "monai_basicunet",
         "monai_basicunet-3d", "monai_dynunet", "monai_dynunet-3d", "monai_dynunet-heads", "monai_segresnet",
         "monai_segresnet-3d", "nafnet", "restormer", "restormer-centred", "swinir", "swinir-colour", "nnunet", "nnunet-3d",
         "nnunet-residual", "nnunet-residual-3d",
         "torchvision_resnet-18", "torchvision_resnet-50", "torchvision_vgg-11", "torchvision_vgg-11-bn")
# Images go into the networks as they are; a unit range with other ends does not enter here.
INSIDE = {"fastmri_unet": {"model__standardise": False}, "torchvision": {"model__mean": (), "model__std": ()}}
pytestmark = pytest.mark.skipif(not (os.environ.get("MEDJAX_PEER_PYTHON") or INSTALLED.exists()),
                                reason="no PyTorch and MONAI; install them with `make peers`")


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """What the packages' networks make of random weights and images."""
    folder = tmp_path_factory.mktemp("originals")
    subprocess.run([find_python(), Path(__file__).with_name("originals_child.py"), folder], check=True, timeout=600)
    return folder


def last(array):
    """Channels last."""
    return jnp.asarray(np.moveaxis(array, 1, -1))


def measured(x, mask):
    """The k-space `(B, coils, H, W, 2)` of a VarNet as ours is given it, with the coil images."""
    y = to_complex(jnp.asarray(x))[..., 0]
    sampled = jnp.broadcast_to(jnp.asarray(mask[..., 0], jnp.float32), (1, 1, *y.shape[2:]))
    operator = Cartesian(jnp.ones(y.shape, jnp.complex64), sampled)
    return jnp.zeros((1, *y.shape[2:], 2)), Measurement(ComplexChannels(operator), y, ifft(y, 2))


def kspace_of(workdir, x, context):
    """What the last cascade of a VarNet makes, `(B, coils, H, W)`."""
    run, state = restore_best(workdir)
    params, variables = state.for_use()
    _, seen = run.objective.model.apply({"params": params["model"], **variables["model"]}, x, context,
                                        capture_intermediates=lambda part, _: isinstance(part, KSpaceCascade))
    return seen["intermediates"][f"cascade{run.config.model.iterations - 1}"]["__call__"][0]


def read(originals, name) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What a network has made, and its weights."""
    if (originals / f"{name}.json").exists():
        pytest.skip(json.loads((originals / f"{name}.json").read_text()))
    found = dict(np.load(originals / f"{name}.npz"))
    return found, {key.removeprefix("state/"): value for key, value in found.items() if key.startswith("state/")}


@pytest.mark.parametrize("name", NAMES)
def test_converted_weights_make_the_originals_output(originals, name, tmp_path):
    found, state = read(originals, name)
    family = name.partition("-")[0]
    save_file(state, tmp_path / "weights.safetensors")
    given = INSIDE.get(family, INSIDE.get(family.partition("_")[0], {}))
    made = convert(family, tmp_path / "weights.safetensors", tmp_path / "run", **given)
    assert made.parameters == found["parameters"]
    if family == "fastmri_varnet":
        # The original's image is the root of the summed squares of the coils', ours what their sensitivities make of them.
        kspace = kspace_of(tmp_path / "run", *measured(found["x"], found["given/0"]))
        y, expected = root_sum_of_squares(ifft(kspace, 2))[..., 0], found["y"]
    else:
        y, expected = output(tmp_path / "run", last(found["x"])), found["y"] if found["y"].ndim == 2 else last(found["y"])
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    give_back(tmp_path / "run", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    left_out = re.compile(getattr(find(family), "LEFT_OUT", "$^"))
    assert back.keys() == {key for key in state if not left_out.search(key)}
    for key, value in ((key, state[key]) for key in back):
        assert back[key].dtype == value.dtype, key
        np.testing.assert_array_equal(back[key], value, err_msg=key)


@pytest.mark.parametrize("name", [name for name in NAMES if "nnunet" in name or name.endswith("heads")])
def test_all_levels_and_their_gradients_are_the_originals(originals, name, tmp_path):
    """In training and float32, to 1e-4 of the largest; the levels that nnU-Net and MONAI train, and all arrays."""
    found, state = read(originals, name)
    family = find(name.partition("-")[0])
    save_file(state, tmp_path / "weights.safetensors")
    convert(name.partition("-")[0], tmp_path / "weights.safetensors", tmp_path / "run")
    run, restored = restore_best(tmp_path / "run")
    params, variables = (part["model"] for part in restored.for_use())
    weights = [last(value) for key, value in sorted(found.items()) if key.startswith("weight/")]

    @jax.jit
    def both(params, x):
        def product(params, x):
            y, seen = run.objective.model.apply({"params": params, **variables}, x, train=True,
                                                mutable=["coarse", "batch_stats"])
            levels = [y, *(output.image for output in seen["coarse"]["outputs"])]
            return sum((a * b).sum() for a, b in zip(levels, weights, strict=True)), levels

        return jax.value_and_grad(product, (0, 1), has_aux=True)(params, x)

    (_, levels), (grads, grad_x) = both(params, last(found["x"]))
    for level, found_there in enumerate(levels):
        near(found_there, last(found[f"level/{level}"]), f"level {level}")
    near(grad_x, last(found["grad/x"]), "x")
    ours = {f"params/{path}": value for path, value in by_path(grads).items()}
    expected, _ = to_ours(name, [row for row in family.rows(run.config.model) if row.here in ours],
                          {key.removeprefix("grad/"): value for key, value in found.items() if key.startswith("grad/")
                           and key != "grad/x"}, {path: value.shape for path, value in ours.items()})
    least = 3e-2 * max(np.abs(value).max() for value in expected.values())
    for path, value in ours.items():
        near(value, expected[path], path, least)


def test_nnunets_planned_networks_have_the_originals_size(originals):
    sizes = json.loads((originals / "sizes.json").read_text())
    if not sizes:
        pytest.skip("no dynamic-network-architectures")
    assert sizes == {name: PUBLISHED[name][-1] for name in sizes}


READ = """
import sys
sys.path.append(sys.argv[1])
from medjax.types import UserError
from medjax.weights._files import read
import numpy as np
from pathlib import Path
folder = Path(sys.argv[2])
np.savez(folder / "read.npz", **read(folder / "lightning.ckpt"))
np.savez(folder / "read_too.npz", **read(folder / "checkpoint_final.pth"))
try:
    read(folder / "model.pt")
except UserError as error:
    print(error)
"""


def test_pytorch_checkpoints_are_read_as_weights_alone(originals, tmp_path):
    """Checkpoints of Lightning and nnU-Net are; a model that was pickled whole, and could run anything, is not."""
    found = dict(np.load(originals / "checkpoint.npz"))
    torch = subprocess.run([find_python(), "-c", "import torch; print(torch.__path__[0])"], check=True, text=True,
                           capture_output=True).stdout.strip()
    said = subprocess.run([sys.executable, "-c", READ, Path(torch).parent, originals], check=True, text=True,
                          capture_output=True).stdout
    assert "model.pt: can't be read as weights alone" in said
    assert said.endswith("save the model's state_dict() with PyTorch, or as .safetensors\n")
    for file in ("read.npz", "read_too.npz"):
        arrays = dict(np.load(originals / file))
        assert arrays.keys() == found.keys()
        for name, array in found.items():
            np.testing.assert_allclose(arrays[name], array, rtol=1e-2)  # one is kept in half precision
