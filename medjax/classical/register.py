"""Deformable registration without training: displacements `(*space, n)` in voxels."""

import numpy as np
import SimpleITK
from jaxtyping import Float
from skimage import registration

from medjax.classical._declared import method

Image = Float[np.ndarray, "*space"]
BINS, ITERATIONS = 32, 40
DEMONS_LEVELS, DEMONS_ITERATIONS = (4, 2, 1), 60  # how much coarser each level is; iterations on each


@method("register", (3.0, 5.0, 7.0, 11.0))
def ilk(fixed: Image, moving: Image, strength: float = 7.0) -> np.ndarray:
    """Iterative Lucas-Kanade optical flow (Le Besnerais & Champagnat, 2005); `strength` is its radius in voxels."""
    flow = registration.optical_flow_ilk(fixed, moving, radius=int(strength), num_warp=10, gaussian=True)
    return np.moveaxis(flow, 0, -1).astype(np.float32)


@method("register", (3.0, 7.0, 15.0, 30.0))
def tvl1(fixed: Image, moving: Image, strength: float = 15.0) -> np.ndarray:
    """TV-L1 optical flow (Zach et al., 2007); `strength` weighs the images against smoothness."""
    return np.moveaxis(registration.optical_flow_tvl1(fixed, moving, attachment=strength), 0, -1).astype(np.float32)


@method("register", (8.0, 16.0, 32.0))
def bspline(fixed: Image, moving: Image, strength: float = 16.0) -> np.ndarray:
    """Free-form deformation by B-splines (Rueckert et al., 1999) on Mattes' mutual information (2003), in two resolutions.

    `strength` is the distance of its control points in voxels. An image with one value everywhere is not moved.
    """
    still = np.zeros((*fixed.shape, fixed.ndim), np.float32)
    if np.ptp(fixed) == 0 or np.ptp(moving) == 0:
        return still
    one, other = (SimpleITK.GetImageFromArray(np.ascontiguousarray(image, np.float32)) for image in (fixed, moving))
    cells = [max(1, round(size / strength)) for size in one.GetSize()]
    transform = SimpleITK.BSplineTransformInitializer(one, cells, order=3)
    registration_ = SimpleITK.ImageRegistrationMethod()
    registration_.SetMetricAsMattesMutualInformation(BINS)
    registration_.SetInterpolator(SimpleITK.sitkLinear)
    registration_.SetInitialTransform(transform, inPlace=True)
    registration_.SetOptimizerAsLBFGSB(numberOfIterations=ITERATIONS)
    registration_.SetShrinkFactorsPerLevel([2, 1])
    registration_.SetSmoothingSigmasPerLevel([1.0, 0.0])
    try:
        registration_.Execute(one, other)
    except RuntimeError:  # the images lost each other
        return still
    field = SimpleITK.TransformToDisplacementField(transform, SimpleITK.sitkVectorFloat64, one.GetSize(), one.GetOrigin(),
                                              one.GetSpacing(), one.GetDirection())
    return SimpleITK.GetArrayFromImage(field)[..., ::-1].astype(np.float32)


@method("register", (0.75, 1.0, 1.5, 2.0, 3.0, 5.0))
def demons(fixed: Image, moving: Image, strength: float = 1.5) -> np.ndarray:
    """Diffeomorphic demons (Vercauteren et al., 2009) in three resolutions, for images of one contrast.

    `strength` is the standard deviation, in voxels, of the Gaussian that smooths the displacement.
    """
    one, other = (SimpleITK.GetImageFromArray(np.ascontiguousarray(image, np.float32)) for image in (fixed, moving))
    field = SimpleITK.Image(one.GetSize(), SimpleITK.sitkVectorFloat64, fixed.ndim)
    for factor in DEMONS_LEVELS:
        level = [_coarser(image, factor) for image in (one, other)]
        run = SimpleITK.DiffeomorphicDemonsRegistrationFilter()
        run.SetNumberOfIterations(DEMONS_ITERATIONS)
        run.SetSmoothDisplacementField(True)
        run.SetStandardDeviations(strength)
        field = run.Execute(*level, SimpleITK.Resample(field, level[0]))
    return SimpleITK.GetArrayFromImage(SimpleITK.Resample(field, one))[..., ::-1].astype(np.float32)


def _coarser(image: SimpleITK.Image, factor: int) -> SimpleITK.Image:
    """The image, smoothed and on a grid `factor` times coarser along axes long enough for it."""
    factors = [factor if size >= 8 * factor else 1 for size in image.GetSize()]
    smooth = SimpleITK.SmoothingRecursiveGaussian(image, [max(f / 2, 1e-3) for f in factors]) if factor > 1 else image
    return SimpleITK.Shrink(smooth, factors)
