"""What every command sets up before it works."""

import logging
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from configs import quickstart
from medjax import __main__ as commands
from medjax import cli
from medjax.types import UserError
from tests.commands import command

FAULTS = """
import resource, threading
import jax, numpy as np
from medjax.cli import keep_memory
{call}
step = jax.jit(lambda x: (x[:, None] + x).cumsum(0)[-1])
x = np.ones(3000, np.float32)
for _ in range(20):  # until enough pieces lie ready
    step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5)
"""


@pytest.mark.parametrize("name", ["None", "configs/quickstrt.py"])
def test_a_config_that_is_not_there_is_said_with_those_that_are(name):
    with pytest.raises(UserError, match=f"no file {name}; choose from configs/anomaly.py, configs/brain") as caught:
        cli._config_of(["train.py", f"--config={name}"])
    assert "eval.py" not in str(caught.value)
    assert "base.py" not in str(caught.value)


@pytest.mark.parametrize(("key", "says"), [
    ("model.widht", "did you mean model.width?"), ("lr", "did you mean optim.lr?"), ("patch", "did you mean data.patch?"),
    ("steps.more", "did you mean steps?"), ("model.qqqqqqq", "there is act, "),
])
def test_a_misspelt_key_is_said_with_the_one_that_was_meant(key, says):
    with pytest.raises(UserError) as caught:
        cli._check_key(quickstart.get_config(), key, "1")
    assert str(caught.value).startswith(f"--config.{key}: no such key; {says}")


def test_help_lists_the_keys_of_a_config_with_their_values():
    _, out, err = command("train.py", "--config=configs/quickstart.py", "--help")
    assert "Traceback" not in err
    lines = out.splitlines()
    assert {"  --config.steps=2000", "  --config.model.name='unet'", "  --config.data.patch=(96, 96)"} <= set(lines)
    assert any(line.strip().startswith("--workdir") for line in lines)


def test_a_warning_is_a_line_of_its_own_above_a_bar(capsys):
    logger = logging.Logger("medjax")
    logger.addHandler(cli._Handler())
    with tqdm(total=3) as bar:
        logger.warning("%d of 3 are lost", 2)
        bar.update()
    assert "\rwarning: 2 of 3 are lost\n" in capsys.readouterr().err.replace("\x1b[A", "")
    logger.handle(logging.LogRecord("absl", logging.ERROR, str(Path("orbax", "checkpoint.py")), 1, "failed", (), None))
    assert not capsys.readouterr().err


def test_ctrl_c_ends_a_command_without_a_traceback(capsys):
    def work() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        cli._guarded(work)
    assert (caught.value.code, capsys.readouterr().err) == (130, "interrupted\n")


LATE_WRITES = """
import tensorstore
from medjax import cli

def main() -> None:
    def fail(error: Exception) -> None:
        raise error
    for error in (RuntimeError("Event loop is closed"), RuntimeError("another fault")):
        promise, future = tensorstore.Promise.new()
        future.add_done_callback(lambda _, error=error: fail(error))
        promise.set_result(1)
        future.result()

cli.run(main)
"""


def test_a_write_that_ends_after_orbax_has_failed_prints_nothing():
    said = subprocess.run([sys.executable, "-c", LATE_WRITES], capture_output=True, text=True, check=True).stderr
    assert "another fault" in said
    assert "Event loop is closed" not in said


def test_every_command_is_listed(capsys):
    commands.main()
    said = capsys.readouterr().out
    assert all(name in said for name in ("train.py", "eval.py", "compare", "apply", "align", "build", "bench"))


def page_faults(call: str) -> float:
    """Of a step that needs at least 36 MB of temporary memory."""
    run = subprocess.run([sys.executable, "-c", FAULTS.format(call=call)], capture_output=True, text=True, check=True)
    return float(run.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_the_memory_of_a_step_is_kept_for_the_next():
    assert page_faults("keep_memory()") < 0.1 * page_faults("")
