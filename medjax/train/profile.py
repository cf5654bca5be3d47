"""A trace of some steps, for TensorBoard's profiler or Perfetto."""

from collections.abc import Mapping
from pathlib import Path

import jax

from medjax.types import Array, UserError


def parse_steps(text: str) -> tuple[int, int]:
    """First and last step of "10-20"; (0, 0) for "". Raises UserError."""
    first, _, last = text.partition("-")
    if not text:
        return 0, 0
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
        raise UserError("--profile", f"{text!r} is not FIRST-LAST, e.g. 10-20")
    return int(first), int(last)


class Profile:
    """Traces the steps `first` to `last` of a run into `workdir/profile`."""

    def __init__(self, workdir: Path, steps: tuple[int, int]):
        self.folder = workdir / "profile"
        self._first, self._last = steps
        self._running = False

    def before(self, step: int) -> None:
        """To be told before step number `step`, counted from 1, is started."""
        if not self._running and self._first <= step <= self._last:
            jax.profiler.start_trace(str(self.folder))
            self._running = True

    def after(self, step: int, logs: Mapping[str, Array]) -> bool:
        """To be told after it, with what it made; whether the trace is written."""
        if not self._running or step < self._last:
            return False
        jax.block_until_ready(logs)
        self.close()
        return True

    def close(self) -> None:
        """Writes what there is of the trace."""
        if self._running:
            jax.profiler.stop_trace()
        self._running = False
