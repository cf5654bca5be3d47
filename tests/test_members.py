"""Members of a sweep side by side: the runs they would have been one by one."""

import jax
import numpy as np
import pytest

from configs import base
from medjax import sweep
from medjax.data.split import fingerprint
from medjax.train.checkpoint import Checkpoints
from medjax.train.layouts import initial, member_mesh, members_step
from medjax.train.log import read_curves
from medjax.train.loop import train, train_side_by_side
from medjax.train.run import assemble, load_splits, resolve
from medjax.types import Metric, UserError
from tests.test_faults import compile_once, small  # noqa: F401 (a fixture)


def config():
    settings = small(range=(0.0, 255.0))
    settings.update(steps=4, checkpoint_every=4, eval_every=4)
    return settings


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of a sweep over two seeds and two learning rates, in one program."""
    workdir = tmp_path_factory.mktemp("sweep")
    sweep.run(config(), "seed=0,1;optim.lr=1e-3,2e-4", workdir, side_by_side=True)
    return workdir


def test_members_are_the_runs_one_by_one(together, tmp_path):
    member = config()
    member.seed, member.optim.lr = 1, 2e-4
    train(member, tmp_path)
    alone, beside = read_curves(tmp_path), read_curves(together / "seed=1,optim.lr=0.0002")
    for name in ("train/model/loss", "train/model/grad_norm", "eval/psnr"):
        np.testing.assert_allclose(beside[name], alone[name], rtol=1e-5, err_msg=name)
    states = []
    for workdir in (tmp_path, together / "seed=1,optim.lr=0.0002"):
        checkpoints = Checkpoints(workdir / "checkpoints", Metric("psnr"))
        states.append(checkpoints.contents(4))
        checkpoints.close()
    assert states[0][1] == states[1][1]
    for a, b in zip(jax.tree.leaves(states[0][0]), jax.tree.leaves(states[1][0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_all_members_are_ranked_and_differ(together, capsys):
    assert len((together / "sweep.csv").read_text().splitlines()) == 5
    losses = {read_curves(folder)["train/model/loss"][-1][1] for folder in together.iterdir() if folder.is_dir()}
    assert len(losses) == 4
    sweep.run(config(), "seed=0..1;optim.lr=1e-3,2e-4", together)  # all are done: it prints the tables
    printed = capsys.readouterr().out
    lines = printed[printed.index("over seeds"):].splitlines()
    for rate, line in zip(("0.001", "0.0002"), lines[3:5], strict=True):
        values = [dict(read_curves(together / f"seed={seed},optim.lr={rate}")["eval/psnr"])[4] for seed in (0, 1)]
        assert line.startswith(f"optim.lr={rate} ")
        assert f"{np.mean(values):.4g} ± {np.std(values, ddof=1):.2g}" in line


def test_another_seed_leaves_the_subjects_where_they_are():
    one, other = small(), small()
    other.seed = 7
    assert fingerprint(load_splits(one)) == fingerprint(load_splits(other))
    drawn = base.get_config(source="phantoms")
    before = {region.record.subject for region in load_splits(drawn)["test"]}
    drawn.data.split_seed = 3
    assert {region.record.subject for region in load_splits(drawn)["test"]} != before


def test_members_do_not_communicate():
    settings = config()
    run = assemble(resolve(settings, load_splits(settings)))
    mesh = member_mesh(4)
    assert mesh.shape["member"] == 4
    assert member_mesh(10).shape["member"] == 5  # of eight devices
    batch = {"image": jax.ShapeDtypeStruct((4, 24, 24, 1), np.uint8), "id": jax.ShapeDtypeStruct((4,), np.uint32),
             **{name: jax.ShapeDtypeStruct((4,), np.float32) for name in ("slope", "intercept", "count")}}
    state = jax.eval_shape(initial(run), batch, jax.ShapeDtypeStruct((2,), np.uint32))
    many = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((4, *leaf.shape), leaf.dtype), (state, batch))
    text = members_step(run, mesh).lower(*many, jax.ShapeDtypeStruct((4,), np.float32)).compile().as_text()
    for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert word not in text


def test_a_finished_member_goes_on_to_more_steps_and_has_no_other_settings(tmp_path):
    settings = config()
    sweep.run(settings, "optim.lr=1e-3", tmp_path)
    settings.steps = 6
    sweep.run(settings, "optim.lr=1e-3", tmp_path)
    steps = [step for step, _ in read_curves(tmp_path / "optim.lr=0.001")["train/model/loss"]]
    assert steps[-1] == 6
    assert steps.count(4) == 1
    for key, value in (("steps", 4), ("eval_samples", 3), ("seed", 5)):
        other = settings.copy_and_resolve_references()
        other[key] = value
        with pytest.raises(UserError, match="holds a member of another config"):
            sweep.run(other, "optim.lr=1e-3", tmp_path)


def test_members_beside_each_other_are_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.distributed, "several", lambda: True)
    with pytest.raises(UserError, match=r"^--side_by_side: members take a device each of one process"):
        sweep.run(config(), "seed=0,1", tmp_path, side_by_side=True)


def test_what_is_part_of_the_program_must_be_the_same(tmp_path):
    other = config()
    other.data.range = (0.0, 200.0)
    with pytest.raises(UserError, match=r"^--side_by_side: [^\n]*config\.data\.range"):
        train_side_by_side([config(), other], [tmp_path / "one", tmp_path / "other"])
    assert not list(tmp_path.iterdir())
