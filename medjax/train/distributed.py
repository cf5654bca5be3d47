"""Several processes as one run: how they join, which is the primary, and how all end."""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from medjax.types import UserError

MODES = ("off", "auto")
RESTART = "start all of them again, they resume from the last checkpoint"
_KEPT: list[object] = []  # what C code calls must not be collected
LOST_AFTER = 20  # seconds without a sign of life after which a process counts as lost


def joining() -> Callable[[], None]:
    """Defines the flags that say who the other processes are; what it returns joins them."""
    mode = flags.DEFINE_enum("processes", "off", MODES, "auto: join the processes of a SLURM, GKE or TPU job.")
    coordinator = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, where nothing tells it.")
    count = flags.DEFINE_integer("process_count", 0, "How many processes there are, with --coordinator.")
    index = flags.DEFINE_integer("process_index", -1, "Which of them this is, with --coordinator.")
    return lambda: join(mode.value, coordinator.value, count.value, index.value)


def join(mode: str = "off", coordinator: str = "", count: int = 0, index: int = -1) -> None:
    """Joins the other processes of the job; to be called before anything touches a device.

    "auto" asks SLURM, Open MPI, GKE or the TPU pod for the addresses; a `coordinator` (host:port of process 0) with the
    `count` of processes and this one's `index` says them. Raises UserError where they don't find each other.
    """
    if mode == "off" and not coordinator:
        return
    _end_with_one_line()
    try:
        if coordinator:
            jax.distributed.initialize(coordinator, count, index, heartbeat_timeout_seconds=LOST_AFTER)
        else:
            jax.distributed.initialize(heartbeat_timeout_seconds=LOST_AFTER)
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        wanted = "give --coordinator=HOST:PORT --process_count=N --process_index=I"
        raise UserError("--processes", f"{first}; {wanted}") from None


def is_primary() -> bool:
    """Whether this process writes logs and prints: one of all does."""
    return jax.process_index() == 0


def several() -> bool:
    """Whether other processes belong to this run."""
    return jax.process_count() > 1


def exchange(text: str) -> list[str]:
    """The texts of all processes, in their order, in every process."""
    if not several():
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    longest = int(np.max(multihost_utils.process_allgather(np.array([data.size], np.int64))))
    padded = np.zeros((1, max(longest, 1)), np.uint8)
    padded[0, :data.size] = data
    return [bytes(row).rstrip(b"\0").decode() for row in np.asarray(multihost_utils.process_allgather(padded[0]))]


@contextmanager
def together() -> Iterator[None]:
    """What is done inside by every process succeeds in all of them, or fails in all: what one raises, all raise.

    Without it the others would wait for one that has ended until it counts as lost.
    """
    failure: UserError | None = None
    try:
        yield
    except UserError as error:
        failure = error
    texts = exchange(json.dumps(failure.args) if failure else "")
    for index, text in enumerate(texts):
        if text:
            where, problem = json.loads(text)
            raise UserError(where, problem if not several() else f"{problem} (process {index})")


def check_same(values: Mapping[str, object]) -> None:
    """Raises UserError, in every process, for the first of `values` that another process has otherwise."""
    mine = {name: repr(value) for name, value in values.items()}
    everyone = [json.loads(text) for text in exchange(json.dumps(mine))]
    for index, other in enumerate(everyone):
        for name in sorted(everyone[0].keys() | other.keys()):
            if everyone[0].get(name) != other.get(name):
                here, there = everyone[0].get(name), other.get(name)
                raise UserError(name, f"is {here} in process 0 and {there} in process {index}; start all processes with one "
                                "command on one data set")


def wait_for_all(name: str) -> None:
    """Returns when every process is here."""
    if several():
        multihost_utils.sync_global_devices(name)


def broadcast_from_primary(text: str) -> str:
    """The text of process 0 (up to 500 bytes), in every process."""
    if not several():
        return text
    letters = np.frombuffer(text.encode()[:500].ljust(500), np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(letters)).decode(errors="ignore").rstrip()


def abort(error: Exception) -> None:
    """Ends this process after another of the run was lost; anything gentler would wait for that one.

    What it says begins a line: the bar has not ended its own.
    """
    first = str(error).strip().splitlines()[0]
    print(f"\nerror: process {jax.process_index()}: lost another process of the run ({first}); {RESTART}", file=sys.stderr,
          flush=True)
    os._exit(2)


def _end_with_one_line() -> None:
    """Where jax's runtime misses another process it aborts this one, from a thread of its own: then as in `abort`."""
    def ended(_: int) -> None:
        os.write(2, f"\nerror: lost another process of the run; {RESTART}\n".encode())
        os._exit(2)

    _KEPT.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(ended))
    ctypes.CDLL(None).signal(signal.SIGABRT, _KEPT[-1])


def all_asked_to_stop(step: int) -> bool:
    """Whether any process got SIGTERM, agreed upon by all at the same step."""
    return several() and multihost_utils.reached_preemption_sync_point(step)
