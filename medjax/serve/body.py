"""The body of a request, piece by piece: of a said length or in chunks, bare or the file of a form."""

import re
import time
from collections.abc import Iterator
from email.message import Message
from http import HTTPStatus
from io import BufferedReader, RawIOBase
from socket import socket
from typing import Any

from medjax.serve.jobs import too_large
from medjax.serve.limits import Limits, RefusedError

PIECE = 1 << 16
LINE, HEADERS = 1 << 12, 1 << 13  # bytes of a chunk's head, of the headers of a part of a form
FIELDS = 1 << 16  # bytes of a form beside its file
BOUNDARY = re.compile(r'boundary="?([0-9A-Za-z\'()+_,./:=? -]{1,70})"?\s*(?:;|$)')


class TimedReader(RawIOBase):
    """The bytes of a connection, whose `deadline` holds for all reads together: a client can't hold it byte by byte."""

    def __init__(self, connection: socket, idle: float):
        self._connection, self._idle = connection, idle
        self.deadline = time.monotonic() + idle

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Waits for some bytes. Raises TimeoutError."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the client is too slow")
        self._connection.settimeout(min(left, self._idle))
        return self._connection.recv_into(buffer)


def said_length(headers: Message, limits: Limits) -> int | None:
    """The length of the body that the headers give, None for chunks. Raises RefusedError."""
    lengths, coding = headers.get_all("Content-Length", []), headers.get_all("Transfer-Encoding", [])
    if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Encoding: send the file as it is")
    if coding:
        if lengths or [one.strip().lower() for one in coding] != ["chunked"]:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Transfer-Encoding: give chunked alone, without Content-Length")
        return None
    if not lengths:
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "Content-Length: is missing; give it, or send chunks")
    if len(set(lengths)) > 1 or not re.fullmatch(r"[0-9]{1,15}", lengths[0].strip()):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "Content-Length: is no number of bytes")
    length = int(lengths[0])
    if length > limits.upload + (FIELDS if is_form(headers) else 0):
        raise too_large(limits)
    return length


def is_form(headers: Message) -> bool:
    """Whether the body is a form with files."""
    return headers.get_content_type() == "multipart/form-data"


def pieces(source: BufferedReader, length: int | None) -> Iterator[bytes]:
    """The body, of `length` or in chunks. Raises RefusedError where it is not what it says."""
    if length is None:
        yield from _chunks(source)
        return
    left = length
    while left:
        piece = source.read1(min(PIECE, left))
        if not piece:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body ended {left} bytes before its Content-Length")
        left -= len(piece)
        yield piece


def _chunks(source: BufferedReader) -> Iterator[bytes]:
    while True:
        head = source.readline(LINE)
        size = re.fullmatch(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n", head)
        if not size:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "a chunk does not begin with its size")
        left = int(size[1], 16)
        if left == 0:
            return  # trailers are left unread, the connection ends with the answer
        while left:
            piece = source.read1(min(PIECE, left))
            if not piece:
                raise RefusedError(HTTPStatus.BAD_REQUEST, "the body ended within a chunk")
            left -= len(piece)
            yield piece
        if source.read(2) != b"\r\n":
            raise RefusedError(HTTPStatus.BAD_REQUEST, "a chunk is longer than its size")


def file_of_form(body: Iterator[bytes], headers: Message) -> Iterator[bytes]:
    """The first file of a form, without what stands before and after it. Raises RefusedError."""
    found = BOUNDARY.search(headers.get("Content-Type", ""))
    if not found:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "Content-Type: a form needs a boundary of 1 to 70 characters")
    form = _Form(body, b"\r\n--" + found[1].rstrip().encode())
    form.skip()
    while True:
        head = form.head()
        if head is None:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the form has no file")
        if re.search(rb"^content-disposition:[^\r\n]*\bfilename\*?=", head, re.I | re.M):
            yield from form.part()
            return
        form.skip()


class _Form:
    """The parts of a form in turn, of which no more is held than a piece and a boundary."""

    def __init__(self, body: Iterator[bytes], delimiter: bytes):
        self._body, self._delimiter = body, delimiter
        self._buffer = b"\r\n"  # so that the first boundary is like the others
        self._beside = 0

    def part(self) -> Iterator[bytes]:
        """What comes before the next boundary."""
        while True:
            at = self._buffer.find(self._delimiter)
            if at >= 0:
                piece, self._buffer = self._buffer[:at], self._buffer[at + len(self._delimiter):]
                yield piece
                return
            sure = max(0, len(self._buffer) - len(self._delimiter) + 1)
            piece, self._buffer = self._buffer[:sure], self._buffer[sure:]
            if piece:
                yield piece
            self._more()

    def skip(self) -> None:
        """Leaves out what comes before the next boundary."""
        for piece in self.part():
            self._beside += len(piece)
            if self._beside > FIELDS:
                raise RefusedError(HTTPStatus.BAD_REQUEST, "the form has too much beside its file")

    def head(self) -> bytes | None:
        """The headers of the part that begins, None at the end of the form."""
        while len(self._buffer) < 2:
            self._more()
        if self._buffer.startswith(b"--"):
            return None
        while (at := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEADERS:
                raise RefusedError(HTTPStatus.BAD_REQUEST, "the headers of a part of the form are too long")
            self._more()
        head, self._buffer = self._buffer[:at], self._buffer[at + 4:]
        self._beside += len(head)
        return head

    def _more(self) -> None:
        piece = next(self._body, b"")
        if not piece:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the form ends before its last boundary")
        self._buffer += piece
