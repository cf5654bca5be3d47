"""The server's DICOM side: series in by C-STORE, derived series out by C-STORE to one configured peer."""

import contextlib
import logging as python_logging
import queue
import re
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pydicom
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, AllStoragePresentationContexts, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from medjax.data.formats._dicom_header import is_dicom, load_header, text
from medjax.serve.jobs import FAILED, Job, Jobs, Outcome
from medjax.serve.limits import MIB, Limits, RefusedError
from medjax.serve.log import say
from medjax.serve.upload import SERIES
from medjax.types import UserError

UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
SUCCESS, NO_RESOURCES, NOT_OF_ITS_CLASS, NOT_UNDERSTOOD, NOT_AUTHORIZED = 0x0000, 0xA700, 0xA900, 0xC000, 0x0124
WARNINGS = range(0xB000, 0xC000)  # of an image that was stored
ASSOCIATIONS, PDU = 8, 1 << 18  # at a time; bytes of a message of the protocol
ATTEMPTS, PAUSE = 3, 2.0  # to send a result; seconds before the second one, twice as many before the third
ATTENDED = 30.0  # seconds of silence after which a series is complete though its association is open
TICK = 0.2
# Its log would have what is received.
_config.LOG_HANDLER_LEVEL = "none"
python_logging.getLogger("pynetdicom").setLevel(python_logging.CRITICAL + 1)


@dataclass(frozen=True)
class Peer:
    """An application entity: its title and address; where it is sent to, also its port."""

    title: str
    host: str
    port: int = 0

    @classmethod
    def parse(cls, flag: str, given: str, with_port: bool) -> "Peer":
        """AE@HOST, or AE@HOST:PORT. Raises UserError."""
        port = r":([0-9]{1,5})" if with_port else ""
        found = re.fullmatch(r"([^@]+)@(\[[0-9A-Fa-f:.]+\]|[^@:\s]+)" + port, given)
        if not found or (with_port and not 0 < int(found[3]) < 1 << 16):
            raise UserError(flag, f"{given!r}; give AE@HOST" + (":PORT" if with_port else ""))
        return cls(checked_title(flag, found[1]), found[2].strip("[]"), int(found[3]) if with_port else 0)

    def __str__(self) -> str:
        return f"{self.title}@{self.host}" + (f":{self.port}" if self.port else "")

    @property
    def addresses(self) -> set[str]:
        """Those of its host. Raises UserError where it has none."""
        try:
            return {str(found[4][0]) for found in socket.getaddrinfo(self.host, None)}
        except OSError as error:
            raise UserError(str(self), f"its host is not known: {error.strerror}") from error


def checked_title(flag: str, title: str) -> str:
    """A title of an application entity. Raises UserError."""
    title = title.strip()
    if not 0 < len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise UserError(flag, f"{title!r} is no title of an application entity; give 1 to 16 letters of ASCII")
    return title


def contexts() -> list[PresentationContext]:
    """What is taken: C-ECHO, and images of every class in every transfer syntax that can be decoded."""
    syntaxes = [*UNCOMPRESSED, *(syntax for syntax in AllTransferSyntaxes if syntax.is_compressed and _is_decoded(syntax))]
    classes = [UID(context.abstract_syntax or "") for context in AllStoragePresentationContexts]
    images = [one for one in classes if "ImageStorage" in one.keyword and not one.keyword.startswith("Video")]
    return [build_context(Verification), *(build_context(one, list(syntaxes)) for one in images)]


def _is_decoded(syntax: UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


@dataclass
class _Series:
    """A series that is being received, and the associations that brought some of it and are not released."""

    job: Job
    count: int = 0
    refused: bool = False
    last: float = field(default_factory=time.monotonic)
    open: set[Association] = field(default_factory=set)


class Listener:
    """Receives series at `address` as the entity `title`, makes jobs of them, and sends results to `send_to`.

    A series is complete `quiet` seconds after its last image, when all associations that brought some of it are released, or
    after half a minute's silence. One whose association is aborted is given up. Images are taken from `senders` alone, if
    there are any. What has not come in whole lies in `folder`.
    """

    def __init__(self, jobs: Jobs, folder: Path, address: tuple[str, int], title: str, send_to: Peer,
                 senders: Sequence[Peer] = (), quiet: float = 3.0):
        self._jobs, self._folder, self._quiet = jobs, folder, quiet
        self._sender = _Sender(jobs, title, send_to)
        self._senders = {(peer.title, known) for peer in senders for known in peer.addresses}
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._lock = threading.Lock()
        self._ends = threading.Event()
        entity = AE(ae_title=title)
        entity.require_called_aet = True
        entity.maximum_associations, entity.maximum_pdu_size = ASSOCIATIONS, PDU
        entity.network_timeout = 2 * ATTENDED
        self._server = _Server(entity, address, title, contexts(), {known for _, known in self._senders},
                               _Held(jobs.limits), [(evt.EVT_C_STORE, self._store), (evt.EVT_C_ECHO, _echo)])
        self.port: int = self._server.server_address[1]

    def start(self) -> None:
        """Begins to listen, in threads of its own."""
        threading.Thread(target=self._server.serve_forever, args=(TICK,), daemon=True).start()
        for work in (self._watch, self._sender.work):
            threading.Thread(target=work, daemon=True).start()

    def stop(self) -> None:
        """Aborts what is open, and takes no more."""
        self._ends.set()
        for association in self._server.active_associations:
            association.abort()
        self._server.shutdown()

    def _store(self, event: Any) -> int:
        """Takes an image; answers with a status of C-STORE (PS3.4, table B.2-1)."""
        data, requestor = event.encoded_dataset(), event.assoc.requestor
        event.assoc.dul.socket.socket.release(len(data))
        sender = (requestor.ae_title.strip(), requestor.address)
        if self._senders and sender not in self._senders:
            return NOT_AUTHORIZED
        path = self._folder / secrets.token_hex(8)
        try:
            path.write_bytes(data)
            return self._status(event, sender, path)
        except OSError:  # there is no room
            return NO_RESOURCES
        finally:
            path.unlink(missing_ok=True)

    def _status(self, event: Any, sender: tuple[str, str], path: Path) -> int:
        """Moves a file into its series, unless there is a reason not to."""
        try:
            header = load_header(path)
        except UserError:
            return NOT_UNDERSTOOD
        series = text(header, "SeriesInstanceUID")
        if not series:
            return NOT_UNDERSTOOD
        if text(header, "SOPClassUID") != event.request.AffectedSOPClassUID or "Rows" not in header:
            return NOT_OF_ITS_CLASS
        with self._lock:
            return self._kept(event.assoc, (*sender, series), path)

    def _kept(self, association: Association, key: tuple[str, str, str], path: Path) -> int:
        series = self._series.get(key)
        try:
            if series is None:
                series = self._series[key] = _Series(self._jobs.open(self._sender.put))
                (series.job.folder / "in" / SERIES).mkdir()
            series.last = time.monotonic()
            series.open.add(association)
            if series.refused:
                return NO_RESOURCES
            if series.count >= self._jobs.limits.files:
                raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {series.count} images")
            self._jobs.charge(series.job, path.stat().st_size)
        except RefusedError as refused:
            if series is not None:
                self._give_up(series, str(refused))
            return NO_RESOURCES
        series.count += 1
        path.rename(series.job.folder / "in" / SERIES / f"{series.count:06d}.dcm")
        return SUCCESS

    def _give_up(self, series: _Series, why: str) -> None:
        series.refused = True
        self._jobs.drop(series.job)
        say(series.job.name, f"refused after {series.count} images: {why}")

    def _watch(self) -> None:
        """Submits what is complete."""
        while not self._ends.wait(TICK):
            with self._lock:
                for key, series in list(self._series.items()):
                    if self._is_over(series):
                        del self._series[key]
                        if not series.refused:
                            self._jobs.submit(series.job, SERIES, SERIES)

    def _is_over(self, series: _Series) -> bool:
        """Whether nothing more is to come of a series."""
        for association in list(series.open):
            if association.is_released:
                series.open.remove(association)
            elif association.is_aborted or not association.is_alive():
                series.open.remove(association)
                if not series.refused:
                    self._give_up(series, "its association was aborted")
        silent = time.monotonic() - series.last
        return silent > (ATTENDED if series.open else self._quiet)


def _echo(event: Any) -> int:
    return SUCCESS


class _Held:
    """The bytes that all associations have received and not handled: pynetdicom itself holds as many as a peer sends."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._most, self._count, self._lock = limits.upload + ASSOCIATIONS * MIB, 0, threading.Lock()

    def add(self, count: int) -> bool:
        """Counts bytes; whether there may be so many."""
        with self._lock:
            self._count += count
            return self._count <= self._most


class _Counted(socket.socket):
    """A connection from which no more is received than is allowed, and not too slowly."""

    def watch(self, held: _Held) -> None:
        """Begins to count."""
        self._held, self._own, self._seconds, self._received = held, 0, 0.0, 0
        self.settimeout(held.limits.idle)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Raises OSError above the limits, by which pynetdicom ends the association."""
        begin = time.monotonic()
        data = super().recv(size, flags)
        self._seconds += time.monotonic() - begin
        self._received += len(data)
        self._own += len(data)
        if not self._held.add(len(data)):
            raise ConnectionAbortedError("too much is sent")
        if self._seconds > self._held.limits.idle + self._received / self._held.limits.rate:
            raise TimeoutError("too slow")
        return data

    def release(self, count: int) -> None:
        """Lets go of bytes that were handled."""
        count = min(count, self._own)
        self._own -= count
        self._held.add(-count)

    def shutdown(self, how: int, /) -> None:
        """As its parent; one that the peer has ended already is no error, for which pynetdicom would not close it."""
        with contextlib.suppress(OSError):
            super().shutdown(how)

    def close(self) -> None:
        """Closes, and lets go of all."""
        self.release(self._own)
        super().close()


class _Server(ThreadedAssociationServer):
    """pynetdicom's, with bounded connections, from known `addresses` alone if there are any."""

    def __init__(self, entity: AE, address: tuple[str, int], title: str, contexts: list[PresentationContext],
                 addresses: set[str], held: _Held, handlers: list[Any]):
        self._addresses, self._held = addresses, held
        super().__init__(entity, address, title, contexts, evt_handlers=handlers, request_handler=RequestHandler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection."""
        accepted, address = super().get_request()
        counted = _Counted(accepted.family, accepted.type, accepted.proto, accepted.detach())
        counted.watch(self._held)
        return counted, address

    def shutdown(self) -> None:
        """Ends `serve_forever`."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for a connection, and whether it comes from where it may."""
        known = not self._addresses or client_address[0] in self._addresses
        return known and len(self.active_associations) < 2 * ASSOCIATIONS


class _Sender:
    """Sends results to the peer, one after another."""

    def __init__(self, jobs: Jobs, title: str, peer: Peer):
        self._jobs, self._title, self._peer = jobs, title, peer
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def put(self, job: Job) -> None:
        """Takes a job that has ended."""
        if job.status == FAILED:
            say(job.name, f"nothing is sent; what is wrong: GET /jobs/{job.id}")
        else:
            self._queue.put(job)

    def work(self) -> None:
        """Sends what is put, for ever."""
        while True:
            job = self._queue.get()
            begin = time.monotonic()
            files = sorted(path for path in job.result.rglob("*") if path.is_file() and is_dicom(path))
            try:
                self._deliver(files)
            except UserError as error:
                self._jobs.fail(job, Outcome(error=str(error), kind="NotSent"))
                say(job.name, f"not sent: {error}")
            else:
                self._jobs.drop(job)
                say(job.name, f"sent after {time.monotonic() - begin:.1f} s: {len(files)} images")

    def _deliver(self, files: list[Path]) -> None:
        """Sends all files, those that fail again. Raises UserError."""
        problem = "the run's task makes no DICOM of a series"
        for attempt in range(ATTEMPTS if files else 0):
            time.sleep(attempt * PAUSE)
            files, problem = self._rest(files)
            if not files:
                return
        raise UserError(str(self._peer), problem)

    def _rest(self, files: list[Path]) -> tuple[list[Path], str]:
        """Tries to send each file once; returns those that the peer has not stored, and why."""
        entity = AE(ae_title=self._title)
        entity.connection_timeout = entity.acse_timeout = 10
        for kind, syntax in sorted({_class_and_syntax(path) for path in files}):
            entity.add_requested_context(kind, syntax)
            if syntax == ExplicitVRLittleEndian:  # every peer takes the implicit one
                entity.add_requested_context(kind, ImplicitVRLittleEndian)
        association = entity.associate(self._peer.host, self._peer.port, ae_title=self._peer.title)
        if not association.is_established:
            return files, "does not answer" if not association.is_rejected else "rejects the association"
        left, problem = [], ""
        for path in files:
            try:
                status = association.send_c_store(path).get("Status")
                refused = "" if status == SUCCESS or status in WARNINGS else f"answers C-STORE with the status {status}"
            except (ValueError, RuntimeError):  # no context for it, no association any more
                refused = "takes no such images, or ended the association"
            if refused:
                left.append(path)
                problem = refused
        association.release()
        return left, problem


def _class_and_syntax(path: Path) -> tuple[str, str]:
    meta = pydicom.filereader.read_file_meta_info(path)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
