"""The process that owns the model: it takes jobs one by one and tells how far it is. It ends with its parent."""

import ctypes
import logging as python_logging
import os
import resource
import signal
import sys
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from absl import logging

from medjax.data.results import Table
from medjax.files import NO_ROOM
from medjax.infer import inputs as reading
from medjax.infer.study import Application
from medjax.serve.jobs import Job, Outcome
from medjax.serve.limits import Limits
from medjax.serve.upload import prepared
from medjax.types import UserError

PACKAGE = Path(__file__).parents[1]
PR_SET_PDEATHSIG = 1
NOTES, LONGEST = 20, 500  # notes of a job, characters of a line
ZIP = "result.zip"


@dataclass(frozen=True)
class Setup:
    """What is applied, and how: see `Application.restore`."""

    workdir: Path
    limits: Limits
    uncertainty: tuple[str, ...] = ()
    rescale: str = "none"
    accept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A job for the process. The result of a series that is sent on stays a folder; else several files become a zip."""

    folder: Path
    kind: str
    upload: str
    packed: bool

    @classmethod
    def of(cls, job: Job) -> "Task":
        """That of a job."""
        return cls(job.folder, job.kind, job.upload, job.then is None)


class CancelledError(Exception):
    """Nobody wants the result any more."""


def main(connection: Connection, setup: Setup) -> None:
    """Says that it is ready, or what hinders it; then takes a `Task` at a time and answers shares, and an `Outcome`."""
    _bind_to_parent()
    try:
        application = restore(setup)
    except UserError as error:
        connection.send(error)
        return
    connection.send(application.run.config.task.name)
    _silence()

    def tell(share: float) -> None:
        connection.send(share)
        if connection.poll():
            raise CancelledError

    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        if isinstance(task, Task):  # else a cancellation that came after the end of its job
            connection.send(work(application, task, setup.limits, tell))


def restore(setup: Setup) -> Application:
    """The run. Raises UserError for one that takes something else than one image."""
    application = Application.restore(setup.workdir, setup.uncertainty, setup.rescale, setup.accept)
    task = application.run.task
    if task.kind != "image" or len(task.inputs) > 1:
        taken = "several images" if task.kind == "image" else f"a {task.kind}"
        raise UserError(setup.workdir, f"its task {application.run.config.task.name} takes {taken}; serve a run that takes "
                        "one image, and apply this one with medjax.apply")
    return application


def work(application: Application, task: Task, limits: Limits, tell: Callable[[float], None]) -> Outcome:
    """Applies the run to an upload; whatever goes wrong is in the outcome."""
    notes = _Notes(task.folder)
    for logger in (logging.get_absl_logger(), python_logging.root):
        logger.handlers = [notes]
    try:
        application.progress.restart(tell)
        result = _apply(application, task, limits)
        return Outcome(result.relative_to(task.folder).as_posix(), notes=tuple(notes.lines))
    except CancelledError:
        return Outcome(error="cancelled", kind="CancelledError")
    except UserError as error:
        said = shown(str(error), task.folder)
        return Outcome(error=said, kind="UserError", where=_place_of(error), notes=tuple(notes.lines))
    except OSError as error:
        full = error.errno in NO_ROOM
        said = "the server's memory for files is full; come again later" if full else f"a file error ({error.errno})"
        return Outcome(error=said, kind=type(error).__name__, where=_place_of(error))
    except MemoryError as error:
        return Outcome(error="needs more memory than there is", kind="MemoryError", where=_place_of(error))
    except Exception as error:  # a fault of medjax: the next job is not to suffer from it
        said = f"an error inside the server ({type(error).__name__}); its log says where"
        return Outcome(error=said, kind=type(error).__name__, where=_place_of(error))


def _apply(application: Application, task: Task, limits: Limits) -> Path:
    """The file or folder of the results of all studies of an upload. Raises UserError where any of them fails."""
    source = prepared(task.folder / "in" / task.upload, task.kind, limits)
    out = task.folder / "out"
    out.mkdir()
    wanted = application.run.task
    studies = reading.gather({wanted.inputs[0]: source}, wanted, ())
    for inputs in application.progress.parts(studies):
        place, one = inputs.main.place, len(studies) == 1
        target = out / place
        if one:
            target = out / ("result" + (inputs.main.suffix if len(inputs.main.paths) == 1 else ""))
        application.write(inputs, target, Table(), replace=False)
    made = sorted(path for path in out.rglob("*") if path.is_file())
    if not made:
        raise UserError(source, "gave no result")
    if not task.packed:
        return out
    if len(made) > 1 or len(studies) > 1:
        return _packed(out, made)
    return made[0] if made[0].suffix else made[0].rename(made[0].with_suffix(".dcm"))  # DICOM alone has names without one


def _packed(out: Path, files: list[Path]) -> Path:
    """The files as a zip, in whose place they go: memory holds both of one file at a time."""
    target = out / ZIP
    with zipfile.ZipFile(target, "x") as archive:
        for path in files:
            archive.write(path, path.relative_to(out))
            path.unlink()
    return target


def shown(text: str, folder: Path) -> str:
    """A message on one line, without the server's own folder."""
    for path in (folder / "in", folder / "out", folder):
        text = text.replace(f"{path}/", "").replace(str(path), path.name)
    return " ".join(text.split())[:LONGEST]


class _Notes(python_logging.Handler):
    """Keeps what is logged of a job for its client."""

    def __init__(self, folder: Path):
        super().__init__(python_logging.WARNING)
        self._folder = folder
        self.lines: list[str] = []

    def emit(self, record: python_logging.LogRecord) -> None:
        line = shown(record.getMessage(), self._folder)
        if len(self.lines) < NOTES and line not in self.lines:
            self.lines.append(line)


def _place_of(error: BaseException) -> str:
    """Where in medjax an error was raised, as file:line, "" if not there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(PACKAGE)]
    if not frames:
        return ""
    return f"{Path(frames[-1].filename).relative_to(PACKAGE).as_posix()}:{frames[-1].lineno}"


def _bind_to_parent() -> None:
    """The process dies with its parent, leaves no core, and is not ended by the terminal's Ctrl-C but by its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os._exit(1)


def _silence() -> None:
    """Libraries may write what they find in a file; nothing of it reaches the terminal or a log."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nothing, descriptor)
