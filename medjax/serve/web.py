"""The server's HTTP side: uploads in, results out, one request a connection."""

import contextlib
import hmac
import io
import json
import re
import select
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from medjax.files import NO_ROOM
from medjax.serve import jobs as states
from medjax.serve.access import Access
from medjax.serve.body import PIECE, TimedReader, file_of_form, is_form, pieces, said_length
from medjax.serve.jobs import ID, Job, Jobs
from medjax.serve.limits import MIB, Limits, RefusedError
from medjax.serve.log import say
from medjax.serve.upload import HEAD, kind_of

POLICY = ("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
          "form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
           "Content-Security-Policy": POLICY, "Cross-Origin-Resource-Policy": "same-origin", "Connection": "close"}
TYPES = {".gz": "application/gzip", ".zip": "application/zip", ".dcm": "application/dicom", ".csv": "text/csv"}
ACCESS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.MISDIRECTED_REQUEST)  # refusals that are logged
PAGE = "/"  # which holds nothing, so it is shown to whoever asks
LINGER, LEFT = 2.0, 64 * MIB  # seconds and bytes for which a refused body is read on, so that its sender sees the answer
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Server(ThreadingHTTPServer):
    """Listens at `address`; `page` is what `/` shows. Nothing is answered before `serve_forever`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], jobs: Jobs, access: Access):
        self.jobs, self.access, self.page = jobs, access, b""
        self.limits = jobs.limits
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._room = threading.BoundedSemaphore(self.limits.connections)
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, or an answer at once where there are too many."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        request.setblocking(False)
        with contextlib.suppress(OSError):
            request.send(BUSY)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves one request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error; others are said without what was sent."""
        error = sys.exc_info()[0]
        if error is not None and not issubclass(error, OSError):
            say("-", f"request failed: {error.__name__}")


class Handler(BaseHTTPRequestHandler):
    """One request, after which the connection ends."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "medjax", ""
    server: Server

    def setup(self) -> None:
        """Reads with a deadline in the place of a timeout for each piece."""
        self.connection = self.request
        self._timed = TimedReader(self.connection, self.server.limits.idle)
        self._timed.deadline = time.monotonic() + self.server.limits.header
        self._reader: io.BufferedReader = io.BufferedReader(self._timed, PIECE)
        self.rfile = self._reader
        self.wfile = cast(io.BufferedIOBase, _Writer(self.connection, self.server.limits))
        self._unread = self._asked = False

    def finish(self) -> None:
        """Lets the client read the answer: a connection that is closed with bytes unread is reset, and the answer lost."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self._timed.deadline, left = time.monotonic() + LINGER, LEFT if self._unread else PIECE
            while left > 0 and (piece := self.rfile.read1(PIECE)):
                left -= len(piece)

    def handle_one_request(self) -> None:
        """As its parent, and never a second one."""
        super().handle_one_request()
        self.close_connection = True

    def handle_expect_100(self) -> bool:
        """A client that asks before it sends is refused before it sends."""
        self._asked = True
        return True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: paths and headers are the client's."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the parent finds wrong with a request, as all errors are told."""
        status = HTTPStatus(code)
        self._unread = True
        self._json(status, {"error": message or status.phrase})

    def do_GET(self) -> None:
        """The page, a job, its result."""
        self._answer({PAGE: self._page, r"/jobs/([^/]+)": self._job, r"/jobs/([^/]+)/result": self._result})

    def do_POST(self) -> None:
        """A new job, or one whose result is waited for."""
        self._answer({r"/jobs": self._new, r"/apply": self._apply})

    def do_DELETE(self) -> None:
        """The end of a job."""
        self._answer({r"/jobs/([^/]+)": self._delete})

    def _answer(self, routes: Mapping[str, Callable[..., None]]) -> None:
        """Finds who answers, and says in one line why nobody does."""
        self._unread = self.command == "POST"
        try:
            self._check_host()
            for pattern, answer in routes.items():
                found = re.fullmatch(pattern, self.path)
                if found:
                    if pattern != PAGE:
                        self._check_client()
                    answer(*found.groups())
                    return
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here; see /")
        except RefusedError as refused:
            if refused.status in ACCESS:
                say("-", f"refused: {refused.status.phrase}")
            retry = {"Retry-After": str(refused.retry_after)} if refused.retry_after else {}
            ask = {"WWW-Authenticate": "Bearer"} if refused.status == HTTPStatus.UNAUTHORIZED else {}
            self._json(refused.status, {"error": str(refused)}, {**retry, **ask})

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or _name_of(hosts[0]) not in self.server.access.hosts:
            raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "Host: is none of this server's names; see --allowed_host")

    def _check_client(self) -> None:
        origin, token = self.headers.get("Origin"), self.server.access.token
        foreign = self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        if foreign or (origin is not None and origin.partition("://")[2] != self.headers["Host"]):
            raise RefusedError(HTTPStatus.FORBIDDEN, "Origin: a page of another site may not use this server")
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if token and not hmac.compare_digest(given, f"Bearer {token}".encode("latin-1", "replace")):
            raise RefusedError(HTTPStatus.UNAUTHORIZED, "Authorization: give Bearer and the server's token")

    def _page(self) -> None:
        self._send(HTTPStatus.OK, {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(self.server.page))})
        self.wfile.write(self.server.page)

    def _new(self) -> None:
        job = self._received()
        self._json(HTTPStatus.ACCEPTED, _state_of(job, self.server.jobs), {"Location": f"/jobs/{job.id}"})

    def _apply(self) -> None:
        """Waits for the end; a client that goes away takes its job with it."""
        job = self._received()
        try:
            while not job.ended.wait(0.2):
                if self._is_gone():
                    return
            if job.status != states.DONE:
                raise _refusal_of(job)
            self._send_result(job)
        finally:
            self.server.jobs.drop(job)

    def _job(self, name: str) -> None:
        self._json(HTTPStatus.OK, _state_of(self._found(name), self.server.jobs))

    def _result(self, name: str) -> None:
        job = self._found(name)
        if job.status == states.FAILED:
            raise _refusal_of(job)
        if job.status != states.DONE:
            raise RefusedError(HTTPStatus.CONFLICT, f"the job is {job.status}; come again when it is done", 1)
        self._send_result(job)
        if self._has_taken():
            self.server.jobs.drop(job)

    def _delete(self, name: str) -> None:
        self.server.jobs.drop(self._found(name))
        self._send(HTTPStatus.NO_CONTENT, {})

    def _found(self, name: str) -> Job:
        job = self.server.jobs.get(name) if ID.fullmatch(name) else None
        if job is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such job, or none any more: it ends with the download")
        return job

    def _received(self) -> Job:
        """The job of the request's body, in the queue. Raises RefusedError, and nothing of the body is left."""
        limits, jobs = self.server.limits, self.server.jobs
        length = said_length(self.headers, limits)
        job = jobs.open()
        try:
            if length is not None:
                jobs.charge(job, min(length, limits.upload))
            if self._asked:
                self.send_response_only(HTTPStatus.CONTINUE)
                self.end_headers()
            body = _not_too_slow(pieces(self._reader, length), self._timed, limits)
            if is_form(self.headers):
                body = file_of_form(body, self.headers)
            kind = self._save(body, job, chunked=length is None)
        except BaseException as error:
            jobs.drop(job)
            refused = _refusal_for(error)
            say(job.name, f"refused: {type(error).__name__ if refused is None else refused.status.phrase}")
            if refused is None:
                raise
            raise refused from error
        self._unread = is_form(self.headers) or length is None
        jobs.submit(job, kind, f"upload.{kind}")
        return job

    def _save(self, body: Iterator[bytes], job: Job, chunked: bool) -> str:
        """Writes the upload as `in/upload.KIND`, and returns the kind; chunks are charged as they come."""
        path, count, head, limits = job.folder / "in" / "upload", 0, b"", self.server.limits
        with path.open("xb") as file:
            for piece in body:
                count += len(piece)
                if chunked:
                    self.server.jobs.charge(job, len(piece))
                elif count > limits.upload:
                    raise states.too_large(limits)
                if len(head) < HEAD:
                    head += piece[:HEAD - len(head)]
                    if len(head) >= HEAD:
                        kind_of(head)  # at once, before the rest is read
                file.write(piece)
        if not count:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the upload is empty")
        kind = kind_of(head)
        path.rename(path.with_name(f"upload.{kind}"))
        return kind

    def _send_result(self, job: Job) -> None:
        """Sends the file. Raises OSError where the client does not take all of it."""
        path = job.result
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise RefusedError(HTTPStatus.NOT_FOUND, "the result is gone") from None
        with file:
            size = path.stat().st_size
            kind = TYPES.get(path.suffix, "application/octet-stream")
            self._send(HTTPStatus.OK, {"Content-Type": kind, "Content-Length": str(size),
                                       "Content-Disposition": f'attachment; filename="{path.name}"'})
            shutil.copyfileobj(file, self.wfile, PIECE)

    def _has_taken(self) -> bool:
        """Whether the client has read all that was sent: it then ends the connection, else it is reset."""
        try:
            self.connection.shutdown(socket.SHUT_WR)
            self._timed.deadline = time.monotonic() + LINGER
            return not self.rfile.read1(1)
        except TimeoutError:
            return True
        except OSError:
            return False

    def _is_gone(self) -> bool:
        ready, _, _ = select.select([self.connection], [], [], 0)
        if not ready:
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _json(self, status: HTTPStatus, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(content, ensure_ascii=False).encode() + b"\n"
        self._send(status, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _send(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()


class _Writer(io.BufferedIOBase):
    """Writes to a connection, for a bounded time in all: who reads too slowly is left."""

    def __init__(self, connection: socket.socket, limits: Limits):
        self._connection, self._limits = connection, limits
        self._seconds, self._count = 0.0, 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any, /) -> int:
        """Raises TimeoutError."""
        self._count += len(data)
        left = self._limits.idle + self._count / self._limits.rate - self._seconds
        if left <= 0:
            raise TimeoutError("the client is too slow")
        self._connection.settimeout(min(left, self._limits.idle))
        begin = time.monotonic()
        self._connection.sendall(data)
        self._seconds += time.monotonic() - begin
        return len(data)


def _refusal_for(error: BaseException) -> RefusedError | None:
    """What a client is told that could not upload its file; None where there is nobody to tell, or nothing."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, TimeoutError):
        return RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the body came too slowly")
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the memory for files is full; come again later", 10)
    return None


def _not_too_slow(body: Iterator[bytes], timed: TimedReader, limits: Limits) -> Iterator[bytes]:
    """The pieces of a body, whose deadline moves on as they come."""
    begin, count = time.monotonic(), 0
    timed.deadline = begin + limits.idle
    for piece in body:
        yield piece
        count += len(piece)
        timed.deadline = begin + limits.idle + count / limits.rate


def _name_of(host: str) -> str:
    """A host without its port, in lower case."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\s]+)(?::[0-9]{1,5})?", host.strip())
    return found[1].lower().rstrip(".") if found else ""


def _state_of(job: Job, jobs: Jobs) -> dict[str, Any]:
    """What a client is told of its job."""
    state: dict[str, Any] = {"id": job.id, "status": job.status}
    if job.status == states.QUEUED:
        state["ahead"] = jobs.position(job)
    if job.status == states.RUNNING:
        state["fraction"] = round(job.fraction, 3)
    if job.status == states.FAILED:
        state["error"] = job.outcome.error
    if job.outcome.notes:
        state["notes"] = list(job.outcome.notes)
    if job.status == states.DONE:
        state |= {"result": f"/jobs/{job.id}/result", "name": job.result.name, "bytes": job.bytes,
                  "seconds_left": max(0, round(jobs.limits.keep - (time.monotonic() - job.changed)))}
    return state


def _refusal_of(job: Job) -> RefusedError:
    """What is answered in the place of a result that there is not."""
    status = {"UserError": HTTPStatus.UNPROCESSABLE_ENTITY, "TooLong": HTTPStatus.UNPROCESSABLE_ENTITY,
              "TooMuchMemory": HTTPStatus.UNPROCESSABLE_ENTITY, "Crashed": HTTPStatus.UNPROCESSABLE_ENTITY,
              "CancelledError": HTTPStatus.GONE, "": HTTPStatus.GONE}
    error = job.outcome.error or "the job was deleted"
    return RefusedError(status.get(job.outcome.kind, HTTPStatus.INTERNAL_SERVER_ERROR), error)
