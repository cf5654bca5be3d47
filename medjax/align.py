"""Brings a scan onto the grid of another of the same patient, who moved between them.

    python -m medjax.align --fixed=T1.nii.gz --moving=FLAIR.nii.gz --output=FLAIR_on_T1.nii.gz

Scans are NIfTI files or DICOM series; contrasts may differ. Beside the output stand a picture of how well they fit and the
transform, which ITK, ANTs and 3D Slicer read. With --labels=LESIONS.nii.gz a label map of the moving scan comes along.
"""

from pathlib import Path

import numpy as np
from absl import flags

from medjax import cli
from medjax.classical.rigid import resample, rigid
from medjax.data.formats import nifti
from medjax.data.io import Study, discover
from medjax.data.transform import SUFFIX, write_transform
from medjax.data.write import write_on_grid
from medjax.report.alignment import next_command, picture, stem, table
from medjax.types import Record, UserError

FIXED = flags.DEFINE_string("fixed", None, "The scan that stays: a NIfTI file or a DICOM series in a folder.", required=True)
MOVING = flags.DEFINE_string("moving", None, "The scan of the same patient that is brought onto the fixed one's grid.",
                             required=True)
OUTPUT = flags.DEFINE_string("output", None, "The NIfTI file for the result, .nii or .nii.gz; a picture and the transform "
                             "go beside it.", required=True)
LABELS = flags.DEFINE_string("labels", "", "A label map of the moving scan, to be brought along: each voxel takes the label "
                             "nearest to it.")
SEED = flags.DEFINE_integer("seed", 0, "Chooses the points that are compared; the same seed gives the same result.")


def main() -> None:
    """Finds the rigid motion between the two scans, and writes the moving one on the fixed one's grid."""
    target, shown, transform, mapped = _targets(Path(OUTPUT.value).expanduser())
    study, fixed, affine = _volume(FIXED.value)
    _, moving, moving_affine = _volume(MOVING.value)
    labels = _labels(LABELS.value) if LABELS.value else None
    one, other = fixed.in_units((..., 0)), moving.in_units((..., 0))
    try:
        found = rigid(one, affine, other, moving_affine, SEED.value)
    except UserError as error:
        raise UserError({"fixed": FIXED.value, "moving": MOVING.value}[error.args[0]], error.args[1]) from None
    before, after = (resample(other, moving_affine, one.shape, affine, matrix) for matrix in (np.eye(4), found.matrix))
    axes = nifti.affine_of(study.paths[0]) if study.format == "nifti" else affine[:, [2, 1, 0, 3]]
    write_on_grid(target, after[..., None], moving, axes)
    written = [target, transform, shown]
    if labels is not None:
        record, place = labels
        nearest = resample(record.in_units((..., 0)), place, one.shape, affine, found.matrix, labels=True)
        write_on_grid(mapped, nearest[..., None], record, axes)
        written.insert(1, mapped)
    write_transform(transform, found.matrix, np.array(found.centre_mm))
    picture(shown, one, {"as scanned": before, "aligned": after}, fixed.spacing_mm)
    print(table(found))
    print("written: " + ", ".join(map(str, written)))
    if study.paths[0].name.endswith(target.name.removeprefix(stem(target))):
        print(f"next:\n{next_command(study.paths[0], target)}")


def _targets(target: Path) -> tuple[Path, Path, Path, Path]:
    """The files for the result, the picture, the transform and the labels. Raises UserError for one that is there."""
    if not target.name.endswith(nifti.SUFFIXES):
        raise UserError(target, f"the result is a NIfTI file; give a name that ends in {' or '.join(nifti.SUFFIXES)}")
    bare = stem(target)
    shown, transform = (target.with_name(bare + suffix) for suffix in (".png", SUFFIX))
    mapped = target.with_name(f"{bare}_labels{target.name.removeprefix(bare)}")
    for path in (target, shown, transform, *([mapped] if LABELS.value else [])):
        if path.exists():
            raise UserError(path, "is there already; name a new file")
    return target, shown, transform, mapped


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


def _labels(path: str) -> tuple[Record, np.ndarray]:
    """The label map at `path`, and its affine. Raises UserError for anything else."""
    _, record, affine = _volume(path)
    values = record.in_units((..., 0))
    if not np.array_equal(values, np.rint(values)):
        raise UserError(path, "is no label map: it has values that are no whole numbers")
    return record, affine


if __name__ == "__main__":
    cli.run(main)
