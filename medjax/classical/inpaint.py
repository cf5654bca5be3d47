"""Missing pixels of one image `(*space, C)` in unit range from those that are `known` `(*space)`."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.interpolate import CloughTocher2DInterpolator, NearestNDInterpolator

from medjax.classical._declared import method


@method("inpaint")
def clough_tocher(image: Float[np.ndarray, "*space c"], known: Bool[np.ndarray, "*space"],
                  strength: float = 1.0) -> Float[np.ndarray, "*space c"]:
    """Smooth interpolation over the triangles between known pixels (Alfeld 1984); beyond them the nearest. Volumes go slice
    by slice; a slice with fewer than four known pixels, or with all on a line, takes the nearest, or stays as it is.
    """
    if known.ndim == 3:
        return np.stack([clough_tocher(*pair) for pair in zip(image, known, strict=True)])
    places, wanted = np.argwhere(known), np.argwhere(~known)
    if not len(places) or not len(wanted):
        return image
    values = image[known]
    found = NearestNDInterpolator(places, values)(wanted)
    if np.linalg.matrix_rank(places - places[0]) == 2 and len(places) > 3:
        smooth = CloughTocher2DInterpolator(places, values)(wanted)
        found = np.where(np.isnan(smooth), found, smooth)
    filled = image.copy()
    filled[~known] = found
    return filled
