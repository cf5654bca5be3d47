"""Images as pictures for a page: one window, one error scale, true proportions, radiological convention."""

import base64
import io
import math
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from PIL import Image

_PIXELS = 512
_COLOURS = "magma"


@dataclass(frozen=True)
class Panel:
    """One sample: its images `(H, W)` or `(H, W, 3)` by name, in physical units, on one grid and in one `window`.

    They come in the order input, best reference, model, truth; `scores` are their metrics, two of them written above
    each. `spacing_mm` is (row, column), empty where unknown. `anatomical` images have rows towards Anterior or Superior
    and columns towards Right (sagittal: Anterior); they are shown with anterior or superior up and the patient's right
    (sagittal: anterior) on the left. Where `mask` `(H, W)` is False nothing counts, and no error is drawn. `half_width`
    `(H, W)` is that of intervals around the image "model"; `removed` what it took from the image "input", or added, that
    noise does not explain, 0 elsewhere.
    """

    name: str
    images: dict[str, np.ndarray]
    window: tuple[float, float]
    spacing_mm: tuple[float, ...] = ()
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    anatomical: bool = False
    mask: np.ndarray | None = None
    half_width: np.ndarray | None = None
    removed: np.ndarray | None = None

    @property
    def extent_mm(self) -> tuple[float, float]:
        """Height and width; in pixels where the spacing is not known."""
        rows, columns = next(iter(self.images.values())).shape[:2]
        row, column = self.spacing_mm or (1.0, 1.0)
        return rows * row, columns * column

    @property
    def scale_bar(self) -> tuple[float, float]:
        """A round length in mm and the fraction of the width it takes: the longest up to a third."""
        width = self.extent_mm[1]
        length = _round_down(width / 3)
        return length, length / width

    def errors(self) -> dict[str, np.ndarray]:
        """|image - truth| `(H, W)` of every image but the truth, the mean over colours, 0 outside the mask."""
        truth = np.asarray(self.images["truth"], np.float64)
        found = {k: np.abs(np.asarray(v, np.float64) - truth) for k, v in self.images.items() if k != "truth"}
        found = {name: error.mean(-1) if error.ndim == 3 else error for name, error in found.items()}
        return found if self.mask is None else {name: np.where(self.mask, error, 0) for name, error in found.items()}

    def error_limit(self) -> float:
        """The top of the common error scale: all but the largest half percent of the errors lie below."""
        counted = slice(None) if self.mask is None else np.asarray(self.mask, bool)
        errors = [error[counted] for error in self.errors().values()]
        return round_up(max((float(np.nanpercentile(e, 99.5)) for e in errors if e.size), default=0.0))


def image_png(panel: Panel, name: str) -> str:
    """The image in the panel's window, as base64 of a PNG."""
    low, high = panel.window
    unit = (np.asarray(panel.images[name], np.float64) - low) / (high - low)
    return _png(_bytes(unit), panel)


def error_png(panel: Panel, name: str) -> str:
    """The image's error in colours, on the panel's error scale, as base64 of a PNG."""
    unit = panel.errors()[name] / panel.error_limit()
    return _png(palette()[_bytes(unit)], panel)


def half_width_png(panel: Panel) -> str:
    """The half-width of the intervals in colours, on the panel's error scale, as base64 of a PNG."""
    assert panel.half_width is not None
    width = panel.half_width if panel.mask is None else np.where(panel.mask, panel.half_width, 0)
    return _png(palette()[_bytes(width / panel.error_limit())], panel)


def removed_png(panel: Panel) -> str:
    """What noise does not explain, without sign, in colours on the panel's error scale, as base64 of a PNG."""
    assert panel.removed is not None
    return _png(palette()[_bytes(np.abs(panel.removed) / panel.error_limit())], panel)


def outside_png(panel: Panel) -> str:
    """White where the truth lies outside the interval around the model's image, as base64 of a PNG."""
    assert panel.half_width is not None
    return _png(_bytes((panel.errors()["model"] > panel.half_width).astype(float)), panel)


def colour_bar() -> str:
    """The error scale from 0 up as a CSS gradient."""
    stops = palette()[np.linspace(0, 255, 9).astype(int)]
    return ", ".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in stops)


def palette() -> np.ndarray:
    """The colours of errors from 0 up, `(256, 3)`."""
    return (matplotlib.colormaps[_COLOURS](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def _bytes(unit: np.ndarray) -> np.ndarray:
    return (np.clip(np.nan_to_num(unit), 0, 1) * 255).round().astype(np.uint8)


def _png(pixels: np.ndarray, panel: Panel) -> str:
    """Whole pixels are repeated to a fine grid in true proportions, so that no browser smears or skips any."""
    if panel.anatomical:
        pixels = pixels[::-1, ::-1]
    per_mm = _PIXELS / max(panel.extent_mm)
    for axis, spacing in enumerate(panel.spacing_mm or (1.0, 1.0)):
        pixels = pixels.repeat(max(1, math.ceil(spacing * per_mm)), axis)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _round_down(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return max(step for step in (1, 2, 5) if step * decade <= value * (1 + 1e-9)) * decade


def round_up(value: float) -> float:
    """The next number of two digits; 1 for 0."""
    if value <= 0:
        return 1.0
    decade = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / decade * (1 - 1e-9)) * decade:.6g}")
