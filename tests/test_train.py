"""A run as people start it: train.py and eval.py, stopped and resumed, swept, and given wrong things."""

import csv
import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from medjax.evaluation import run
from tests.commands import DRAWN, command


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A small run, trained to its end, and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    code, out, err = command("train.py", *DRAWN, "--config.references=('nlm',)", f"--workdir={workdir}")
    assert code == 0, err
    return workdir, out + err


def test_training_writes_what_it_says_and_ends_with_a_table(finished):
    workdir, printed = finished
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/model/loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "eval/psnr" in line] == [3, 6]
    assert any((workdir / "tensorboard").iterdir())
    assert "images/s" in printed
    assert "nlm" in printed
    assert f"next: python -m medjax.apply --workdir={workdir} " in printed
    assert str(workdir / "eval" / "report.html") in printed


def test_evaluation_has_a_row_for_the_input_the_references_and_the_model(finished):
    workdir, printed = finished
    found = json.loads((workdir / "eval" / "metrics.json").read_text())
    assert set(found["rows"]) == {"input", "nlm", "median", "model"}
    assert found["split"] == "test"
    assert set(found["strengths"]) == {"nlm", "median"}
    assert re.search(r"strengths, chosen on the validation part: .*nlm", printed)
    assert found["n"] * 4 + 1 == len((workdir / "eval" / "per_sample.csv").read_text().splitlines())
    assert found["undefined"] == {"psnr_background": found["n"]}  # nothing counts but the head that is drawn
    assert all(np.isfinite(value) for row in found["rows"].values() for name, value in row.items()
               if name not in found["undefined"])
    page = (workdir / "eval" / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)


def test_an_evaluation_that_is_there_is_printed_and_not_repeated(finished, monkeypatch, capsys):
    workdir, printed = finished
    before = {path: path.stat().st_mtime_ns for path in (workdir / "eval").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(run, "compare", None)
        run.evaluate_run(workdir, again=False)
    said = capsys.readouterr().out
    assert said in printed
    assert "model" in said
    assert "next: python -m medjax.apply" in said
    assert {path: path.stat().st_mtime_ns for path in (workdir / "eval").iterdir()} == before


@pytest.mark.slow
def test_a_killed_run_ends_like_an_uninterrupted_one(finished, tmp_path):
    workdir, _ = finished
    killed = tmp_path / "killed"
    process = command("train.py", *DRAWN, f"--workdir={killed}", wait=False)
    wait_for(lambda: (killed / "checkpoints" / "2").exists(), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, out, err = command("train.py", *DRAWN, f"--workdir={killed}", "--config.data.workers=1")
    assert code == 0, err
    assert "resuming from step" in out
    same_checkpoint(workdir, killed, 6)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_exits_with_its_code(number, code, tmp_path):
    long = [arg for arg in DRAWN if "steps" not in arg] + ["--config.steps=100000", "--config.checkpoint_every=100000",
                                                          "--config.eval_every=100000"]
    process = command("train.py", *long, f"--workdir={tmp_path / 'run'}", wait=False)
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists() and (tmp_path / "run" / "metrics.jsonl").stat().st_size,
             process)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "saved" in out
    assert [p for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit()]


@pytest.mark.slow
def test_a_sweep_ranks_its_members_and_resumes(tmp_path):
    args = [*DRAWN, "--config.steps=2", "--config.data.workers=0", f"--workdir={tmp_path}",
            "--sweep=optim.lr=1e-3,1e-9;model.width=4"]
    code, _, err = command("train.py", *args)
    assert code == 0, err
    members = sorted(p.name for p in tmp_path.iterdir() if p.is_dir())
    assert members == ["optim.lr=0.001,model.width=4", "optim.lr=1e-09,model.width=4"]
    scores = [float(row["psnr"]) for row in csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines())]
    assert scores == sorted(scores, reverse=True)
    before = {p: p.stat().st_mtime for name in ("metrics.jsonl", "report.html") for p in tmp_path.rglob(name)}
    code, _, _ = command("train.py", *args)
    assert code == 0
    assert {p: p.stat().st_mtime for p in before} == before


WRONG = {
    "misspelt key": (["--config.model.widht=3"], "--config.model.widht: no such key; did you mean model.width?"),
    "unknown model": (["--config=configs/quickstart.py:model=unett,source=phantoms"], "unett"),
    "missing file": (["--config.data.path=no/such/file.nii.gz"], "no/such/file.nii.gz"),
    "remote path": (["--config.data.path=gs://bucket/scans"], "config.data.path: gs://bucket/scans is on another machine"),
    "missing config": (["--config=configs/nothing.py"], "nothing"),
    "wrong batch": (["--config.batch_size=0"], "batch_size"),
    "wrong noise": (["--config.task.noise=gausian"], "gausian"),
    "wrong loss": (["--config.objective.loss=l3"], "l3"),
    "metric of another task": (["--config.metric=dice"], "config.metric: unknown 'dice'; denoise has "),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_clear_line(case, tmp_path):
    args, named = WRONG[case]
    code, _, err = command("train.py", *DRAWN, *args, f"--workdir={tmp_path / 'run'}")
    assert_one_line(code, err, named)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("content", "says"), [(None, "File exists"), ('{"steps": ', "is damaged")])
def test_a_folder_that_can_not_be_the_runs_is_one_clear_line(content, says, tmp_path):
    """A file in its place; a config that is cut off."""
    workdir = tmp_path / "run"
    if content is None:
        workdir.write_text("")
    else:
        workdir.mkdir()
        (workdir / "config.json").write_text(content)
    code, _, err = command("train.py", *DRAWN, f"--workdir={workdir}")
    assert_one_line(code, err, str(workdir))
    assert says in err


@pytest.mark.slow
def test_bad_images_are_one_clear_line(tmp_path, test_data):
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "flat.npy", np.zeros((40, 40), np.float32))
    cases = {
        tmp_path / "empty": "empty", test_data / "badinput" / "truncated_gzip.nii.gz": "truncated_gzip",
        test_data / "badinput" / "nan_inf.nii.gz": "nan_inf",
    }
    for path, named in cases.items():
        code, _, err = command("train.py", *DRAWN, f"--config.data.path={path}", f"--workdir={tmp_path / 'run'}")
        assert_one_line(code, err, named)
    code, _, err = command("train.py", *DRAWN, "--config.data.ndim=3", "--config.data.patch=(8,8,8)",
                           f"--config.data.path={test_data / 'endoscopy'}", f"--workdir={tmp_path / 'run'}")
    assert_one_line(code, err, "ndim")
    assert not (tmp_path / "run").exists()


def assert_one_line(code: int, err: str, named: str) -> None:
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2, err
    assert len(said) == 1, err
    assert named in said[0]
    assert "Traceback" not in err


def wait_for(condition, process) -> None:
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("waited a minute for nothing")


def same_checkpoint(one: Path, other: Path, step: int) -> None:
    """Bit for bit: parameters, optimizer state, keys and the pipeline's position."""
    import orbax.checkpoint as ocp

    states = []
    for workdir in (one, other):
        with ocp.CheckpointManager(workdir / "checkpoints", item_names=("state", "data", "versions")) as manager:
            args = ocp.args.Composite(state=ocp.args.StandardRestore(), data=ocp.args.JsonRestore())
            states.append(manager.restore(step, args=args))
    assert states[0].data == states[1].data
    assert states[0].state.keys() == states[1].state.keys()
    import jax

    for a, b in zip(jax.tree.leaves(states[0].state), jax.tree.leaves(states[1].state), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
