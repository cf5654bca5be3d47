"""Which tests of which peers run, and where they lie."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from medjax.types import UserError

HERE = Path(__file__).parent / "in_peer" / "written_here"


@dataclass(frozen=True)
class Part:
    """Files of tests: below the installed "package", below its "clone", or written "here". `only` chooses among the tests
    (pytest's `-k`)."""

    where: str
    files: tuple[str, ...]
    only: str = ""


@dataclass(frozen=True)
class Suite:
    """A peer's tests. Where its `package` has none, a clone of `source` at `tag` has them."""

    package: str
    parts: tuple[Part, ...]
    source: str = ""
    tag: str = ""


# Of deepinv's operators those that medjax has. Of its many sizes of convolutions one with an odd and an even side, of its
# kernels the one with a centre.
OPERATORS = ("(inpainting or deblur or MRI or BeamCT or super_resolution or down_resolution or composition or composed or "
             "tomography or blur or mri_fft or downsampling or upsampling) and not (pet or tiled)")
CONVOLUTIONS = ("((conv2d or conv3d) and im_size_spatial2 and filt_size_spatial0) or "
                "(conv_filter_transpose2d and kernel_size0)")
METRICS = ("compute_meandice", "compute_meaniou", "hausdorff_distance", "surface_distance", "surface_dice",
           "compute_confusion_matrix", "compute_f_beta", "compute_roc_auc", "compute_regression_metrics", "ssim_metric",
           "compute_fid_metric", "compute_froc", "compute_average_precision")

SUITES = {
    "scikit-image": Suite("skimage", (
        Part("package", ("metrics/tests/test_simple_metrics.py", "metrics/tests/test_structural_similarity.py",
                         "metrics/tests/test_set_metrics.py", "transform/tests/test_radon_transform.py")),
        Part("package", ("restoration/tests/test_denoise.py",), only="tv_chambolle"))),
    "deepinv": Suite("deepinv", (
        Part("package", ("tests/test_physics.py",), only=OPERATORS),
        Part("package", ("tests/test_physics_functional.py",), only=CONVOLUTIONS),
        Part("here", ("test_deepinv_values.py",)))),
    "nibabel": Suite("nibabel", (Part("here", ("test_nibabel_files.py",)),)),
    # The test that is left out takes gigabytes, and calls nothing of medjax.
    "MONAI": Suite("monai", (
        Part("clone", tuple(f"tests/metrics/test_{name}.py" for name in METRICS), only="not test_precision"),),
        "https://github.com/Project-MONAI/MONAI", "1.5.0"),
    "fastMRI": Suite("fastmri", (
        Part("clone", ("tests/test_math.py", "tests/test_transforms.py")),
        Part("here", ("test_fastmri_evaluate.py",))),
        "https://github.com/facebookresearch/fastMRI", "v0.3.0"),
    "TorchIO": Suite("torchio", (
        Part("clone", ("tests/data/test_io.py", "tests/data/test_image.py", "tests/data/test_subject.py")),),
        "https://github.com/TorchIO-project/torchio", "v1.2.1"),
}


def roots(name: str, python: str, clones: str) -> dict[str, Path]:
    """Where the parts of a suite lie. Raises UserError where the peer is not installed, or its tests are not there."""
    suite = SUITES[name]
    find = "import importlib.util as u, sys; s = u.find_spec(sys.argv[1]); print(*s.submodule_search_locations if s else '')"
    told = subprocess.run([python, "-c", find, suite.package], capture_output=True, text=True, check=False)
    if told.returncode or not told.stdout.strip():
        raise UserError(name, f"{python} has no {suite.package}; run `make peers`, or name another with --peer_python")
    if suite.source and not clones:
        raise UserError(name, f"its package has no tests; `git clone --depth 1 --branch {suite.tag} {suite.source}`, "
                        "and give the folder around the clone as --clones")
    clone = Path(clones).absolute() / suite.source.split("/")[-1]
    found = {"package": Path(told.stdout.strip()), "here": HERE, "clone": clone}
    for part in suite.parts:
        missing = [file for file in part.files if not (found[part.where] / file).exists()]
        if missing:
            raise UserError(found[part.where] / missing[0], f"is not there; give the tests of {name} {suite.tag}".rstrip())
    return found


def revision(folder: Path) -> str:
    """The tag or commit of a clone."""
    command = ["git", "-C", str(folder), "describe", "--tags", "--always"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "a folder"
