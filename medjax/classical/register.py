"""Deformable registration without training: displacements `(*space, n)` in voxels."""

import numpy as np
from jaxtyping import Float
from skimage import registration

from medjax.classical._declared import method

Image = Float[np.ndarray, "*space"]


@method("register", (3.0, 5.0, 7.0, 11.0))
def ilk(fixed: Image, moving: Image, strength: float = 7.0) -> np.ndarray:
    """Iterative Lucas-Kanade optical flow (Le Besnerais & Champagnat, 2005); `strength` is its radius in voxels."""
    flow = registration.optical_flow_ilk(fixed, moving, radius=int(strength), num_warp=10, gaussian=True)
    return np.moveaxis(flow, 0, -1).astype(np.float32)


@method("register", (3.0, 7.0, 15.0, 30.0))
def tvl1(fixed: Image, moving: Image, strength: float = 15.0) -> np.ndarray:
    """TV-L1 optical flow (Zach et al., 2007); `strength` weighs the images against smoothness."""
    return np.moveaxis(registration.optical_flow_tvl1(fixed, moving, attachment=strength), 0, -1).astype(np.float32)
