"""Jobs: what was uploaded, waits, runs or has ended; a bounded number of them, in a bounded number of bytes."""

import contextlib
import os
import re
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from medjax.serve.limits import MIB, Limits, RefusedError
from medjax.serve.log import say

RECEIVING, QUEUED, RUNNING, SENDING, DONE, FAILED = "receiving", "queued", "running", "sending", "done", "failed"
ID = re.compile(r"[A-Za-z0-9_-]{22}")
REMEMBERED = 1000  # jobs that have ended
LATEST = 10  # jobs whose times say when to come again


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its result, a file or folder below the job's own, or what went wrong in one line.

    What is logged of a failure is `kind`, the class of the error, and `where` in medjax it was raised: the line itself may
    quote the file. `notes` are what `medjax.apply` would have warned of.
    """

    result: str = ""
    error: str = ""
    kind: str = ""
    where: str = ""
    notes: tuple[str, ...] = ()


@dataclass
class Job:
    """An upload in `folder`/in, its result in `folder`/out. `upload` is the file, or the folder of a DICOM series, there.

    `changed` is when its status changed, by a clock that only goes forward. `then` is called at its end.
    """

    id: str
    folder: Path
    then: Callable[["Job"], None] | None = None
    kind: str = ""
    upload: str = ""
    status: str = RECEIVING
    fraction: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)
    bytes: int = 0
    changed: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        """What it is called in the log."""
        return self.id[:8]

    @property
    def result(self) -> Path:
        """The file or folder of its result."""
        return self.folder / self.outcome.result


class Jobs:
    """All jobs of a server. Its methods may be called by any thread."""

    def __init__(self, folder: Path, limits: Limits):
        self.limits = limits
        self._folder = folder
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._seconds: deque[float] = deque(maxlen=LATEST)
        self._changed = threading.Condition()

    def open(self, then: Callable[[Job], None] | None = None) -> Job:
        """A new job, which has its place among those that wait before its upload begins. Raises RefusedError."""
        with self._changed:
            waiting = sum(job.status in (RECEIVING, QUEUED) for job in self._jobs.values())
            if waiting >= self.limits.waiting:
                raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"{waiting} jobs are waiting already; come again later",
                                   self._soon(waiting))
            name = secrets.token_urlsafe(16)
            job = self._jobs[name] = Job(name, self._folder / name, then)
        (job.folder / "in").mkdir(parents=True)
        return job

    def charge(self, job: Job, count: int) -> None:
        """Counts bytes of an upload. Raises RefusedError where the job or all together have too many."""
        with self._changed:
            if job.bytes + count > self.limits.upload:
                raise too_large(self.limits)
            stored = sum(other.bytes for other in self._jobs.values())
            if stored + count > self.limits.stored:
                raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the memory for uploads and results is full; come again "
                                   "later", self._soon(1))
            job.bytes += count

    def submit(self, job: Job, kind: str, upload: str) -> None:
        """Puts a job whose upload is complete at the end of the queue."""
        with self._changed:
            job.kind, job.upload = kind, upload
            self._set(job, QUEUED)
            self._queue.append(job)
            say(job.name, f"queued: {kind}, {job.bytes} bytes")

    def get(self, name: str) -> Job | None:
        """The job of a name, None where there is none, or none any more."""
        with self._changed:
            return self._jobs.get(name)

    def position(self, job: Job) -> int:
        """How many jobs come before it."""
        with self._changed:
            return self._queue.index(job) if job in self._queue else 0

    def next(self, seconds: float) -> Job | None:
        """The first job of the queue, from now on running; None if none came within some seconds."""
        with self._changed:
            if not self._queue:
                self._changed.wait(seconds)
            if not self._queue:
                return None
            job = self._queue.popleft()
            self._set(job, RUNNING)
            return job

    def end(self, job: Job, outcome: Outcome) -> None:
        """Notes the end of a job that ran; its upload is removed, and all of it where nobody wants it any more."""
        # Before the status: who reads that a job has failed finds nothing of it.
        shutil.rmtree(job.folder if outcome.error else job.folder / "in", ignore_errors=True)
        with self._changed:
            seconds = time.monotonic() - job.changed
            self._seconds.append(seconds)
            job.outcome = outcome
            dropped = job.cancelled.is_set()
            job.bytes = 0 if dropped or outcome.error else size_of(job.result)
            self._set(job, FAILED if outcome.error else SENDING if job.then else DONE)
        if dropped:
            shutil.rmtree(job.folder, ignore_errors=True)
            say(job.name, f"cancelled after {seconds:.1f} s")
        elif outcome.error:
            say(job.name, f"failed after {seconds:.1f} s: {outcome.kind}{outcome.where and f' at {outcome.where}'}")
        else:
            say(job.name, f"done after {seconds:.1f} s: {job.bytes} bytes")
        job.ended.set()
        if job.then and not dropped:
            job.then(job)

    def fail(self, job: Job, outcome: Outcome) -> None:
        """A job whose result could not be delivered."""
        shutil.rmtree(job.folder, ignore_errors=True)
        with self._changed:
            job.outcome, job.bytes = outcome, 0
            self._set(job, FAILED)

    def drop(self, job: Job) -> None:
        """Forgets a job, and removes what there is of it; one that runs is cancelled."""
        with self._changed:
            if self._jobs.pop(job.id, None) is None:
                return
            job.cancelled.set()
            if job in self._queue:
                self._queue.remove(job)
            running, job.bytes = job.status == RUNNING, 0
            self._changed.notify_all()
        if not running:  # what runs is removed when the process that works on it has let go of it
            shutil.rmtree(job.folder, ignore_errors=True)
        job.ended.set()

    def sweep(self) -> None:
        """Forgets jobs that ended long ago, and the oldest of too many."""
        with self._changed:
            ended = [job for job in self._jobs.values() if job.status in (DONE, FAILED)]
            old = [job for job in ended if time.monotonic() - job.changed > self.limits.keep]
            surplus = sorted(ended, key=lambda job: job.changed)[:max(0, len(ended) - REMEMBERED)]
        for job in {job.id: job for job in old + surplus}.values():
            self.drop(job)
            say(job.name, "forgotten")

    def _set(self, job: Job, status: str) -> None:
        job.status, job.changed = status, time.monotonic()
        self._changed.notify_all()

    def _soon(self, waiting: int) -> int:
        """In how many seconds one of the jobs that wait will probably have run."""
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else 1.0
        return max(1, round(mean * waiting / 2))


def too_large(limits: Limits) -> RefusedError:
    """The refusal of an upload that is above the limit."""
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the upload is larger than {limits.upload / MIB:g} MiB")


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder; of one that is being changed, what is there."""
    if not path.is_dir():
        return path.stat().st_size if path.is_file() else 0
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
