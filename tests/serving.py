"""A server in this process whose jobs are done by a stand-in for the process that computes, and clients of it."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medjax.serve.access import Access
from medjax.serve.jobs import Job, Jobs, Outcome
from medjax.serve.limits import Limits
from medjax.serve.web import Server
from medjax.serve.worker import serve_jobs

HOSTS = frozenset({"127.0.0.1", "localhost"})
NIFTI = b"\x5c\x01\0\0".ljust(344, b"\0") + b"n+1\0" + b"\0\0\0\0"
"""The header of a NIfTI file, as far as it tells the kind."""


@dataclass
class Copies:
    """Jobs whose result is what was uploaded; they go on while `held` is clear, and fail with `error`."""

    error: str = ""
    held: threading.Event = field(default_factory=threading.Event)
    seen: list[Job] = field(default_factory=list)

    def run(self, job: Job) -> Outcome:
        """Copies, once nothing holds it."""
        self.seen.append(job)
        job.fraction = 0.5
        while self.held.is_set() and not job.cancelled.is_set():
            time.sleep(0.01)
        if self.error:
            return Outcome(error=self.error, kind="UserError", where="infer/fit.py:1")
        (job.folder / "out").mkdir()
        upload = job.folder / "in" / job.upload
        if upload.is_dir():
            shutil.copytree(upload, job.folder / "out" / "result")
            return Outcome("out")
        shutil.copy(upload, job.folder / "out" / f"result.{job.kind}")
        return Outcome(f"out/result.{job.kind}")


@contextlib.contextmanager
def working(folder: Path, limits: Limits, engine: Copies) -> Iterator[Jobs]:
    """Jobs, and a thread that does them."""
    jobs, ends = Jobs(folder / "jobs", limits), threading.Event()
    thread = threading.Thread(target=serve_jobs, args=(jobs, engine, lambda: None, ends.is_set), daemon=True)
    thread.start()
    try:
        yield jobs
    finally:
        engine.held.clear()
        ends.set()
        thread.join()


@contextlib.contextmanager
def serving(folder: Path, limits: Limits | None = None, engine: Copies | None = None, token: str = "") -> Iterator["Client"]:
    """A server at a free port, and a client of it."""
    engine = engine or Copies()
    with working(folder, limits or Limits(), engine) as jobs:
        server = Server(("127.0.0.1", 0), jobs, Access(HOSTS, token))
        server.page = b"<!doctype html>"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield Client(server.server_address[1], folder / "jobs", engine)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> dict:
        """Its contents."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """What is wrong, in one line."""
        assert "\n" not in self.json["error"]
        return self.json["error"]


@dataclass
class Client:
    """Asks a server at a port of this machine."""

    port: int
    folder: Path = Path()
    engine: Copies = field(default_factory=Copies)

    def ask(self, method: str, path: str, body=None, headers=None, **more) -> Answer:
        """One request of Python's own client."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {}, **more)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def raw(self, data: bytes, end: bool = False, seconds: float = 10) -> bytes:
        """Everything that is answered to these bytes; at their `end` nothing more is sent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            found = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(1 << 16):
                    found += piece
            return found

    def wait(self, name: str) -> dict:
        """The state of a job that has ended."""
        return until(lambda: (state := self.ask("GET", f"/jobs/{name}").json)["status"] in ("done", "failed") and state)

    def is_empty(self) -> bool:
        """Whether nothing is left of any job, a moment after its answer."""
        return until(lambda: not list(self.folder.glob("*")), 5)

    def files(self) -> list[Path]:
        """What lies in the server's folder of jobs."""
        return files_below(self.folder)


def files_below(folder: Path) -> list[Path]:
    """The files in a folder that may be changing."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def until(found: Callable, seconds: float = 60):
    """What is found in time, and true."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)
    return value


def form(contents: bytes, name: str = "a.nii", before: bytes = b"") -> tuple[bytes, dict[str, str]]:
    """A form with a file, as browsers send it."""
    head = f'--XX\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: a/b\r\n\r\n'
    return before + head.encode() + contents + b"\r\n--XX--\r\n", {"Content-Type": "multipart/form-data; boundary=XX"}
