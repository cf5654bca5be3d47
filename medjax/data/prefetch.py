"""Batches onto the devices, ahead of the step that needs them."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from medjax.types import Array, Batch

HostArrays = dict[str, np.ndarray]
Place = Callable[[HostArrays], Mapping[str, Array]]
Position: TypeAlias = dict[str, int]  # of a stream: how many batches were taken, and what they depend on


@runtime_checkable
class Resumable(Protocol):
    """A stream that goes on from a saved position; those of several members have one each."""

    def get_state(self) -> Position | list[Position]: ...
    def set_state(self, state: Position | list[Position]) -> None: ...


def to_device(batches: Iterable[dict[str, Any]], place: Place, depth: int = 2) -> "DeviceBatches":
    """Streams host batches to the devices, `depth` of them ahead, copied by a thread while the step runs.

    `place` puts a batch's arrays on the devices. What is no array (`name`) stays as it is.
    """
    return DeviceBatches(batches, place, depth)


class DeviceBatches:
    """An iterator over device batches. `waited` is how many seconds its user has waited for data so far."""

    def __init__(self, batches: Iterable[dict[str, Any]], place: Place, depth: int):
        self._batches = batches
        self._place = place
        self._depth = depth
        self._state = _position(batches)
        self._thread: threading.Thread | None = None
        self.waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._thread is None:
            self._start()
        begin = time.perf_counter()
        batch, state = self._ready.get()
        self.waited += time.perf_counter() - begin
        if isinstance(batch, BaseException):
            self._ready.put((batch, state))  # asked again, it ends again
            raise batch
        self._state = state
        return batch

    def get_state(self) -> Position | list[Position]:
        """The position of what was taken from here, not of what was read ahead."""
        assert self._state is not None  # only the position of a stream that has one is asked for
        return self._state

    def set_state(self, state: Position | list[Position]) -> None:
        """Goes to a saved position; what was read ahead is dropped."""
        self.close()
        assert isinstance(self._batches, Resumable)
        self._batches.set_state(state)
        self._state = state

    def close(self) -> None:
        """Ends the thread, and the workers of the stream behind it."""
        if self._thread is not None:
            self._stop.set()
            while self._thread.is_alive():
                self._drain()
                self._thread.join(0.05)
            self._thread = None
        if hasattr(self._batches, "close"):
            self._batches.close()

    def _start(self) -> None:
        self._ready: queue.Queue = queue.Queue(self._depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(self._ready, self._stop), daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while not self._ready.empty():
            self._ready.get_nowait()

    def _read(self, ready: queue.Queue, stop: threading.Event) -> None:
        try:
            for batch in self._batches:
                ready.put((self._placed(batch), _position(self._batches)))
                if stop.is_set():
                    return
            ready.put((StopIteration(), None))
        except Exception as error:  # raised again where the batch is asked for
            ready.put((error, None))

    def _placed(self, batch: dict[str, Any]) -> dict[str, Any]:
        arrays = {name: value for name, value in batch.items() if isinstance(value, np.ndarray)}
        return {**batch, **self._place(arrays)}


def _position(batches: Iterable[dict[str, Any]]) -> Position | list[Position] | None:
    return batches.get_state() if isinstance(batches, Resumable) else None
