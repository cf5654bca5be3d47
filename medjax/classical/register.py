"""Registration without training: displacements `(*space, n)` in voxels, and a rigid fit of two volumes."""

import numpy as np
from jaxtyping import Float
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation
from skimage import registration

Image = Float[np.ndarray, "*space"]


def ilk(fixed: Image, moving: Image, radius: int = 7) -> np.ndarray:
    """Iterative Lucas-Kanade optical flow (Le Besnerais & Champagnat, 2005)."""
    flow = registration.optical_flow_ilk(fixed, moving, radius=radius, num_warp=10, gaussian=True)
    return np.moveaxis(flow, 0, -1).astype(np.float32)


def tvl1(fixed: Image, moving: Image) -> np.ndarray:
    """TV-L1 optical flow (Zach et al., 2007)."""
    return np.moveaxis(registration.optical_flow_tvl1(fixed, moving), 0, -1).astype(np.float32)


def rigid(fixed: Image, moving: Image, spacing_mm: float, scales: tuple[int, ...] = (4, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Angles (degrees about the axes z, y, x through the middle) and shifts (mm) that bring `moving` onto `fixed`.

    Both are volumes on one grid of isotropic voxels; modalities may differ. Maximises normalised mutual information
    (Studholme et al., 1999), coarse to fine, with Powell's method.
    """
    found = np.zeros(6)
    for scale in scales:
        f, m = (ndimage.zoom(ndimage.gaussian_filter(v.astype(np.float32), scale / 2), 1 / scale, order=1)
                for v in (fixed, moving))
        step = spacing_mm * scale

        def cost(p: np.ndarray, f: np.ndarray = f, m: np.ndarray = m, step: float = step) -> float:
            return -_information(f, moved(m, p[:3], p[3:] / step))

        start = np.vstack([found, found + np.eye(6) * ([5.0] * 3 + [5.0] * 3)])[1:] - found
        found = optimize.minimize(cost, found, method="Powell", options={"direc": start, "xtol": 0.05, "ftol": 1e-4}).x
    return found[:3], found[3:]


def moved(volume: Image, angles: np.ndarray, shift: np.ndarray) -> Image:
    """`volume` turned by `angles` (degrees about z, y, x) about its middle and then moved by `shift` voxels."""
    inverse = Rotation.from_euler("xyz", angles, degrees=True).inv().as_matrix()
    centre = (np.array(volume.shape) - 1) / 2
    return ndimage.affine_transform(volume, inverse, centre - inverse @ (centre + shift), order=1)


def _information(a: np.ndarray, b: np.ndarray, bins: int = 32) -> float:
    joint, _, _ = np.histogram2d(a.ravel(), b.ravel(), bins)
    joint = joint / joint.sum()
    return float((_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / _entropy(joint))


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
