"""Brings a scan onto the grid of another of the same patient, who moved between them.

    python -m medjax.align --fixed=T1.nii.gz --moving=FLAIR.nii.gz --output=FLAIR_on_T1.nii.gz

Scans are NIfTI files or DICOM series; contrasts may differ. Beside the output stands a picture of how well they fit.
"""

import re
import shlex
from itertools import takewhile
from pathlib import Path

import numpy as np
from absl import flags

from medjax import cli
from medjax.classical.rigid import Rigid, resample, rigid
from medjax.data.formats import nifti
from medjax.data.io import Study, discover
from medjax.data.write import write_on_grid
from medjax.report.alignment import picture
from medjax.types import Record, UserError

FIXED = flags.DEFINE_string("fixed", None, "The scan that stays: a NIfTI file or a DICOM series in a folder.", required=True)
MOVING = flags.DEFINE_string("moving", None, "The scan of the same patient that is brought onto the fixed one's grid.",
                             required=True)
OUTPUT = flags.DEFINE_string("output", None, "The NIfTI file for the result, .nii or .nii.gz; a picture goes beside it.",
                             required=True)
SEED = flags.DEFINE_integer("seed", 0, "Chooses the points that are compared; the same seed gives the same result.")


def main() -> None:
    """Finds the rigid motion between the two scans, and writes the moving one on the fixed one's grid."""
    target = Path(OUTPUT.value).expanduser()
    if not target.name.endswith(nifti.SUFFIXES):
        raise UserError(target, f"the result is a NIfTI file; give a name that ends in {' or '.join(nifti.SUFFIXES)}")
    shown = target.with_name(_stem(target) + ".png")
    for path in (target, shown):
        if path.exists():
            raise UserError(path, "is there already; name a new file")
    study, fixed, affine = _volume(FIXED.value)
    _, moving, moving_affine = _volume(MOVING.value)
    one, other = _units(fixed), _units(moving)
    try:
        found = rigid(one, affine, other, moving_affine, SEED.value)
    except UserError as error:
        raise UserError({"fixed": FIXED.value, "moving": MOVING.value}[error.args[0]], error.args[1]) from None
    before, after = (resample(other, moving_affine, one.shape, affine, matrix) for matrix in (np.eye(4), found.matrix))
    axes = nifti.affine_of(study.paths[0]) if study.format == "nifti" else affine[:, [2, 1, 0, 3]]
    write_on_grid(target, after[..., None], moving, axes)
    picture(shown, one, {"as scanned": before, "aligned": after}, fixed.spacing_mm)
    print(_table(found))
    print(f"written: {target}, {shown}")
    if study.paths[0].name.endswith(target.name.removeprefix(_stem(target))):
        print(f"next: {_next(study.paths[0], target)}")


def _volume(path: str) -> tuple[Study, Record, np.ndarray]:
    """The one volume at `path`, and its affine. Raises UserError for anything else."""
    studies = discover(path)
    if len(studies) > 1:
        names = ", ".join(study.place.as_posix() for study in studies[:3])
        raise UserError(path, f"holds {len(studies)} images; give one: {names} …")
    records = studies[0].read()
    if len(records) > 1 or records[0].image.shape[-1] > 1:
        raise UserError(path, "holds several frames or colours; give one volume")
    affine = records[0].affine
    if affine is None:
        raise UserError(path, "is no volume with a place in space; give NIfTI or a DICOM series of at least two slices")
    return studies[0], records[0], affine


def _units(record: Record) -> np.ndarray:
    """`(D, H, W)` float32 in physical units."""
    return record.image[..., 0] * np.float32(record.slope) + np.float32(record.intercept)


def _table(found: Rigid) -> str:
    """What the patient did between the scans, and what it was worth."""
    lines = [f"{'from fixed to moving':32s}{'x':>8s}{'y':>8s}{'z':>8s}"]
    for name, values in (("rotation, degrees", found.degrees), ("translation, mm", found.shift_mm)):
        lines.append(f"{name:32s}" + "".join(f"{value:8.2f}" for value in values))
    before, after = found.nmi
    return "\n".join([*lines, f"normalised mutual information {before:.4f}, aligned {after:.4f}"])


def _next(fixed: Path, output: Path) -> str:
    """The command that trains from the one contrast to the other: the files' names differ in the contrast's alone."""
    stems = [str(path.with_name(_stem(path))) for path in (fixed, output)]
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*stems, strict=False)))
    common = re.sub(r"[^/_.-]*$", "", stems[0][:alike])
    source, target = (stem[len(common):] for stem in stems)
    kind = output.name.removeprefix(_stem(output))
    return shlex.join(["python", "train.py", "--config=configs/translate.py:source=multicontrast",
                       "--workdir=runs/translate", f"--config.data.source.path={common}{{contrast}}{kind}",
                       f"--config.data.source.contrasts={source, target}", f"--config.task.source={(source,)}",
                       f"--config.task.target={target}"])


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name)


if __name__ == "__main__":
    cli.run(main)
