"""PNG and JPEG: pictures without a geometry."""

import json
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from medjax.data.values import DEFLATE, finite, grey, native, one_line, possible, quantized
from medjax.files import atomic
from medjax.types import Derivation, Record, UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
KIND = "image"
DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
READ = ("PNG", "JPEG", "MPO")  # MPO: JPEG of cameras, with a preview; what else Pillow reads may run other programs
BITS = {"1": 1, "P": 1, "L": 2, "LA": 16, "I;16": 16, "RGB": 24, "RGBA": 32}  # the fewest of a pixel in a PNG file
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError,
          MemoryError, struct.error, zlib.error, Image.DecompressionBombError)


def accepts(path: Path) -> bool:
    """Every file with one of the suffixes."""
    return True


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each file is a study."""
    return [((file,), "") for file in files]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """An image `(H, W, 1)` or `(H, W, 3)`, row 0 at the top: grey stored as RGB or RGBA has one channel, alpha goes.

    Raises UserError for a damaged file.
    """
    return [Record(_pixels(paths[0], load(paths[0])), name, subject)]


def write(target: Path, images: Sequence[np.ndarray], paths: Sequence[Path], derivation: Derivation) -> None:
    """One image in 0..255 (or the source's 16-bit range) in the source's mode; JPEG at quality 95."""
    source = _open(paths[0])
    deep = source.mode in DEEP
    pixels = quantized(images[0], 1.0, 0.0, np.dtype(np.uint16 if deep else np.uint8))
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if not deep and source.mode != "P" and picture.mode != source.mode:
        picture = picture.convert(source.mode)
    jpeg = target.suffix.lower() != ".png"
    _save(target, picture, **({"quality": 95, "subsampling": 0} if jpeg else {}))


def write_labels(target: Path, labels: Sequence[np.ndarray], names: Sequence[str], paths: Sequence[Path],
                 derivation: Derivation) -> None:
    """A label map `(H, W)` uint8 as PNG, the names as JSON in its text "labels". Raises UserError for the name of a JPEG."""
    if target.suffix.lower() != ".png":
        raise UserError(target, "JPEG would change the labels; give a name that ends in .png")
    text = PngInfo()
    text.add_text("labels", json.dumps(list(names)))
    _save(target, Image.fromarray(labels[0]), pnginfo=text)


def load(path: Path) -> Image.Image:
    """A picture, upright and decoded. Raises UserError for a damaged file, and for a header that claims too much."""
    picture = _open(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of other entries than which way is up
            return ImageOps.exif_transpose(picture)
    except DAMAGE as error:
        raise UserError(path, f"damaged: its Exif data can't be read ({one_line(error)})") from error


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes below the limit, of metadata that is not used
            with Image.open(path, formats=READ) as picture:
                if picture.format == "PNG":
                    bits = picture.width * picture.height * BITS.get(picture.mode, 1)
                    possible(path, bits // 8, path.stat().st_size, DEFLATE)
                picture.load()
                return picture
    except DAMAGE as error:
        raise UserError(path, f"damaged or no image: {one_line(error)}") from error


def _save(target: Path, picture: Image.Image, **options: Any) -> None:
    with atomic(target) as unfinished:
        picture.save(unfinished, "PNG" if target.suffix.lower() == ".png" else "JPEG", **options)


def _pixels(path: Path, picture: Image.Image) -> np.ndarray:
    if picture.mode in DEEP:
        pixels = native(path, np.asarray(picture))[..., None]
        finite(path, pixels)
        fits = pixels.dtype == np.int32 and 0 <= pixels.min() <= pixels.max() < 1 << 16
        return pixels.astype(np.uint16) if fits else pixels
    if picture.mode in ("1", "LA", "La"):
        picture = picture.convert("L")
    elif picture.mode != "L":
        picture = picture.convert("RGB")
    pixels = np.array(picture)
    return pixels[..., None] if pixels.ndim == 2 else grey(pixels)
