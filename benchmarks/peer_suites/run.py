"""Runs the tests of a peer in its Python, answers what they ask of medjax, and tells what became of each."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax

from benchmarks.peer_suites.functions import answer
from medjax.types import UserError

FOLDER = Path(__file__).parent
NONE_CHOSEN = 5  # pytest's exit code where none of the tests was to run


@dataclass(frozen=True)
class Ran:
    """A test as it ran.

    `outcome` is "passed", "skipped" or "failed", `message` what it said; `calls` is how often it called medjax, `left` what
    it asked for that medjax has not, which the peer's own functions answered, and `translated` the conventions of medjax
    that were translated into the peer's.
    """

    name: str
    outcome: str
    message: str
    calls: int
    left: tuple[str, ...]
    translated: tuple[str, ...]


@dataclass
class Session:
    """What one run of pytest told."""

    version: str = ""
    tests: list[Ran] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    collected: int = 0


Show = Callable[[int, int], None]
"""Is told how many tests have ended, and of how many."""


def run(python: str, package: str, tests: Sequence[str], root: Path, options: Sequence[str] = (), own: bool = False,
        exact: bool = False, translate: bool = False, show: Show = lambda done, of: None) -> Session:
    """Runs `tests` (files, or names of tests) of `package` below `root` with medjax's functions, or with its `own`.

    `exact` computes in float64; `translate` translates medjax's conventions into the peer's. Raises UserError where pytest
    can't run them.
    """
    mine, theirs = Pipe()
    ours = [f"--link={theirs.fileno()}", f"--peer={package}", *["--own"] * own, *["--translate"] * translate]
    command = [python, "-m", "pytest", "-p", "in_peer.plugin", *ours, "-c", os.devnull, f"--rootdir={root}", "--tb=no", "-q",
               "-p", "no:cacheprovider", *options, *(str(root / test) for test in tests)]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "XLA_FLAGS")}
    environment |= {"PYTHONPATH": str(FOLDER), "PYTHONDONTWRITEBYTECODE": "1"}
    session = Session()
    with tempfile.TemporaryDirectory() as scratch, (Path(scratch) / "told").open("w+") as told:
        with subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=scratch, env=environment, stdout=told,
                              stderr=subprocess.STDOUT) as process:
            theirs.close()
            with mine, jax.enable_x64() if exact else nullcontext():
                _serve(mine, session, show)
        told.seek(0)
        if process.returncode not in (0, 1, NONE_CHOSEN) or session.broken or len(session.tests) < session.collected:
            problem = "; ".join(session.broken) or " ".join(told.read().split())[-600:]
            raise UserError(f"tests of {package}", f"pytest ended with code {process.returncode}: {problem}")
    return session


def _serve(connection: Connection, session: Session, show: Show) -> None:
    """Answers calls and notes what else is told, until the other end is closed."""
    while True:
        try:
            kind, *message = connection.recv()
        except EOFError:
            return
        if kind == "call":
            connection.send(_answer(*message))
        elif kind == "version":
            (session.version,) = message
        elif kind == "collected":
            (session.collected,) = message
        elif kind == "broken":
            session.broken.append(": ".join(message))
        else:
            session.tests.append(Ran(*message))
            show(len(session.tests), session.collected)


def _answer(name: str, args: Sequence[Any], settings: dict[str, Any]) -> Any:
    """What medjax's function gives, or what it raised, as an exception that the peer's Python knows."""
    try:
        return answer(name, args, settings)
    except (UserError, ValueError) as error:
        return ValueError(str(error))
    except TypeError as error:
        return TypeError(str(error))
    except Exception as error:
        return RuntimeError(f"{type(error).__name__}: {error}")
