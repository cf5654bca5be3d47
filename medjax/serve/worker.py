"""The server's hold on the process that computes: it is given a job, watched, and replaced where it ends or must end."""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol

from medjax.serve import work
from medjax.serve.jobs import RUNNING, Job, Jobs, Outcome, size_of
from medjax.serve.limits import MIB
from medjax.serve.log import say
from medjax.types import UserError

POLL = 0.05  # seconds between looks at its memory and files
WAIT = 0.2  # seconds for a job, before old ones are looked at
PATIENCE = 300  # seconds to restore a run
RESTS = 0.5  # of the memory, above which the process is replaced between two jobs


class Engine(Protocol):
    """Whoever makes outcomes of jobs."""

    def run(self, job: Job) -> Outcome:
        """Works until the job ends, whatever happens; sets its fraction meanwhile, and ends early where it is cancelled."""


class Worker:
    """A process that owns a model. It is used by one thread at a time."""

    def __init__(self, setup: work.Setup):
        self._setup = setup
        self._process: SpawnProcess | None = None
        self.task = self.start()

    def start(self) -> str:
        """Starts the process and returns the name of the run's task once it is ready. Raises UserError."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._connection: Connection[Any, Any] = ours
        self._process = context.Process(target=work.main, args=(theirs, self._setup), daemon=True)
        self._process.start()
        theirs.close()
        try:
            said = ours.recv() if ours.poll(PATIENCE) else None
        except EOFError:
            said = None
        if isinstance(said, str):
            return said
        self.stop()
        raise said or UserError(self._setup.workdir, "the process that was to restore the run has ended, or takes too long")

    def stop(self) -> None:
        """Ends the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None

    def run(self, job: Job) -> Outcome:
        """See `Engine`. The process is ended where the job takes too long or too much memory."""
        told = False
        try:
            if self._process is None or not self._process.is_alive():
                self.stop()
                self.start()
            self._connection.send(work.Task.of(job))
            begin = looked = time.monotonic()
            while True:
                if self._connection.poll(POLL):
                    said = self._connection.recv()
                    if isinstance(said, Outcome):
                        return said
                    job.fraction = said
                if job.cancelled.is_set() and not told:
                    told = True
                    self._connection.send(None)
                now = time.monotonic()
                if now - looked >= POLL:
                    looked = now
                    problem = self._beyond(job, now - begin)
                    if problem is not None:
                        self.stop()
                        return problem
        except (EOFError, OSError):
            self.stop()
            return Outcome(error="made the process that reads and computes end; the file is damaged, or medjax has a fault",
                           kind="Crashed")
        except UserError as error:  # it did not start again
            return Outcome(error="can't be worked on now: the model can't be restored", kind=type(error).__name__)

    def _beyond(self, job: Job, seconds: float) -> Outcome | None:
        """What ends a job that is above its limits."""
        limits = self._setup.limits
        if seconds > limits.job:
            return Outcome(error=f"took longer than {limits.job:g} s", kind="TooLong")
        if self.memory() + size_of(job.folder) > limits.memory:
            return Outcome(error=f"needs more than the {limits.memory // MIB} MiB of memory that a job may take",
                           kind="TooMuchMemory")
        return None

    def rest(self) -> None:
        """Between two jobs: a process that holds much memory, for the programs of many sizes, makes room for a new one."""
        if self._process is not None and self.memory() > RESTS * self._setup.limits.memory:
            self.stop()
            say("-", "the computing process is replaced: it held much memory")

    def memory(self) -> int:
        """The bytes of memory that the process holds; 0 where the system doesn't say."""
        assert self._process is not None
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def serve_jobs(jobs: Jobs, engine: Engine, between: Callable[[], None], ends: Callable[[], bool]) -> None:
    """Runs the queue's jobs one by one until `ends`; `between` them, and while there is none, old ones are forgotten."""
    while not ends():
        job = jobs.next(WAIT)
        if job is not None:
            say(job.name, RUNNING)
            jobs.end(job, engine.run(job))
        between()
        jobs.sweep()
