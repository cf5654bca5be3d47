"""PNG and JPEG: pictures without a geometry."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from medjax.data.values import finite, grey, native, one_line, quantized
from medjax.types import Record, UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
DEEP = ("I", "I;16", "I;16B", "I;16L", "F")


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """An image `(H, W, 1)` or `(H, W, 3)`, row 0 at the top: grey stored as RGB or RGBA has one channel, alpha goes.

    Raises UserError for a damaged file.
    """
    return [Record(_pixels(paths[0]), name, subject)]


def write(target: Path, images: Sequence[np.ndarray], paths: Sequence[Path]) -> None:
    """One image in 0..255 (or the source's 16-bit range) as the source's format and mode; JPEG at quality 95."""
    source = _open(paths[0])
    deep = source.mode in DEEP
    pixels = quantized(images[0], 1.0, 0.0, np.dtype(np.uint16 if deep else np.uint8))
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if not deep and source.mode != "P" and picture.mode != source.mode:
        picture = picture.convert(source.mode)
    partial = target.with_name(f".partial-{target.name}")
    options = {"quality": 95, "subsampling": 0} if source.format == "JPEG" else {}
    try:
        picture.save(partial, source.format, **options)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _open(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
        picture.load()
        return picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(path, f"damaged or no image: {one_line(error)}") from error


def _pixels(path: Path) -> np.ndarray:
    picture = _open(path)
    picture = ImageOps.exif_transpose(picture)
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
