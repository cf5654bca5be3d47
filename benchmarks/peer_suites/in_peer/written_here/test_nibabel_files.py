"""NIfTI and DICOM images of nibabel's test data, and those that its tables of tests make: medjax reads the same values,
affine and voxel size, or refuses the file in one line, which is then the reason why the test does not apply."""

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from in_peer.readers import on_axes, read, refusal
from nibabel.nicom import dicomreaders
from nibabel.tests import test_image_api as api

PACKAGE = Path(nibabel.__file__).parent
FILES = sorted((PACKAGE / "tests" / "data").glob("*.nii*"))
SCANS = sorted((PACKAGE / "nicom" / "tests" / "data").glob("*.dcm*"))
TABLES = {"NIfTI-1": api.TestNifti1API, "NIfTI-2": api.TestNifti2API}
MADE = [(name, number) for name, table in TABLES.items() for number, _ in enumerate(table().obj_params())]


def records_of(path):
    """What medjax reads; a refusal, of one line, ends the test as one that does not apply."""
    try:
        return read(path)
    except ValueError as error:
        line = str(error)
        assert "\n" not in line
        assert line.startswith(str(path))
        pytest.skip(refusal(error, path))


def compare(found, affine, values, rtol=1e-6):
    """Frame by frame; the axes of `values` after the third count frames."""
    space = (*values.shape, 1, 1)[:3]
    frames = [on_axes(record, affine, space) for record in found]
    stacked = np.stack([frame for frame, _ in frames], -1)[..., 0, :]
    np.testing.assert_allclose(stacked.reshape(values.shape), values, rtol=1e-6, atol=0)
    for record, (_, own) in zip(found, frames, strict=True):
        if own is not None:
            np.testing.assert_allclose(own, affine, rtol=rtol, atol=10 * rtol)
        lengths = [float(np.linalg.norm(affine[:3, axis])) for axis in range(3)
                   if space[axis] > 1 or len(record["spacing"]) == 3]
        assert sorted(record["spacing"]) == pytest.approx(sorted(lengths), rel=rtol)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file(path):
    found, image = records_of(path), nibabel.load(path)
    compare(found, image.affine, np.asanyarray(image.dataobj))


@pytest.mark.parametrize("path", SCANS, ids=lambda path: path.name)
def test_a_dicom_file(path, tmp_path):
    """Its reader's affine counts to the left and to the back, as DICOM does. A single slice stays as its file has it."""
    plain = tmp_path / path.name.removesuffix(".gz")
    plain.write_bytes(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    found, scan = records_of(plain), dicomreaders.wrapper_from_file(plain)
    values, affine = scan.get_data(), dicomreaders.DPCS_TO_TAL @ scan.affine
    if values.ndim > 2:
        compare(found, affine, values, rtol=2e-5)
    else:
        np.testing.assert_allclose(found[0]["image"][..., 0] * found[0]["slope"] + found[0]["intercept"], values, rtol=1e-6)
        assert found[0]["spacing"] == pytest.approx(np.linalg.norm(affine[:3, :2], axis=0), rel=2e-5)


@pytest.mark.parametrize(("table", "number"), MADE)
def test_an_image_that_a_table_makes(table, number, tmp_path):
    """What the table says of it, not what nibabel reads."""
    makes, given = next(itertools.islice(TABLES[table]().obj_params(), number, None))
    path = tmp_path / "image.nii"
    makes().to_filename(path)
    compare(records_of(path), given["affine"], given["data"])
