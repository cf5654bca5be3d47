"""The log of a run: a progress bar, `metrics.jsonl`, TensorBoard."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tqdm import tqdm


class Log:
    """Writes scalars by step to `workdir`; on screen, one bar with loss, images/s, time left and time spent waiting.

    `spent` is where the time went so far, in seconds: "compile", "input", "checkpoint", "eval"; the rest is the steps'.
    """

    def __init__(self, workdir: Path, steps: int, first_step: int, batch_size: int, silent: bool = False,
                 bar: bool = True):
        path = Path(os.devnull) if silent else workdir / "metrics.jsonl"
        self._file = path.open("a", encoding="utf-8")
        if path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # a kill cut the last line off
        self._board = None if silent else _board(workdir / "tensorboard")
        self._bar = tqdm(total=steps, initial=first_step, desc="train", unit="step", dynamic_ncols=True,
                         disable=silent or not bar)
        self._batch_size = batch_size
        self.spent = dict.fromkeys(("compile", "input", "checkpoint", "eval"), 0.0)
        self._begin = time.monotonic()
        self._since = (self._begin, first_step, dict(self.spent))

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Counts the time inside as spent on `what`."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.spent[what] += time.monotonic() - begin

    def train(self, step: int, scalars: Mapping[str, float]) -> None:
        """The step's scalars, the speed of the steps and the shares of time since the last such line."""
        then, then_step, then_spent = self._since
        seconds = max(time.monotonic() - then, 1e-9)
        shares = _shares({what: self.spent[what] - then_spent[what] for what in self.spent}, seconds)
        at_steps = max(seconds * (shares["step"] + shares["input"]), 1e-9)
        speed = {"images_per_s": (step - then_step) * self._batch_size / at_steps}
        speed |= {f"share_{what}": share for what, share in shares.items()}
        self._since = (then + seconds, step, dict(self.spent))
        self.write(step, {f"train/{name}": value for name, value in (dict(scalars) | speed).items()})
        self._bar.set_postfix_str(f"loss {scalars['model/loss']:.4g}, {speed['images_per_s']:.3g} images/s, "
                                  f"waiting {speed['share_input']:.0%}", refresh=False)

    def shares(self) -> str:
        """Where the whole time of the run went."""
        shares = _shares(self.spent, max(time.monotonic() - self._begin, 1e-9))
        return "time: " + ", ".join(f"{what} {share:.1%}" for what, share in shares.items())

    def advance(self) -> None:
        """One step is done."""
        self._bar.update()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One line of `metrics.jsonl`, and the same in TensorBoard."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in scalars.items():
                self._board.write_event(Event(step=step, wall_time=time.time(), summary=summary.scalar(name, value)))
            self._board.flush()

    def say(self, text: str) -> None:
        """A line above the bar."""
        if not self._bar.disable:
            self._bar.write(text)

    def close(self) -> None:
        """Finishes bar and files."""
        self._bar.close()
        self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path) -> EventsWriter:
    """TensorBoard's events, written at once: a writer with a thread of its own would hang where the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    return EventsWriter(str(folder / "events"))


def _shares(spent: Mapping[str, float], seconds: float) -> dict[str, float]:
    shares = {what: min(1.0, value / seconds) for what, value in spent.items()}
    return {"step": max(0.0, 1 - sum(shares.values()))} | shares


def read_curves(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of `metrics.jsonl` as (step, value); where a resumed run wrote a step twice, the later counts."""
    curves: dict[str, dict[int, float]] = {}
    for scalars in _whole_lines(workdir / "metrics.jsonl"):
        step = int(scalars.pop("step"))
        for name, value in scalars.items():
            curves.setdefault(name, {})[step] = value
    return {name: sorted(points.items()) for name, points in curves.items()}


def _whole_lines(path: Path) -> Iterator[dict[str, float]]:
    """What is written in full: a killed run may have left half a line, anywhere in the file."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and "step" in found:
            yield found
