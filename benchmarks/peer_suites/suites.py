"""Which tests of which peers run, and where they lie."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from medjax.types import UserError

HERE = Path(__file__).parent / "in_peer" / "written_here"


@dataclass(frozen=True)
class Part:
    """Files of tests: below the installed `package`, below a checkout ("checkout"), or written here ("here")."""

    where: str
    files: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A peer's tests. `module` of `in_peer` replaces its functions; `tag` is of the checkout that has its tests, if one is
    needed, and `source` where that comes from. `small` chooses what a quick run has of it (`-k` of pytest)."""

    title: str
    module: str
    package: str
    parts: tuple[Part, ...]
    small: str
    source: str = ""
    tag: str = ""


# Of deepinv's operators those that medjax has: others would only take time, and call nothing of medjax.
NOT_OURS = "pet radio ultrasound ptychography scattering cassi CASSI singlepixel hyperspectral unmixing pansharpen"
SUITES = {
    "scikit-image": Suite("scikit-image", "scikit_image", "skimage", (
        Part("package", ("metrics/tests/test_simple_metrics.py", "metrics/tests/test_structural_similarity.py",
                         "metrics/tests/test_set_metrics.py", "transform/tests/test_radon_transform.py")),
        Part("package", ("restoration/tests/test_denoise.py",), ("-k", "tv_chambolle"))),
        small="test_PSNR_vs_IPOL or test_NRMSE or test_gallery or test_radon_iradon_minimal"),
    "deepinv": Suite("deepinv", "deepinv", "deepinv", (
        Part("package", ("tests/test_physics.py",), ("-k", " and ".join(f"not {name}" for name in NOT_OURS.split()))),
        Part("package", ("tests/test_physics_functional.py",), ("-k", "conv2d or conv3d"))),
        small="test_operators_adjointness and (inpainting or 2DFanBeamCT or deblur_circular) or test_mri_fft"),
    "nibabel": Suite("nibabel", "nibabel", "nibabel", (
        Part("package", ("nicom/tests/test_dicomreaders.py",), ("--noconftest",)),
        Part("here", ("test_nibabel_files.py",))),
        small="test_read_dwi or anatomical or functional or example or TestNifti2API"),
    "MONAI": Suite("MONAI", "monai", "monai", (
        Part("checkout", tuple(f"tests/metrics/test_{name}.py" for name in (
            "compute_meandice", "compute_meaniou", "hausdorff_distance", "surface_distance", "surface_dice",
            "compute_confusion_matrix", "compute_f_beta", "compute_roc_auc", "compute_regression_metrics", "ssim_metric",
            "compute_fid_metric", "compute_froc", "compute_average_precision")),
            ("-k", "not test_precision")),),  # which takes gigabytes, and calls nothing of medjax
        small="test_compute_meandice or test_compute_roc_auc", source="https://github.com/Project-MONAI/MONAI", tag="1.5.0"),
    "fastMRI": Suite("fastMRI", "fastmri", "fastmri", (
        Part("checkout", ("tests/test_math.py", "tests/test_transforms.py")), Part("here", ("test_fastmri_evaluate.py",))),
        small="test_fft2 or test_center_crop", source="https://github.com/facebookresearch/fastMRI", tag="v0.3.0"),
    "TorchIO": Suite("TorchIO", "torchio", "torchio", (
        Part("checkout", ("tests/data/test_io.py", "tests/data/test_image.py", "tests/data/test_subject.py")),),
        small="test_write_nd_with_a_read_it_with_b", source="https://github.com/TorchIO-project/torchio", tag="v1.2.1"),
}


def checked(name: str, python: str, checkout: str) -> dict[str, Path]:
    """The roots of a suite's parts. Raises UserError where the peer is not installed, or its tests are not there."""
    suite = SUITES[name]
    find = "import importlib.util as u, sys; s = u.find_spec(sys.argv[1]); print(list(s.submodule_search_locations)[0] if s else '')"
    package = subprocess.run([python, "-c", find, suite.package], capture_output=True, text=True, check=True).stdout.strip()
    if not package:
        raise UserError(name, f"{python} has no {suite.package}; `make peers` installs it, or name another with --peer_python")
    roots = {"package": Path(package), "here": HERE, "checkout": Path(checkout)}
    for part in suite.parts:
        if part.where == "checkout" and not checkout:
            raise UserError(name, f"its package has no tests; give a clone: git clone --branch {suite.tag} {suite.source}, then "
                            f"--{name.lower()}=FOLDER")
        for file in part.files:
            if not (roots[part.where] / file).exists():
                raise UserError(roots[part.where] / file, f"is not there; give {suite.title} {suite.tag}".rstrip())
    return roots


def revision(folder: Path) -> str:
    """The tag or commit of a checkout, "unknown" where it is none."""
    done = subprocess.run(["git", "-C", str(folder), "describe", "--tags", "--always"], capture_output=True, text=True,
                          check=False)
    return done.stdout.strip() or "unknown"
