"""Every image of nibabel's test data, and every one that its test tables describe or make, is read by medjax to the same values,
affine and voxel size; or medjax refuses it in one line, which is the reason why the test does not apply."""

import gzip
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.tests import test_image_api as api

from in_peer.readers import on_axes, read, refusal

PACKAGE = Path(nibabel.__file__).parent
FILES = sorted(p for p in (PACKAGE / "tests" / "data").iterdir()
               if p.suffix.lower() not in (".py", ".rst", ".m", "") and p.is_file())
SCANS = sorted((PACKAGE / "nicom" / "tests" / "data").glob("*.dcm*"))
TABLES = {name: table() for name, table in vars(api).items()
          if name.startswith("Test") and issubclass(table, api.LoadImageAPI)}
EXAMPLES = [(name, Path(given["fname"]).name, given) for name, table in TABLES.items() for given in table.example_images]
MADE = [(name, number) for name, table in TABLES.items() if table.can_save and hasattr(table, "example_shapes")
        for number, _ in enumerate(table.obj_params())]


def records_of(path):
    """What medjax reads; a refusal, of one line, ends the test as one that does not apply."""
    try:
        return read(path)
    except ValueError as error:
        line = str(error)
        assert "\n" not in line
        assert line.startswith(str(path))
        pytest.skip(refusal(error, path))


def compare(found, affine, shape, values, rtol=1e-6):
    """Frame by frame. `values` is `(*shape)`, or None where the table says no more than their extremes."""
    space = (*shape, 1, 1)[:3]
    frames = [on_axes(record, affine, space) for record in found]
    assert len(frames) == int(np.prod(shape[3:])) or np.asarray(values).dtype.names or frames[0][0].shape[-1] > 1
    stacked = np.stack([frame for frame, _ in frames], -1)[..., 0, :]
    if values is not None:
        np.testing.assert_allclose(stacked.reshape(shape), values, rtol=1e-6, atol=0)
    for record, (_, own) in zip(found, frames, strict=True):
        if own is not None:
            np.testing.assert_allclose(own, affine, rtol=rtol, atol=10 * rtol)
        lengths = [float(np.linalg.norm(affine[:3, axis])) for axis in range(3)
                   if space[axis] > 1 or len(record["spacing"]) == 3]
        assert sorted(record["spacing"]) == pytest.approx(sorted(lengths), rel=rtol)
    return stacked


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file(path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = nibabel.load(path)
            affine, values = image.affine, np.asanyarray(image.dataobj)
    except Exception:  # what nibabel can't read medjax reads in another way, or refuses
        records_of(path)
        pytest.skip("nibabel itself does not read it as an image")
    compare(records_of(path), affine, image.shape, values)


@pytest.mark.parametrize("path", SCANS, ids=lambda path: path.name)
def test_a_dicom_file(path, tmp_path):
    """Its reader's affine counts to the left and to the back, as DICOM does. A single slice stays as its file has it."""
    nicom = pytest.importorskip("nibabel.nicom.dicomreaders")
    plain = tmp_path / path.name.removesuffix(".gz")
    plain.write_bytes(gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes())
    try:
        scan = nicom.wrapper_from_file(plain)
        values, affine = scan.get_data(), nicom.DPCS_TO_TAL @ scan.affine
    except Exception as error:
        records_of(plain)
        pytest.skip(f"nibabel itself does not read it: {error}")
    found = records_of(plain)
    if values.ndim > 2:
        compare(found, affine, values.shape, values, rtol=2e-5)
    else:
        np.testing.assert_allclose(found[0]["image"][..., 0] * found[0]["slope"] + found[0]["intercept"], values, rtol=1e-6)
        assert found[0]["spacing"] == pytest.approx(np.linalg.norm(affine[:3, :2], axis=0), rel=2e-5)


@pytest.mark.parametrize(("table", "name", "given"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else "")
def test_an_example(table, name, given):
    """What the table says of a file, not what nibabel reads."""
    found = records_of(Path(given["fname"]))
    values = compare(found, given["affine"], given["shape"], None)
    for key, of in (("min", np.min), ("max", np.max), ("mean", np.mean)):
        assert of(values) == pytest.approx(given["data_summary"][key], rel=1e-4)


@pytest.mark.parametrize(("table", "number"), MADE)
def test_an_image_that_a_table_makes(table, number, tmp_path):
    makes, given = list(TABLES[table].obj_params())[number]
    image = makes()
    path = tmp_path / f"image{TABLES[table].standard_extension}"
    image.to_filename(path)
    stored = nibabel.load(path)  # Analyze keeps no origin
    compare(records_of(path), stored.affine, given["shape"], given["data"])


