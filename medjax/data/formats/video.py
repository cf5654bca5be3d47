"""Video: clips of 8 bits as series of 2-D frames, read and written by FFmpeg, which the package `av` (PyAV) carries."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medjax.data.formats._containers import container
from medjax.data.values import COLOURED_SHARE, coloured, luminance, one_line, quantized
from medjax.files import atomic
from medjax.types import Derivation, Record, UserError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
KIND = "image"
MAX_PIXELS = 1 << 25  # of a frame: 8K; FFmpeg takes no memory for larger ones
MAX_EASY = 1 << 28  # the frames may take so many bytes without a question,
MAX_RATIO = 4000  # and so many times the size of the file beyond that
LIMITS = {"max_pixels": str(MAX_PIXELS), "err_detect": "crccheck+bitstream+buffer+explode"}
DEFAULT_RATE = Fraction(25)  # frames a second, where a file doesn't say


@dataclass(frozen=True)
class _Coding:
    """How frames are written without loss: a container, the codecs and pixel formats of grey and of colour."""

    container: str
    grey: tuple[str, str]
    colour: tuple[str, str]
    options: dict[str, str]


def _h264(name: str) -> _Coding:
    """Grey is luma in full range: a player that doesn't know lossless RGB would show wrong colours."""
    return _Coding(name, ("libx264", "yuvj444p"), ("libx264rgb", "rgb24"), {"qp": "0"})


CODINGS = {
    ".mp4": _h264("mp4"), ".mov": _h264("mov"),
    ".mkv": _Coding("matroska", ("ffv1", "gray"), ("ffv1", "bgr0"), {}),
    ".avi": _Coding("avi", ("ffv1", "gray"), ("ffv1", "bgr0"), {}),
    ".webm": _Coding("webm", ("libvpx-vp9", "gbrp"), ("libvpx-vp9", "gbrp"), {"lossless": "1"}),
}


def accepts(path: Path) -> bool:
    """Every file with one of the suffixes."""
    return True


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each file is a study."""
    return [((file,), "") for file in files]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """The frames in order, `(H, W, 1)` or `(H, W, 3)` uint8 each, upright, row 0 at the top.

    A clip is grey where its channels are equal but for rounding, or for marks on at most 5 % of its pixels. Of several
    streams the main one is read, of deeper ones the upper 8 bits. Raises UserError for a damaged file, and without the
    package `av`.
    """
    (path,) = paths
    frames, marked, pixels = [], 0, 0
    for frame in _decoded(path, 1):
        pixels += frame[..., 0].size
        marked += 0 if frame.shape[-1] == 1 else int(coloured(frame).sum())
        frames.append(frame if frame.shape[-1] == 1 else luminance(frame))
    if marked > COLOURED_SHARE * pixels:
        frames = list(_decoded(path, 3))  # again, so that grey clips never take three times their size
    if len(frames) == 1:
        return [Record(frames[0], name, subject)]
    return [Record(frame, f"{name}#{number:03d}", subject) for number, frame in enumerate(frames)]


def write(target: Path, images: Sequence[np.ndarray], paths: Sequence[Path], derivation: Derivation) -> None:
    """Frames in 0 … 255 at the source's mean frame rate, without loss, sound or uneven times; others are clipped.

    MKV and AVI are FFV1, WebM is lossless VP9, MP4 and MOV are lossless H.264 (profile High 4:4:4 Predictive), which some
    players don't show. Raises UserError for other than 1 or 3 channels.
    """
    pixels = [quantized(image, 1.0, 0.0, np.dtype(np.uint8)) for image in images]
    _save(target, pixels, _rate(paths[0]), {"comment": derivation.text})


def write_labels(target: Path, labels: Sequence[np.ndarray], names: Sequence[str], paths: Sequence[Path],
                 derivation: Derivation) -> None:
    """Label maps `(H, W)` uint8 as `write` does, the names as JSON in the tag "labels", which AVI has no place for."""
    tags = {"comment": derivation.text, "labels": json.dumps(list(names))}
    _save(target, [label[..., None] for label in labels], _rate(paths[0]), tags)


def _library(path: Path) -> Any:
    try:
        import av
    except ImportError:
        raise UserError(path, "needs the package av: pip install 'medjax[video]'") from None
    return av


@contextmanager
def _opened(path: Path) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    """The file and its video stream. What FFmpeg says is wrong, here or inside of the `with`, becomes a UserError."""
    library = _library(path)
    try:
        name = container(path)
        with _listening(library) as said:
            with path.open("rb") as stored, library.open(stored, format=name, options=LIMITS,
                                                         metadata_errors="replace") as file:
                stream = file.streams.best("video")
                if stream is None or stream.codec_context is None:
                    raise UserError(path, "damaged: holds no video, or none that FFmpeg can decode")
                stream.codec_context.options = LIMITS
                stream.codec_context.thread_count = 1  # what others than this thread say would not be heard
                yield file, stream
            if said:
                raise UserError(path, f"damaged: {' '.join(said[0][2].split())}")
    except (library.FFmpegError, OSError, ValueError, MemoryError, OverflowError) as error:
        raise UserError(path, f"damaged, or no video: {getattr(error, 'strerror', None) or one_line(error)}") from error


@contextmanager
def _listening(library: Any) -> Iterator[list[tuple[int, str, str]]]:
    """What FFmpeg calls an error meanwhile. Some decoders fill damaged blocks from other frames and only say so."""
    before = library.logging.get_level()
    library.logging.set_level(library.logging.ERROR)
    try:
        with library.logging.Capture() as said:
            yield said
    finally:
        library.logging.set_level(before)


def _decoded(path: Path, channels: int) -> Iterator[np.ndarray]:
    """The frames `(H, W, 1)` or `(H, W, 3)`, of which `channels` will be kept. Raises UserError, for none as well."""
    count, shape, most = 0, (), max(MAX_EASY, MAX_RATIO * path.stat().st_size)
    with _opened(path) as (file, stream):
        for frame in file.decode(stream):
            grey = frame.format.name == "gray"
            stored: np.ndarray = frame.to_ndarray(format="gray" if grey else "rgb24")
            pixels = np.ascontiguousarray(np.rot90(stored[..., None] if grey else stored, frame.rotation // 90))
            count, shape = count + 1, shape or pixels.shape
            if frame.is_corrupt or pixels.shape != shape:
                raise UserError(path, f"damaged: frame {count} can't be decoded, or has another size; copy it again")
            if count * pixels[..., 0].size * channels > most:
                raise UserError(path, f"holds more than {most >> 20} MiB of frames in {path.stat().st_size} bytes; cut it, "
                                "or check where it comes from")
            yield pixels
    if not count:
        raise UserError(path, "damaged: holds no frames")


def _rate(path: Path) -> Fraction:
    """Frames a second."""
    with _opened(path) as (_, stream):
        return stream.average_rate or DEFAULT_RATE


def _save(target: Path, frames: Sequence[np.ndarray], rate: Fraction, tags: dict[str, str]) -> None:
    """Writes frames `(H, W, C)` uint8."""
    library, coding = _library(target), CODINGS[target.suffix.lower()]
    channels = frames[0].shape[-1]
    if channels not in (1, 3):
        raise UserError(target, f"{channels} channels can't be written as video; give 1 or 3")
    codec, layout = coding.grey if channels == 1 else coding.colour
    own = {"movflags": "use_metadata_tags"} if coding.container in ("mp4", "mov") else {}
    with atomic(target) as unfinished, unfinished.open("wb") as stored, library.open(
            stored, "w", format=coding.container, options=own) as file:
        file.metadata.update({key: value for key, value in tags.items() if value})
        stream = file.add_stream(codec, rate=rate, options=coding.options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], layout
        for frame in frames:
            file.mux(stream.encode(_frame(library, frame).reformat(format=layout)))
        file.mux(stream.encode())


def _frame(library: Any, pixels: np.ndarray) -> "av.VideoFrame":
    if pixels.shape[-1] == 1:
        return library.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[..., 0]), format="gray")
    return library.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
