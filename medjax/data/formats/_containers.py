"""Containers of video (MP4 and QuickTime, AVI, Matroska and WebM): which one a file is, and whether all of it is there."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from medjax.types import UserError

ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # that a file may begin with
EBML, SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"
UNKNOWN = 0xFFFFFFFF  # of RIFF: the size was not known when it was written
HEAD = 16  # bytes of the longest head of a part


def container(path: Path) -> str:
    """The container that a file is in: "mov", "avi" or "matroska", the names that FFmpeg has for them.

    It is found by the first bytes, not left to FFmpeg, which would also take a list of other files to read, or of
    addresses. Raises UserError for other files, and for one whose end is missing: players show what is left of it.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
        if head[4:8] in ATOMS:
            name, ends = "mov", _atoms(file)
        elif head[:4] == b"RIFF" and head[8:11] == b"AVI":
            name, ends = "avi", _chunks(file)
        elif head[:4] == EBML:
            name, ends = "matroska", _elements(file)
        else:
            raise UserError(path, "damaged or no video: it does not begin as MP4, QuickTime, AVI, Matroska or WebM do")
        size, claimed = path.stat().st_size, 0
        for claimed in ends:
            if claimed > size:
                raise UserError(path, f"damaged: its header claims {claimed} bytes, the file has {size}; copy it again")
        return name


def _heads(file: BinaryIO, length: int) -> Iterator[tuple[int, bytes]]:
    """Where each part begins, and its first `length` bytes; `file.seek` to the next part is the caller's."""
    while True:
        at, head = file.tell(), file.read(length)
        if len(head) < length:
            return
        yield at, head


def _atoms(file: BinaryIO) -> Iterator[int]:
    """Where the atoms of MP4 and QuickTime end. One of size 0 goes on to the end of the file."""
    file.seek(0)
    for at, head in _heads(file, 8):
        size, least = struct.unpack(">I", head[:4])[0], 8
        if size == 1:
            long = file.read(8)
            size, least = (struct.unpack(">Q", long)[0] if len(long) == 8 else 0), 16
        if size < least:
            return
        yield at + size
        file.seek(at + size)


def _chunks(file: BinaryIO) -> Iterator[int]:
    """Where the RIFF chunks of AVI end; files above 1 GiB have several."""
    file.seek(0)
    for at, head in _heads(file, 8):
        size = struct.unpack("<I", head[4:])[0]
        if head[:4] != b"RIFF" or size in (0, UNKNOWN):
            return
        yield at + 8 + size
        file.seek(at + 8 + size + size % 2)


def _elements(file: BinaryIO) -> Iterator[int]:
    """Where the header and the segment of Matroska end, if their sizes are known; those of a live recording aren't."""
    file.seek(0)
    while True:
        at, head = file.tell(), file.read(HEAD)
        if len(head) < 5 or head[:4] not in (EBML, SEGMENT) or not head[4]:
            return
        length = 9 - head[4].bit_length()  # the leading zeros of the first byte say how many bytes the size has
        size = int.from_bytes(head[4:4 + length], "big") & (1 << 7 * length) - 1
        if size == (1 << 7 * length) - 1:
            return
        yield at + 4 + length + size
        file.seek(at + 4 + length + size)
