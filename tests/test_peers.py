"""The benchmark's peers: PyTorch's networks are medjax's, and every command of benchmarks/README.md runs, at a tiny size.

They need the peers' environment (`make peers`). Once MEDJAX_PEER_PYTHON names it, nothing is skipped.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import registry
from medjax.bench import twins
from medjax.bench.peer import CHILD, INSTALLED, find_python

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (os.environ.get("MEDJAX_PEER_PYTHON") or INSTALLED.exists()),
                                reason="no PyTorch, TorchIO and MONAI; install them with `make peers`")

# model, ndim, scale, spatial size, and what differs from the model's defaults
CASES = {
    "unet2d": ("unet", 2, (1, 1), (16, 24), {"width": 8, "depth": 3}),
    "unet2d-padded": ("unet", 2, (1, 1), (13, 18), {"width": 4, "depth": 2, "norm": "none", "act": "leaky_relu"}),
    "unet2d-residual": ("unet", 2, (1, 1), (16, 16), {"width": 4, "depth": 2, "block": "residual", "norm": "batch"}),
    "unet2d-layer": ("unet", 2, (1, 1), (8, 8), {"width": 4, "depth": 2, "norm": "layer", "act": "gelu", "residual": False}),
    "unet2d-strided": ("unet", 2, (1, 1), (13, 18), {"width": 4, "depth": 2, "stride": 2}),
    "unet2d-widths": ("unet", 2, (1, 1), (8, 8), {"widths": (4, 6), "depth": 2, "norm": "none"}),
    "unet3d": ("unet", 3, (1, 1, 1), (8, 8, 12), {"width": 4, "depth": 2}),
    "unet3d-padded": ("unet", 3, (1, 1, 1), (5, 8, 6), {"width": 4, "depth": 2, "block": "residual", "norm": "none"}),
    "unet3d-residual": ("unet", 3, (1, 1, 1), (4, 8, 8), {"width": 4, "depth": 2, "block": "residual", "norm": "instance",
                                                          "act": "silu"}),
    "unet3d-batch": ("unet", 3, (1, 1, 1), (8, 8, 8), {"width": 4, "depth": 2, "norm": "batch"}),
    "redcnn": ("redcnn", 2, (1, 1), (14, 17), {"width": 8}),
    "redcnn3d": ("redcnn", 3, (1, 1, 1), (6, 7, 8), {"width": 4, "depth": 4, "kernel": 3}),
    "edsr": ("edsr", 2, (2, 2), (9, 12), {"width": 8, "blocks": 2}),
    "srresnet": ("edsr", 2, (3, 3), (8, 8), {"width": 4, "blocks": 1, "norm": "batch", "act": "leaky_relu"}),
    "edsr3d": ("edsr", 3, (1, 1, 1), (6, 6, 8), {"width": 8, "blocks": 1, "norm": "group", "block_scale": 0.3}),
}


def to_torch(case: str, variables) -> dict[str, np.ndarray]:
    """Flax's arrays under PyTorch's names and in its layout; each must have a name, and only one."""
    model, _, scale, _, changes = CASES[case]
    return twins.to_torch(registry.spec("models", model, **changes), scale, variables)


def image_first(image) -> np.ndarray:
    return np.moveaxis(np.asarray(image), -1, 1)


def build(case: str, channels: int = 2):
    model, ndim, scale, _, changes = CASES[case]
    return registry.build("models", registry.spec("models", model, **changes), ndim=ndim, channels=channels, scale=scale)


def settings(case: str, channels: int = 2) -> str:
    model, ndim, scale, _, changes = CASES[case]
    values = {key: value for key, value in registry.spec("models", model, **changes).to_dict().items() if key != "dtype"}
    return json.dumps({"ndim": ndim, "channels": channels, "scale": scale, **values})


def ours(case: str, folder: Path) -> dict[str, np.ndarray]:
    """What medjax's network makes of random weights and images, under PyTorch's names; both are written for PyTorch."""
    _, _, scale, size, _ = CASES[case]
    random, network = np.random.default_rng(0), build(case)
    x = jnp.asarray(random.normal(size=(2, *size, 2)), jnp.float32)
    cotangent = random.normal(size=(2, *(n * s for n, s in zip(size, scale, strict=True)), 2)).astype(np.float32)
    # Nothing is 0 or 1, where exchanged arrays would look alike; scales and variances are positive.
    variables = jax.tree_util.tree_map_with_path(
        lambda path, a: jnp.asarray(random.normal(size=a.shape) / np.sqrt(np.prod(a.shape[:-1])) if a.ndim > 1 else
                                    random.uniform(0.5, 1.5, a.shape), jnp.float32),
        jax.eval_shape(network.init, jax.random.PRNGKey(0), x))
    params, rest = variables["params"], {name: value for name, value in variables.items() if name != "params"}

    @jax.jit
    def run(params, x):
        def product(params, x):
            y, changed = network.apply({"params": params, **rest}, x, train=True, mutable=list(rest))
            return (y * cotangent).sum(), (y, changed)

        (_, (y, changed)), grads = jax.value_and_grad(product, (0, 1), has_aux=True)(params, x)
        return network.apply(variables, x) if rest else y, y, changed, grads

    used, trained, changed, (grads, grad_x) = run(params, x)
    state = to_torch(case, variables)
    counters = {name.replace("mean", "batches").replace("running", "num") + "_tracked": np.array(0) for name in state
                if name.endswith("running_mean")}
    np.savez(folder / f"{case}.in.npz", settings=settings(case), x=image_first(x), cotangent=image_first(cotangent),
             **{f"state/{name}": value for name, value in (state | counters).items()})
    return {"eval": image_first(used), "train": image_first(trained), "grad/x": image_first(grad_x),
            **{f"grad/{name}": value for name, value in to_torch(case, {"params": grads}).items()},
            **{f"state/{name}": value for name, value in to_torch(case, {"params": params, **changed}).items()}}


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Of every case medjax's arrays and PyTorch's."""
    folder = tmp_path_factory.mktemp("peers")
    mine = {case: ours(case, folder) for case in CASES}
    script = Path(__file__).with_name("peers_child.py")
    subprocess.run([find_python(), script, CHILD.parent, folder], check=True, timeout=120)
    return {case: (found, dict(np.load(folder / f"{case}.out.npz"))) for case, found in mine.items()}


@pytest.mark.parametrize("case", CASES)
def test_networks_with_the_same_weights_are_the_same_function(answers, case):
    found, expected = answers[case]
    compared = [name for name in found if not name.startswith("state/")]
    assert {name for name in expected if not name.startswith(("state/", "new/"))} == set(compared)
    largest = max(np.abs(value).max() for name, value in expected.items() if name.startswith("grad/"))
    for name in compared:
        # A bias before a normalisation has no gradient but rounding: no array is held to less than 1e-6 of the largest.
        scale = max(np.abs(expected[name]).max(), 1e-2 * largest if name.startswith("grad/") else 0)
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize("case", [case for case, (*_, changes) in CASES.items() if changes.get("norm") == "batch"])
def test_running_means_move_alike(answers, case):
    found, expected = answers[case]
    means = [name for name in found if name.endswith("running_mean")]
    assert means
    for name in means:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("case", ["unet2d", "unet3d-residual", "redcnn", "edsr"])
def test_networks_start_alike(answers, case):
    """Kernels have the same variance, as far as their numbers of random entries tell; all else is equal."""
    _, _, _, size, _ = CASES[case]
    new = to_torch(case, jax.jit(build(case).init)(jax.random.PRNGKey(0), jnp.ones((1, *size, 2))))
    expected = answers[case][1]
    for name, value in new.items():
        theirs = expected[f"new/{name}"]
        if value.ndim == 1 or not value.any():
            np.testing.assert_array_equal(value, theirs, err_msg=name)
        else:
            # The logarithm of the deviation of n numbers has itself a deviation of 1 / sqrt(2 n); here are two such.
            doubt = np.exp(5 / np.sqrt(value.size))
            assert 1 / doubt < value.std() / theirs.std() < doubt, name
            assert np.abs(theirs).max() < 2 / 0.88 * theirs.std() * doubt, name  # cut off at two deviations of the normal


REFUSED = [
    ("dncnn", (1, 1), {}, "PyTorch has no equal of model=dncnn; choose from unet, redcnn, edsr"),
    ("unet", (1, 1), {"window": 3}, "PyTorch's unet and medjax's differ in the keys window; mend"),
    ("unet", (1, 1), {"out_scale": None}, "PyTorch's unet and medjax's differ in the keys out_scale; mend"),
    ("unet", (1, 1), {"norm": "weight"}, "has no equal of norm=weight; choose from none, batch, group, instance, layer"),
    ("unet", (1, 1), {"pool": "mean"}, "has no equal of pool=mean; choose from max"),
    ("redcnn", (1, 1), {"kernel": 4}, "has no equal of kernel=4; choose an odd one"),
    ("edsr", (2, 1), {}, "has no equal of scale=(2, 1); choose from (1, 1), (2, 2)"),
]


def test_what_pytorch_cannot_mirror_is_one_line():
    requests = []
    for name, scale, changes, _ in REFUSED:
        model = {key: value for key, value in (registry.spec("models", name).to_dict() | changes).items()
                 if key != "dtype" and value is not None}
        requests.append({"method": "build", "arguments": {"mode": "infer", "model": model, "ndim": 2, "channels": 1,
                                                          "scale": scale, "batch": 1, "patch": (8, 8), "dtype": "f32"}})
    done = subprocess.run([find_python(), CHILD, "torch_steps"], input="\n".join(map(json.dumps, requests)), text=True,
                          capture_output=True, timeout=120)
    _, *replies = map(json.loads, done.stdout.splitlines())
    assert done.stderr == ""
    for reply, (*_, told) in zip(replies, REFUSED, strict=True):
        assert told in reply["error"]


HOW_TO = re.search(r"^## How to repeat the measurements\n.*?^```\n(.*?)^```",
                   (ROOT / "benchmarks" / "README.md").read_text(), re.MULTILINE | re.DOTALL)[1].splitlines()
TINY = ["--seconds=0.1", "--dtype=f32", "--batch=1", "--patch=16", "--volumes=2"]
SUITES = {"torch": "unet2d,unet3d,redcnn,edsr", "xla": "edsr"}


@pytest.mark.parametrize("line", HOW_TO)
def test_the_readmes_commands_run(line, tmp_path):
    program, *args = shlex.split(line)
    if program == "make":  # it made the environment that this test runs in
        assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in args)
        return
    assert [program, *args[:2]] == ["python", "-m", "medjax.bench"]
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=1", "JAX_PLATFORMS": "cpu",
                                "OMP_WAIT_POLICY": "passive"}  # threads that spin keep other tests' from their cores
    command, peer = args[2], next(arg.removeprefix("--peer=") for arg in args if arg.startswith("--peer="))
    suites = next((arg.removeprefix("--suite=") for arg in args if arg.startswith("--suite=")), SUITES.get(peer, ""))
    small = [*TINY, *([f"--suite={suites}"] if suites else []), f"--json={tmp_path / 'rows.json'}"]
    done = subprocess.run([sys.executable, *args, *small], cwd=ROOT, text=True, capture_output=True, env=environment,
                          timeout=600)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "rows.json").read_text())
    assert [row["name"] for row in report["rows"]] == (suites or command).split(",")
    assert peer in {*report["versions"], "xla"}
    for row in report["rows"]:
        assert row["peer"] == peer
        assert row["medjax_ms"] > 0
        assert row["ratio"] == pytest.approx(row["medjax_ms"] / row["peer_ms"])
        assert row.get("difference", 0) < 1e-4  # of the range: MONAI's windows make the same image
