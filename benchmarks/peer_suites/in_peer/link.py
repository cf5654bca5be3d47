"""The connection to the process that has medjax, and how a function of a peer is replaced by one of medjax's."""

import functools
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any


class LackingError(Exception):
    """What is asked for medjax has not: the reason, in a few words. The peer's own function answers instead."""


@dataclass
class Used:
    """What the test that runs has asked medjax for.

    `calls`: how often; `left`: what it asked for that medjax has not; `translated`: the conventions of medjax that were
    translated into the peer's. Each once, in order: the keys of dicts.
    """

    calls: int = 0
    left: dict[str, None] = field(default_factory=dict)
    translated: dict[str, None] = field(default_factory=dict)


class Link:
    """A process with medjax that answers calls, one at a time (some tests run threads)."""

    def __init__(self) -> None:
        self._lock, self.translating, self.used = threading.Lock(), False, Used()

    def connect(self, handle: int, translating: bool) -> None:
        """To the process that holds the other end of a pipe."""
        self._connection, self.translating = Connection(handle), translating

    def send(self, *message: Any) -> None:
        with self._lock:
            self._connection.send(message)

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """What medjax's function gives: arrays of NumPy, numbers. Raises what it raised (see `run._answer`)."""
        with self._lock:
            self._connection.send(("call", name, args, kwargs))
            value = self._connection.recv()
        self.used.calls += 1
        if isinstance(value, Exception):
            raise value
        return value

    def translates(self, convention: str, differs: Any = True) -> bool:
        """Whether medjax's `convention` is to be translated into the peer's here, where they differ."""
        if not self.translating or not differs:
            return False
        self.used.translated[convention] = None
        return True


link = Link()
call, translates = link.call, link.translates


def last_bits(found: Any, theirs: Callable[[], Any], close: Callable[[Any, Any], Any]) -> Any:
    """What medjax found; where conventions are translated, what the peer itself finds, if the two differ but are `close`."""
    if not link.translating:
        return found
    own = theirs()
    return own if (found != own).any() and translates("bits", close(found, own)) else found


def replace(owner: Any, name: str, ours: Callable[..., Any], *others: Any) -> None:
    """Puts `ours` in the place of `owner.name`, and of that name in `others`; what it lacks the peer's own answers."""
    theirs = getattr(owner, name)

    @functools.wraps(theirs)
    def either(*args: Any, **kwargs: Any) -> Any:
        before = link.used.calls
        try:
            return ours(*args, **kwargs)
        except LackingError as lacking:
            link.used.calls = before
            link.used.left[str(lacking)] = None
            return theirs(*args, **kwargs)

    static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    for place in (owner, *others):
        setattr(place, name, staticmethod(either) if static else either)


def only(**asked: tuple[Any, Any]) -> None:
    """Raises LackingError for arguments `name=(value, what medjax has)` that ask for something else."""
    for name, (value, has) in asked.items():
        if value is not has and value != has:
            raise LackingError(f"{name}={value!r}")
