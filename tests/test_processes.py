"""Several processes: one run, one checkpoint, and a run of one process before or after."""

import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from medjax.evaluation.run import evaluate_run
from medjax.models.unet import UNet
from medjax.objectives.supervised import Supervised
from medjax.tasks.denoise import Denoise
from medjax.train import sharding
from medjax.train.checkpoint import Checkpoints
from medjax.train.log import read_curves
from medjax.train.loop import train
from medjax.train.optim import optimizer
from medjax.train.run import load_config
from medjax.train.step import init_state
from medjax.types import Metric, State
from tests.commands import DRAWN, ROOT, SMALL
from tests.test_faults import compile_once  # noqa: F401 (a fixture)

DIVIDE_FROM = 64  # so that the tiny network's arrays are divided, too


def like(seed: int) -> State:
    """A run's state, all its numbers drawn from `seed`: parameters, Adam's moments, averages, key."""
    task = Denoise((0.0, 1.0), 2, "gaussian", (0.1, 0.1))
    objective = Supervised(task, UNet(ndim=2, channels=1, scale=(1, 1), width=8, depth=2))
    batch = {name: jax.ShapeDtypeStruct((1, *shape), dtype) for name, shape, dtype in (
        ("image", (16, 16, 1), np.float32), ("slope", (), np.float32), ("intercept", (), np.float32),
        ("id", (), np.uint32), ("count", (), np.float32))}
    shapes = jax.eval_shape(partial(init_state, task, objective, {"model": optimizer(10)}, 0.9), batch,
                            jax.ShapeDtypeStruct((2,), np.uint32))
    random = np.random.default_rng(seed)
    state = jax.tree.map(lambda leaf: (100 * random.normal(size=leaf.shape)).astype(leaf.dtype), shapes)
    return State(**vars(state) | {"step": np.int32(seed)})


def placed(state: State, mesh: jax.sharding.Mesh) -> State:
    """The state over the mesh, large arrays divided."""
    before, sharding.FSDP_FROM = sharding.FSDP_FROM, DIVIDE_FROM
    places = sharding.state_sharding(mesh, state, fsdp=True)
    sharding.FSDP_FROM = before
    return jax.tree.map(lambda leaf, place: jax.make_array_from_callback(np.shape(leaf), place, lambda at: leaf[at]),
                        jax.tree.map(np.asarray, state), places)


def same(found: State, expected: State) -> None:
    """Bit for bit, what of it is here."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        for shard in a.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), b[shard.index])


def together(*commands: list[str], devices: int = 1) -> None:
    """Runs the commands at the same time, each on CPU with so many devices; all must end well."""
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu",
                                "JAX_NUM_CPU_DEVICES": str(devices)}
    running = [subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT) for command in commands]
    for process in running:
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_two_processes_restore_what_one_wrote_and_one_what_two_wrote(tmp_path):
    """Bit-identical, on other meshes too: parameters, optimizer state, averages."""
    folder = tmp_path / "checkpoints"
    one = Checkpoints(folder, Metric("psnr"), keep=9)
    one.save(placed(like(1), sharding.make_mesh(4, 1)), {"batches": 1})
    one.close()
    port = str(free_port())
    together(*(["-m", "tests.processes_child", str(folder), port, str(index)] for index in range(2)))
    after = Checkpoints(folder, Metric("psnr"), keep=9)
    for mesh in (sharding.make_mesh(1, 1), sharding.make_mesh(2, 2), sharding.make_mesh(8, 1)):
        state, position = after.restore_latest(placed(like(0), mesh))
        assert position == {"batches": 2}
        same(state, like(2))
        same(after.restore(1, placed(like(0), mesh))[0], like(1))
    networks = after.networks(2)
    same(networks, State(**vars(like(2)) | {"opt_state": {}}))


@pytest.mark.slow
def test_a_run_of_two_processes_is_that_of_one(tmp_path):
    """Two processes train and evaluate, one evaluates and resumes: losses to 1e-5, the same metrics."""
    two, one = tmp_path / "two", tmp_path / "one"
    settings = [*SMALL, "--config.eval_every=100", "--config.optim.schedule=constant", "--config.optim.warmup=1",
                "--config.data.fractions=(0.9,0.05,0.05)", "--config.steps=4", f"--workdir={two}",
                f"--coordinator=localhost:{free_port()}", "--process_count=2"]
    together(*(["train.py", *settings, f"--process_index={index}"] for index in range(2)))
    by_two = json.loads((two / "eval" / "metrics.json").read_text())["rows"]
    evaluate_run(two)
    by_one = json.loads((two / "eval" / "metrics.json").read_text())["rows"]
    assert by_two.keys() == by_one.keys()
    for row in by_two:
        assert by_two[row] == pytest.approx(by_one[row], rel=1e-4)
    config = load_config(two)
    config.steps, config.mesh.data = 6, 1
    losses = []
    for workdir in (two, one):
        train(config, workdir)
        losses.append(read_curves(workdir)["train/model/loss"])
    assert len(losses[0]) == 6
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Callable[..., Path]:
    """The folder of the run of one process, made once for each of its settings."""

    @functools.cache
    def folder(data: int, space: int, ndim: int, depth: int) -> Path:
        workdir = tmp_path_factory.mktemp("alone")
        together(["train.py", *small_run(data, space, ndim, depth), f"--workdir={workdir}"], devices=data * space)
        return workdir

    return folder


def small_run(data: int, space: int, ndim: int, depth: int) -> list[str]:
    """Flags of three steps on a mesh, on drawn images of `depth` along the first axis."""
    shape = (depth, 16, 16)[-ndim:] if ndim == 3 else (depth, 16)
    return [DRAWN[0], *(flag for flag in DRAWN[1:] if "patch" not in flag and "shape" not in flag),
            f"--config.data.source.shape={shape}", f"--config.data.patch={shape}", f"--config.data.ndim={ndim}",
            "--config.steps=3", "--config.eval_every=3", "--config.data.range=(0.0,1.0)",
            "--config.optim.schedule=constant", f"--config.mesh.data={data}", f"--config.mesh.space={space}",
            "--config.mesh.pad=True"]


@pytest.mark.slow
@pytest.mark.parametrize(("data", "space", "ndim", "depth"), [
    *((data, space, ndim, depth) for data, space in ((1, 4), (2, 2)) for ndim in (2, 3) for depth in (11, 16)),
    (4, 1, 2, 16), (4, 1, 3, 16)])
def test_meshes_over_processes_make_the_run_of_one(data, space, ndim, depth, alone, tmp_path):
    """Two processes of two devices each: losses, validation and final evaluation are one process's, padded or not.

    That one has a single device; where an image is padded, and its border another for it, it has the same mesh.
    """
    join = [f"--coordinator=localhost:{free_port()}", "--process_count=2"]
    together(*(["train.py", *small_run(data, space, ndim, depth), f"--workdir={tmp_path}", *join,
                f"--process_index={index}"] for index in range(2)), devices=2)
    workdirs = tmp_path, alone(*((data, space) if depth % (2 * space) else (1, 1)), ndim, depth)
    curves = [read_curves(workdir) for workdir in workdirs]
    assert len(curves[1]["train/model/loss"]) == 3
    for name in ("train/model/loss", "train/model/grad_norm", "eval/psnr", "eval/nmse"):
        np.testing.assert_allclose(*(curve[name] for curve in curves), rtol=1e-5, err_msg=name)
    rows = [json.loads((workdir / "eval" / "metrics.json").read_text())["rows"] for workdir in workdirs]
    assert rows[0]["model"] == pytest.approx(rows[1]["model"], rel=1e-5, nan_ok=True)  # no window fits
    assert ("median" in rows[0]) == (space == 1)  # of divided volumes the model's metrics only
