"""The benchmark as people start it, and its clock."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import quickstart
from medjax.bench import cases, memory, peer, pipeline, programs, tiled, timing
from medjax.bench.table import Report
from medjax.train import sharding
from medjax.types import UserError

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


@pytest.mark.slow
def test_memory_falls_on_every_device_as_a_mesh_grows(tmp_path):
    code, _, err = bench("memory", *SMALL, "--batch=8", "--mesh=1x1,4x1", f"--json={tmp_path / 'memory.json'}")
    assert code == 0, err
    one, four = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert four["mesh"] == [4, 1]
    assert four["temporaries_mb"] < 0.6 * one["temporaries_mb"]


@pytest.mark.slow
def test_tiled_alone_and_the_latency_of_every_form(tmp_path):
    """Without a peer, and without jax2onnx unless it is installed."""
    code, _, err = bench("tiled", *SMALL, f"--json={tmp_path / 'tiled.json'}")
    assert code == 0, err
    (row,) = json.loads((tmp_path / "tiled.json").read_text())["rows"]
    assert (row["image"], row["windows"], row["peer_ms"]) == ([40, 40], 9, None)
    assert row["mvoxels_per_s"] == pytest.approx(40 * 40 / row["medjax_ms"] / 1e3)
    code, _, err = bench("latency", *SMALL, "--batch=1", f"--json={tmp_path / 'latency.json'}")
    assert code == 0, err
    live, exported, onnx = json.loads((tmp_path / "latency.json").read_text())["rows"]
    assert [row["form"] for row in (live, exported, onnx)] == ["live", "stablehlo", "onnx"]
    for row in (live, exported):
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["per_s"] < 1e3 / row["p50_ms"] * 2
    assert exported["difference"] < 1e-4
    assert "jax2onnx" in onnx["note"] if "note" in onnx else onnx["difference"] < 1e-4


def plan(mesh=(4, 1), **keys) -> memory.Plan:
    """A small U-Net with three arrays that fsdp divides, of a run with these keys of `config.mesh`."""
    config = quickstart.get_config()
    config.model.update(width=16, depth=3)
    config.data.patch, config.batch_size, config.ema_decay = (16, 16), 4, 0.0
    config.mesh.update(keys)
    return memory.Plan(cases.choose(config, [])[0], "f32", mesh, config)


def bytes_on_a_device(fsdp: bool) -> int:
    """Of the parameters of `plan()`, placed on four devices."""
    case, mesh = plan().case, sharding.make_mesh(4, 1)
    params = jax.jit(case.network("f32").init)(jax.random.PRNGKey(0), np.ones((1, 16, 16, 1), np.float32))
    placed = jax.device_put(params, sharding.state_sharding(mesh, params, fsdp))
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(placed))


@pytest.fixture(scope="module")
def copied() -> dict[str, float]:
    """The memory of a run whose devices each have the whole state."""
    return memory.measure(plan())


@pytest.mark.slow
@pytest.mark.parametrize(("fsdp", "offload"), [(True, False), (False, True)])
def test_memory_of_a_divided_and_an_offloaded_state(copied, fsdp, offload):
    """Adam keeps two arrays of a parameter's size beside it."""
    found = memory.measure(plan(fsdp=fsdp, offload=offload))
    whole, own = bytes_on_a_device(fsdp=False) / 2**20, bytes_on_a_device(fsdp) / 2**20
    assert (own < 0.5 * whole) == fsdp
    assert copied["host_mb"] == 0
    assert found["host_mb"] == pytest.approx(2 * own if offload else 0, rel=1e-3)
    assert copied["arguments_mb"] - found["arguments_mb"] == pytest.approx(3 * (whole - own) + found["host_mb"], rel=1e-3)
    assert found["total_mb"] == pytest.approx(found["arguments_mb"] + found["temporaries_mb"] + found["output_mb"])
    if not fsdp:  # a step has the optimizer's state on the device in either case
        assert found["total_mb"] == pytest.approx(copied["total_mb"], rel=1e-2)


def test_memory_compiles_the_runs_mode(copied):
    """Under shard_map no device holds more than its own samples; it has the same state."""
    found = memory.measure(plan(mode="shard_map"))
    assert found["arguments_mb"] == pytest.approx(copied["arguments_mb"], rel=1e-3)
    assert found["temporaries_mb"] != copied["temporaries_mb"]


@pytest.mark.parametrize(("keys", "mesh", "told"), [
    ({"mode": "shard_map", "fsdp": True}, (4, 1), "need mode=jit"),
    ({"mode": "pmap"}, (4, 1), "choose from jit, shard_map"),
    ({}, (1, 8), "multiples of 32 do"),
    ({}, (8, 1), "4 does not split over 8 devices"),
])
def test_memory_refuses_what_a_run_refuses(keys, mesh, told):
    with pytest.raises(UserError, match=told):
        memory.measure(plan(mesh, **keys))


@pytest.mark.slow
def test_memory_counts_what_images_are_padded_with():
    """Over two devices the network needs 16 rows of 12: each holds 8, as int16 and with a mask."""
    config = plan(pad=True).config
    found = memory.measure(memory.Plan(cases.choose(config, [], patches=["12x16"])[0], "f32", (1, 2), config))
    batch = found["arguments_mb"] * 2**20 - 3 * bytes_on_a_device(fsdp=False)
    assert batch == pytest.approx(4 * 8 * 16 * (2 + 1), abs=200)  # beside numbers of each sample, steps and a key


@pytest.mark.parametrize(("args", "told"), [
    (["train"], "unknown command 'train'; choose from step, infer, tiled, latency, pipeline, memory"),
    (["step", "--suite=resnet"], "unknown 'resnet'; choose from unet2d, unet3d, redcnn, edsr"),
    (["step", "--suite=edsr", "--peer=torch", "--peer_python=/no/python"], "/no/python is no program"),
    (["pipeline", "--peer=torch"], "choose from torchio, monai"),
])
def test_mistakes_are_one_line(args, told):
    code, _, err = bench(*args)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("batches", "patches", "told"), [
    ([], ["64x64"], "^--patch: '64x64'; give 3 sizes"),
    ([], ["0"], "^--patch: '0'; give 1 size"),
    ([], ["256"], "256x256x256 is larger than the volumes, 160x192x160"),
    (["8", "16"], [], "^--batch: 8,16; the pipeline is measured with one size"),
])
def test_the_pipeline_says_what_sizes_it_takes(batches, patches, told):
    with pytest.raises(UserError, match=told):
        pipeline.source(None, batches, patches, volumes=2, workers=0)


@pytest.mark.parametrize(("suite", "other", "told"), [
    ("unet3d", "torch", "^--peer: unknown 'torch'; choose from monai"),
    ("edsr", "", "^--suite: edsr enlarges; MONAI blends windows otherwise there"),
])
def test_tiled_says_what_it_measures(suite, other, told):
    with pytest.raises(UserError, match=told):
        list(tiled.measure(cases.choose(None, [suite]), ["f32"], other, "", 1.0, Report("tiled", {}, {})))


def test_an_absent_peer_is_one_line(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')
    bare.chmod(0o755)
    code, _, err = bench("step", "--suite=edsr", "--peer=torch", MEDJAX_PEER_PYTHON=str(bare))
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "make peers" in err


def test_flops_of_a_convolution_are_counted_whatever_computes_it():
    case = cases.choose(None, ["edsr"])[0]
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


def test_the_peers_python_is_the_one_given_named_or_made(monkeypatch, tmp_path):
    installed, named = tmp_path / "installed", tmp_path / "named"
    monkeypatch.setattr(peer, "INSTALLED", installed)
    monkeypatch.delenv("MEDJAX_PEER_PYTHON", raising=False)
    assert peer.find_python() == sys.executable
    for path in (installed, named):
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    assert peer.find_python() == str(installed)
    monkeypatch.setenv("MEDJAX_PEER_PYTHON", str(named))
    assert peer.find_python() == str(named)
    assert peer.find_python(sys.executable) == sys.executable
    monkeypatch.setenv("MEDJAX_PEER_PYTHON", "/no/python")
    with pytest.raises(UserError, match=r"^MEDJAX_PEER_PYTHON: /no/python is no program"):
        peer.find_python()


def test_a_peer_that_dies_is_one_line(tmp_path):
    dying = tmp_path / "python"
    dying.write_text('#!/bin/sh\necho \'{"result": {}}\'\nexit 3\n')
    dying.chmod(0o755)
    with peer.Peer("torch_steps", str(dying)) as other:
        other._process.wait()
        with pytest.raises(UserError, match="ended early with code 3"):
            other.call("run", steps=1)
