"""Deformable registration without training: displacements `(*space, n)` in voxels."""

import numpy as np
from jaxtyping import Float
from skimage import registration

Image = Float[np.ndarray, "*space"]


def ilk(fixed: Image, moving: Image, radius: int = 7) -> np.ndarray:
    """Iterative Lucas-Kanade optical flow (Le Besnerais & Champagnat, 2005)."""
    flow = registration.optical_flow_ilk(fixed, moving, radius=radius, num_warp=10, gaussian=True)
    return np.moveaxis(flow, 0, -1).astype(np.float32)


def tvl1(fixed: Image, moving: Image) -> np.ndarray:
    """TV-L1 optical flow (Zach et al., 2007)."""
    return np.moveaxis(registration.optical_flow_tvl1(fixed, moving), 0, -1).astype(np.float32)
