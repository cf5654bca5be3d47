"""The benchmark as people start it, and its clock."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medjax.bench import cases, programs, timing

ROOT = Path(__file__).parents[1]
SMALL = ["--config=configs/quickstart.py", "--config.model.width=4", "--config.model.depth=2", "--config.batch_size=2",
         "--config.data.patch=(16,16)", "--seconds=0.1"]


def bench(*args: str, **environment: str) -> tuple[int, str, str]:
    """The command in a process of its own, on one CPU device."""
    done = subprocess.run([sys.executable, "-m", "medjax.bench", *args], cwd=ROOT, text=True, capture_output=True,
                          env=os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"} | environment, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_step_beside_xla_writes_its_rows(tmp_path):
    code, out, err = bench("step", *SMALL, "--dtype=f32,bf16", "--peer=xla", f"--json={tmp_path / 'step.json'}")
    assert code == 0, err
    report = json.loads((tmp_path / "step.json").read_text())
    assert report["hardware"]["cores"] >= 1
    assert report["hardware"]["matrix_gflops"]["f32"] > 1
    assert report["versions"]["jax"]
    assert [row["dtype"] for row in report["rows"]] == ["f32", "bf16"]
    for row in report["rows"]:
        assert row["ratio"] == pytest.approx(row["medjax_ms"] / row["peer_ms"])
        assert row["images_per_s"] == pytest.approx(2e3 / row["medjax_ms"])
        assert 0 < row["share_of_peak"] < 1
        assert row["name"] in out


def test_memory_falls_on_every_device_as_a_mesh_grows(tmp_path):
    code, _, err = bench("memory", *SMALL, "--batch=8", "--mesh=1x1,4x1", f"--json={tmp_path / 'memory.json'}")
    assert code == 0, err
    one, four = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert four["mesh"] == [4, 1]
    assert four["temporaries_mb"] < 0.6 * one["temporaries_mb"]


@pytest.mark.parametrize(("args", "told"), [
    (["train"], "give one of step, infer, pipeline, memory"),
    (["step", "--suite=resnet"], "no 'resnet'; there is unet2d, unet3d, redcnn, edsr"),
    (["step", "--suite=edsr", "--peer=torch", "--peer_python=/no/python"], "/no/python is no program"),
    (["pipeline", "--peer=torch"], "there is torchio, monai"),
])
def test_mistakes_are_one_line(args, told):
    code, _, err = bench(*args)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1


def test_an_absent_peer_is_one_line(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')
    bare.chmod(0o755)
    code, _, err = bench("step", "--suite=edsr", "--peer=torch", MEDJAX_PEER_PYTHON=str(bare))
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "pip install -r benchmarks/peers.txt" in err


def test_flops_of_a_convolution_are_counted_whatever_computes_it():
    case = cases.suites(["edsr"])[0]
    convolutions = 8 * (64 * 64) * 9 * (64 + 17 * 64 * 64 + 64 * 256 + 4 * 64)
    assert programs.flops(case, "f32", "infer") == pytest.approx(2 * convolutions, rel=0.05)


def test_contestants_take_turns_and_first_steps_do_not_count():
    turns = []

    def contestant(name):
        def step():
            turns.append(name)
        return timing.clock(step)

    slow, fast = timing.alternate([contestant("slow"), contestant("fast")], 0.01)
    assert slow.shape == fast.shape == (len(slow), slow.shape[1])
    assert len(slow) >= 3
    changes = sum(a != b for a, b in itertools.pairwise(turns))
    assert changes == 2 * (len(slow) + 1) - 1
    assert timing.spread(np.array([1.0, 2, 3, 4, 5])) == 2


@pytest.mark.skipif("MEDJAX_PEER_PYTHON" not in os.environ, reason="MEDJAX_PEER_PYTHON names no Python with PyTorch")
@pytest.mark.parametrize("suite", ["unet2d", "unet3d", "redcnn", "edsr"])
def test_torch_has_as_many_parameters(suite):
    from medjax.bench.peer import Peer

    case = cases.suites([suite])[0]
    small = cases.Case(suite, case.model, case.ndim, case.scale, 1, tuple(16 for _ in case.patch))
    model = {k: v for k, v in case.model.to_dict().items() if k != "dtype"}
    with Peer("torch_steps", os.environ["MEDJAX_PEER_PYTHON"]) as torch:
        facts = torch.call("build", mode="infer", model=model, ndim=small.ndim, channels=1, scale=small.scale, batch=1,
                           patch=small.patch, dtype="f32")
    assert facts["params"] == programs.build(small, "f32", "infer").params
