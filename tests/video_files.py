"""Clips as files, written by PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

GREY, COLOUR = ("ffv1", "gray"), ("ffv1", "bgr0")


def clip(path: Path, frames: Sequence[np.ndarray], coding: tuple[str, str] = GREY, rate: Fraction = Fraction(25),
         rotation: int = 0, **options: str) -> Path:
    """Frames `(H, W)` or `(H, W, 3)` uint8 as a file of a codec and pixel format; without others, no value is lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(coding[0], rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], coding[1]
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            layout = "gray" if frame.ndim == 2 else "rgb24"
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=layout).reformat(format=coding[1])))
        file.mux(stream.encode())
    return path


def noise(count: int, *shape: int, seed: int = 0) -> list[np.ndarray]:
    """Frames of which every value is drawn."""
    return list(np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8))


def smooth(count: int, height: int, width: int) -> list[np.ndarray]:
    """Grey frames that change little from one pixel or time to the next, as codecs expect of them."""
    t, y, x = np.indices((count, height, width))
    return list(np.uint8(127 + 60 * np.sin((x + 2 * t) / 9) + 50 * np.cos(y / 7)))
