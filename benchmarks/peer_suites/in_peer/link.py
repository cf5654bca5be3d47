"""The connection to the process that has medjax, and how a function of a peer is replaced by one of medjax's."""

import functools
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

ERRORS = {"UserError": ValueError, "ValueError": ValueError, "TypeError": TypeError}  # by the class that medjax raised


class LackingError(Exception):
    """What is asked for medjax has not: the reason, in a few words. The peer's own function answers instead."""


@dataclass
class Used:
    """What the test that runs has asked medjax for.

    `calls`: how often; `left`: what it asked for that medjax has not; `translated`: the conventions of medjax that were
    translated into the peer's.
    """

    calls: int = 0
    left: list[str] = field(default_factory=list)
    translated: list[str] = field(default_factory=list)


class Link:
    """A process with medjax that answers calls, one at a time (some tests run threads)."""

    def __init__(self, handle: int, translating: bool):
        self._connection, self._lock = Connection(handle), threading.Lock()
        self._translating, self.used = translating, Used()

    def send(self, *message: Any) -> None:
        with self._lock:
            self._connection.send(message)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """What medjax's function gives: arrays of NumPy, numbers. Raises what it raised (UserError is a ValueError)."""
        with self._lock:
            self._connection.send(("call", name, args, kwargs))
            kind, value = self._connection.recv()
        self.used.calls += 1
        if kind == "value":
            return value
        raise ERRORS.get(kind, RuntimeError)(value)

    def translates(self, convention: str, differs: Any) -> bool:
        """Whether medjax's `convention` is to be translated into the peer's here, where they differ."""
        if self._translating and bool(differs):
            self.used.translated.append(convention)
            return True
        return False


link: Link


def connect(handle: int, translating: bool) -> None:
    """To the process that holds the other end of a pipe."""
    global link
    link = Link(handle, translating)


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """`Link.call` of the one connection."""
    return link.call(name, *args, **kwargs)


def translates(convention: str, differs: Any = True) -> bool:
    """`Link.translates` of the one connection."""
    return link.translates(convention, differs)


def replace(owner: Any, name: str, ours: Callable[..., Any], *others: Any) -> None:
    """Puts `ours` in the place of `owner.name`, and of the same name in `others`; where it lacks something, the peer's answers."""
    theirs = getattr(owner, name)

    @functools.wraps(theirs)
    def either(*args: Any, **kwargs: Any) -> Any:
        before = link.used.calls
        try:
            return ours(*args, **kwargs)
        except LackingError as lacking:
            link.used.calls = before
            link.used.left.append(str(lacking))
            return theirs(*args, **kwargs)

    static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    for place in (owner, *others):
        setattr(place, name, staticmethod(either) if static else either)


def only(**asked: tuple[Any, Any]) -> None:
    """Raises LackingError for arguments `name=(value, what medjax has)` that ask for something else."""
    for name, (value, has) in asked.items():
        if value is not has and value != has:
            raise LackingError(f"{name}={value!r}")
