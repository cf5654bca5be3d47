"""Stored pixels of a DICOM file: what the header claims is held against the file's size, then decoded."""

import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder, pixel_array
from pydicom.uid import HTJ2K, UID, HTJ2KLossless, HTJ2KLosslessRPCL, JPEGExtended12Bit, JPEGLSLossless, JPEGLSNearLossless

from medjax.data.formats import _dicom_gdcm
from medjax.data.formats._dicom_header import damage_told, text, whole
from medjax.data.values import finite, grey, native
from medjax.types import UserError

MAX_EASY = 1 << 28  # compressed pixels may claim so many bytes without a question,
MAX_RATIO = 2000  # and so many times their compressed size beyond that
FLOATS = ("FloatPixelData", "DoubleFloatPixelData")
JP2_BOX = b"\x00\x00\x00\x0cjP  "
J2K_START = b"\xff\x4f\xff\x51"
NO_FRAME = (0xC4, 0xC8, 0xCC)  # JPEG markers between SOF0 and SOF15 that start no frame


@dataclass(frozen=True)
class Claim:
    """What a header says of its pixels."""

    frames: int
    rows: int
    columns: int
    samples: int
    bits: int
    photometric: str

    @property
    def size(self) -> int:
        """Bytes of the uncompressed pixels."""
        bits = self.frames * self.rows * self.columns * self.samples * self.bits
        return (bits * 2 // 3 if self.photometric == "YBR_FULL_422" else bits) // 8

    @property
    def coloured(self) -> bool:
        return self.samples > 1 or self.photometric == "PALETTE COLOR"


@dataclass(frozen=True)
class Pixels:
    """`stored` `(frames, H, W, C)`; `colours` `(frames, H, W, 3)` where a grey image has a few coloured marks, else None."""

    stored: np.ndarray
    colours: np.ndarray | None


def has_pixels(dataset: Dataset) -> bool:
    return any(keyword in dataset for keyword in ("PixelData", *FLOATS))


def claim_of(path: Path, dataset: Dataset) -> Claim:
    """The sizes in the header, all of them positive. Raises UserError that names the attribute."""
    sizes: dict[str, int] = {}
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        value = whole(path, dataset, keyword, 1)
        if value is None:
            raise UserError(path, f"has no {keyword}; it must be given for an image")
        sizes[keyword] = value
    photometric = text(dataset, "PhotometricInterpretation")
    if not photometric:
        raise UserError(path, "has no PhotometricInterpretation; it must be given for an image")
    samples = whole(path, dataset, "SamplesPerPixel", 1) or 1
    if samples not in (1, 3, 4):
        raise UserError(path, f"SamplesPerPixel is {samples}; it must be 1 or 3")
    frames = whole(path, dataset, "NumberOfFrames", 0) or 1
    return Claim(frames, sizes["Rows"], sizes["Columns"], samples, sizes["BitsAllocated"], photometric)


def pixels_of(path: Path, dataset: FileDataset) -> Pixels:
    """The decoded pixels: colour as RGB, palettes and modality tables looked up. Raises UserError."""
    claim = claim_of(path, dataset)
    with damage_told(path, "its pixels can't be decoded"):
        _check_size(path, dataset, claim)
        pixels = _decoded(path, dataset, claim)
        if claim.photometric == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, dataset)
            if pixels.dtype == np.uint16:  # tables are wide, displays are not
                pixels = (pixels >> 8).astype(np.uint8)
        elif "ModalityLUTSequence" in dataset:
            pixels = apply_modality_lut(pixels, dataset)
        pixels = pixels.reshape(claim.frames, claim.rows, claim.columns, -1)
    pixels = native(path, pixels)
    finite(path, pixels)
    if not claim.coloured:
        return Pixels(pixels, None)
    colours = pixels[..., :3]
    reduced = [grey(frame) for frame in colours]
    if any(frame.shape[-1] > 1 for frame in reduced):
        return Pixels(np.ascontiguousarray(colours), None)
    stored = np.stack(reduced)
    return Pixels(stored, None if (colours == stored).all() else colours)


def stored_of(path: Path, dataset: FileDataset) -> np.ndarray:
    """Decoded pixels `(frames, H, W, samples)`: palettes not looked up, YBR as RGB. Raises UserError."""
    claim = claim_of(path, dataset)
    with damage_told(path, "its pixels can't be decoded"):
        _check_size(path, dataset, claim)
        return _decoded(path, dataset, claim).reshape(claim.frames, claim.rows, claim.columns, -1)


def _decoded(path: Path, dataset: FileDataset, claim: Claim) -> np.ndarray:
    """The pixels by the first decoder that can; by GDCM, whose process damaged streams end, where there is no other."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return pixel_array(dataset)
    plugins = [plugin for plugin in get_decoder(syntax).available_plugins if plugin != "gdcm"]
    for plugin in plugins[:-1]:
        with suppress(Exception):
            return pixel_array(dataset, decoding_plugin=plugin)
    return pixel_array(dataset, decoding_plugin=plugins[-1]) if plugins else _dicom_gdcm.decoded(path, claim.size)


def _check_size(path: Path, dataset: FileDataset, claim: Claim) -> None:
    """Raises UserError where the pixels can't be as many as the header claims, or have no decoder."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise UserError(path, "has no Transfer Syntax UID, so its pixels can't be decoded; export it again")
    found = len(dataset.get("PixelData") or b"") or sum(len(dataset.get(keyword) or b"") for keyword in FLOATS)
    if not syntax.is_encapsulated:
        if found < claim.size:
            raise UserError(path, f"holds {found} bytes of pixels, less than expected: {claim.size} for "
                                  f"{claim.frames} x {claim.rows} x {claim.columns} pixels; copy it again")
        return
    if claim.size > max(MAX_EASY, MAX_RATIO * found):
        raise UserError(path, f"claims {claim.size >> 20} MiB of pixels in {found} compressed bytes; its header is damaged")
    streams = list(generate_frames(dataset.PixelData, number_of_frames=claim.frames))
    for stream in streams:
        size = _coded_size(stream)
        if size is not None and size != (claim.rows, claim.columns, claim.samples):
            raise UserError(path, f"holds images of {size[0]} x {size[1]} x {size[2]}, but its header says {claim.rows} x "
                                  f"{claim.columns} x {claim.samples}; copy it again")
    _check_decoder(path, syntax, streams)


def _check_decoder(path: Path, syntax: UID, streams: list[bytes]) -> None:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UserError(path, f"is compressed as {syntax.name}, which is not read; write it uncompressed") from None
    plugins = set(decoder.available_plugins)
    deep = syntax == JPEGExtended12Bit and _precision(streams[0]) > 8
    if plugins - ({"pillow", "gdcm"} if deep else set()):  # these two decode 8 bits of that syntax
        return
    if deep:
        command = "pip install pylibjpeg pylibjpeg-libjpeg (no other reads 12 bits of it; its licence is the GPL)"
    elif syntax in (HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL):
        command = "pip install pylibjpeg pylibjpeg-openjpeg"
    elif syntax in (JPEGLSLossless, JPEGLSNearLossless):
        command = "pip install pyjpegls"
    else:
        command = "pip install python-gdcm (or: pip install pylibjpeg pylibjpeg-libjpeg, whose licence is the GPL)"
    raise UserError(path, f"needs a decoder for {syntax.name} that is not installed; try: {command}")


def _precision(stream: bytes) -> int:
    at = _frame_start(stream)
    return 8 if at is None else stream[at + 4]


def _coded_size(stream: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of a JPEG, JPEG-LS or JPEG 2000 stream; None for others. Raises ValueError."""
    if stream.startswith(JP2_BOX):
        _check_boxes(stream)
    at = stream.find(J2K_START, 0, 1 << 12)
    if at >= 0 and len(stream) >= at + 42:
        right, bottom, left, top = struct.unpack(">4I", stream[at + 8:at + 24])
        return bottom - top, right - left, struct.unpack(">H", stream[at + 40:at + 42])[0]
    frame = _frame_start(stream)
    return None if frame is None else (*struct.unpack(">HH", stream[frame + 5:frame + 9]), stream[frame + 9])


def _frame_start(stream: bytes) -> int | None:
    """Where the header of the frame begins in a JPEG or JPEG-LS stream."""
    at = 2
    while stream[:2] == b"\xff\xd8" and at + 10 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in NO_FRAME) or marker == 0xF7:
            return at
        at += 2 + struct.unpack(">H", stream[at + 2:at + 4])[0]
    return None


def _check_boxes(stream: bytes) -> None:
    """Raises ValueError where the boxes around a JPEG 2000 stream lead nowhere."""
    at = len(JP2_BOX) + 4
    while at + 8 <= len(stream) and stream[at + 4:at + 8] != b"jp2c":
        length = struct.unpack(">I", stream[at:at + 4])[0]
        if length < 8:
            raise ValueError("a box of JPEG 2000 has no length")
        at += length
