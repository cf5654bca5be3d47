"""Compressed streams of JPEG, JPEG-LS, JPEG 2000 and RLE without comments, application data and what follows their end."""

import re
import struct

COMMENT, END, START_OF_SCAN = 0xFE, 0xD9, 0xDA
NEXT_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # within a scan: no stuffed zero, no restart
KEPT = {0xE0: b"JFIF\0", 0xE8: b"mrfx", 0xEE: b"Adobe"}  # application data that say how colours are coded
RLE_HEADER = 64
LONGEST_KEPT = 16  # bytes: JFIF without a thumbnail
J2K_START, J2K_END, J2K_TILE, J2K_COMMENT = b"\xff\x4f", b"\xff\xd9", b"\xff\x90", b"\xff\x64"


def without_comments(stream: bytes) -> bytes:
    """The same image by the same code. Raises ValueError for a stream that is damaged, or of another kind."""
    if stream[:2] == b"\xff\xd8":
        return _jpeg(stream)
    start = stream.find(J2K_START + b"\xff\x51")
    if start >= 0 and (start == 0 or stream[4:8] == b"jP  "):
        return _jpeg_2000(stream[start:])
    raise ValueError("no JPEG or JPEG 2000 stream")


def without_trailer(stream: bytes, pixels: int) -> bytes:
    """A frame of RLE (PS3.5 Annex G) up to the end of its last segment, of `pixels` bytes. Raises ValueError for damage."""
    if len(stream) < RLE_HEADER:
        raise ValueError("a frame of RLE has no header")
    count, *starts = struct.unpack("<16I", stream[:RLE_HEADER])
    if not 1 <= count <= len(starts):
        raise ValueError("a frame of RLE has no segments")
    at, made = starts[count - 1], 0
    while made < pixels:
        if at >= len(stream):
            raise ValueError("a segment of RLE is cut off")
        code = stream[at]
        literal, repeated = code < 128, code > 128
        made += code + 1 if literal else 257 - code if repeated else 0
        at += code + 2 if literal else 2 if repeated else 1
    return stream[:at] + b"\0" * (at % 2)


def _jpeg(stream: bytes) -> bytes:
    parts, at = [stream[:2]], 2
    while at + 2 <= len(stream):
        marker = stream[at + 1]
        if stream[at] != 0xFF:
            raise ValueError("a marker of JPEG is missing")
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == END:
            return b"".join([*parts, b"\xff\xd9"])
        end = at + 2 + _length(stream, at + 2)
        segment = stream[at:end]
        if marker == START_OF_SCAN:
            following = NEXT_MARKER.search(stream, end)
            if following is None:  # cut off before its end, which decoders bear
                return b"".join([*parts, stream[at:], b"\xff\xd9"])
            end = following.start()
            segment = stream[at:end]
        known = KEPT.get(marker)
        if not (marker == COMMENT or 0xE0 <= marker <= 0xEF) or (
                known and segment[4:].startswith(known) and len(segment) <= LONGEST_KEPT + 2):
            parts.append(segment)
        at = end
    raise ValueError("a stream of JPEG has no end")


def _jpeg_2000(stream: bytes) -> bytes:
    parts, at = [J2K_START], 2
    while stream[at:at + 2] != J2K_TILE:
        end = at + 2 + _length(stream, at + 2)
        if stream[at:at + 2] != J2K_COMMENT:
            parts.append(stream[at:end])
        at = end
    while stream[at:at + 2] == J2K_TILE and len(stream) >= at + 12:
        size = struct.unpack(">I", stream[at + 6:at + 10])[0]
        if size == 0:  # the last tile goes on to the end of the code
            size = max(stream.rfind(J2K_END), at) - at
        if size < 12:
            raise ValueError("a tile of JPEG 2000 has no length")
        parts.append(stream[at:at + size])
        at += size
    return b"".join([*parts, J2K_END])


def _length(stream: bytes, at: int) -> int:
    if at + 2 > len(stream):
        raise ValueError("a header of JPEG is cut off")
    length = int(struct.unpack(">H", stream[at:at + 2])[0])
    if length < 2:
        raise ValueError("a header of JPEG has no length")
    return length
