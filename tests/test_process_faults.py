"""Two processes of one run: what one of them was told otherwise, or lacks, ends both; sweeps."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import DRAWN, ROOT, SMALL
from tests.test_processes import free_port
from tests.test_train import wait_for

SECONDS = 30  # from the end of one process to that of the other

pytestmark = pytest.mark.slow


def start(*own: list[str], flags: list[str], workdir: Path) -> list[subprocess.Popen]:
    """Two processes of one run, with flags of its own and of both."""
    join = [f"--workdir={workdir}", f"--coordinator=localhost:{free_port()}", "--process_count=2"]
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu"}
    return [subprocess.Popen([sys.executable, "train.py", *flags, *more, *join, f"--process_index={index}"], cwd=ROOT,
                             env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for index, more in enumerate(own)]


def both(*own: list[str], flags: list[str], workdir: Path) -> list[tuple[int, str]]:
    """Exit code and errors of each of two processes."""
    running = start(*own, flags=flags, workdir=workdir)
    errors = [process.communicate(timeout=300)[1] for process in running]
    return [(process.returncode, error) for process, error in zip(running, errors, strict=True)]


def endless(workdir: Path) -> list[subprocess.Popen]:
    """Two processes of a run that ends when it is told to, in the middle of its training."""
    flags = [arg for arg in DRAWN if "steps" not in arg] + ["--config.steps=100000", "--config.checkpoint_every=100000",
                                                           "--config.eval_every=100000"]
    running = start([], [], flags=flags, workdir=workdir)
    log = workdir / "metrics.jsonl"
    try:
        wait_for(lambda: log.exists() and log.stat().st_size, running[0])
    except AssertionError:
        for process in running:
            process.kill()
        raise
    return running


@pytest.mark.parametrize(("own", "where"), [
    (["--config.data.path=/no/such/folder"], "/no/such/folder"),
    (["--config.optim.lr=0.5"], "optim.lr"),
    (["--config.steps=7"], "steps"),
    (["--config.data.fractions=(0.5,0.25,0.25)"], "data"),
    (["--config.data.source.count=9"], "data"),
])
def test_what_one_process_has_otherwise_ends_both_with_one_line(own, where, tmp_path):
    running = start([], own, flags=DRAWN, workdir=tmp_path / "run")
    while all(process.poll() is None for process in running):
        time.sleep(0.1)
    begin = time.monotonic()
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert time.monotonic() - begin < SECONDS
    for code, error in zip([process.returncode for process in running], errors, strict=True):
        assert code == 2, error
        [line] = [line for line in error.splitlines() if line.startswith("error:")]
        assert where in line
        assert "Traceback" not in error
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_sweep_over_processes_has_a_row_for_each_member(tmp_path):
    """One member diverges: its row is empty, the other's is not; the same command finds it all done."""
    flags = [*SMALL, "--config.eval_every=2", "--config.steps=2", "--config.data.fractions=(0.9,0.05,0.05)",
             "--config.optim.warmup=1", "--sweep=optim.lr=1e-3,1e30"]
    for _ in range(2):
        ends = both([], [], flags=flags, workdir=tmp_path)
        assert [code for code, _ in ends] == [0, 0], ends
        rows = {row["optim.lr"]: row for row in csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines())}
        assert rows.keys() == {"0.001", "1e+30"}
        assert float(rows["0.001"]["psnr"]) > 0
        assert not rows["1e+30"]["psnr"]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_other_with_one_line(lost, tmp_path):
    running = endless(tmp_path / "run")
    running[lost].kill()
    begin = time.monotonic()
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert time.monotonic() - begin < 60
    assert running[1 - lost].returncode == 2, errors
    [line] = [line for line in errors[1 - lost].splitlines() if line.startswith("error:")]
    assert "lost another process of the run" in line
    assert line.endswith("start all of them again, they resume from the last checkpoint")
    assert "Traceback" not in errors[1 - lost]


def test_ctrl_c_on_one_process_saves_the_run_of_both(tmp_path):
    running = endless(tmp_path / "run")
    running[1].send_signal(signal.SIGINT)
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [143, 130], errors
    assert [path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit()]
