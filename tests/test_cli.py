"""What every command sets up before it works."""

import platform
import subprocess
import sys

import pytest

from medjax import __main__ as commands
from medjax import cli
from medjax.types import UserError

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
