"""Faces are removed from heads: on a drawn head through the command, and in every format by a given place."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medjax.classical.affine import Grid
from medjax.classical.head import SURFACE, find_head
from medjax.classical.rigid import world
from medjax.data.deidentify import Deidentifier
from medjax.data.face import is_face, removal_of
from medjax.data.formats import metaimage, nifti, nrrd
from medjax.data.formats._dicom_blank import Blank
from medjax.data.formats._dicom_deidentify import deidentified
from medjax.data.formats._dicom_profile import Options
from medjax.data.formats._removal import Removal
from medjax.data.head import CORNER_MM, HEAD_MM, brain, drawn_head, templates
from medjax.data.io import discover
from medjax.data.key import Key
from medjax.types import Record, UserError
from tests.commands import command
from tests.dicom_files import image

KEY = Key(b"k" * 32)
EYE, NOSE, MOUTH, CHIN, EAR, CROWN = (33, 75, -38), (0, 112, -65), (0, 88, -90), (0, 85, -110), (75, -25, -45), (0, -15, 90)
REMOVAL = Removal(lambda points: (points[:, 1] > 3) & (points[:, 2] < 4), fill=-7.0)  # places in RAS mm, no head


def head_file(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A drawn head of another size and contrast, turned, with noise: values, affine, and the map to the templates."""
    values = drawn_head()
    values = np.where(values > 0, 1.1 - values, 0) + np.random.default_rng(0).normal(0, 0.02, values.shape)
    inner = np.eye(4)
    inner[:3, :3], inner[:3, 3] = HEAD_MM * np.eye(3), CORNER_MM
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler("xyz", (12, -5, 8), degrees=True).as_matrix() @ np.diag([0.9, 0.88, 0.84])
    moved[:3, 3] = 20, -15, 40
    stored = np.rint(1000 * values).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(stored, moved @ inner), path)
    return stored, moved @ inner, np.linalg.inv(moved)


def test_the_face_is_below_the_brow_and_no_part_of_the_brain():
    assert is_face(np.array([EYE, NOSE, MOUTH, CHIN], float)).all()
    assert not is_face(np.array([EAR, CROWN, (0, -15, -110)], float)).any()
    values, _, corner = brain()
    places = np.argwhere(values > 0) * 2 + corner
    assert not is_face(places).any()
    assert not is_face(places + [0, 0, -6]).any()  # the margin


@pytest.mark.slow
def test_a_head_is_found_where_it_lies(tmp_path):
    """By the template of its kind, to 4 mm anywhere at its surface."""
    stored, place, back = head_file(tmp_path / "person.nii.gz")
    found = find_head([Grid(*templates()[0])], stored.astype(np.float32), place)
    at = world(np.linalg.inv(back), SURFACE)
    assert np.linalg.norm(world(found, at) - SURFACE, axis=1).max() < 4


@pytest.mark.slow
def test_a_face_is_gone_and_the_brain_is_bit_for_bit_there(tmp_path):
    """Of a NIfTI file through the command; what is too small for a head is left out with a line."""
    source = tmp_path / "scans"
    source.mkdir()
    stored, place, back = head_file(source / "person.nii.gz")
    nibabel.save(nibabel.Nifti1Image(stored[:8], place), source / "slab.nii.gz")
    code, said, err = command("-m", "medjax.deidentify", f"--input={source}", f"--output={tmp_path / 'out'}",
                              f"--key={tmp_path / 'key'}", "--deface")
    assert code == 0, err
    left = [line for line in err.splitlines() if "slab" in line]
    assert len(left) == 1
    assert "shows too little of a head" in left[0]
    assert "files with faces removed" in said
    files = list((tmp_path / "out").glob("*.nii.gz"))
    assert len(files) == 1
    result = nibabel.load(files[0])
    np.testing.assert_array_equal(result.affine, place.astype(np.float32))
    found = np.asarray(result.dataobj)
    assert found.dtype == stored.dtype
    places = np.stack(np.indices(stored.shape), -1).reshape(-1, 3) @ place[:3, :3].T + place[:3, 3]
    inner = (places @ back[:3, :3].T + back[:3, 3])
    values, _, corner = brain()
    is_brain = ndimage.map_coordinates(values, ((inner - corner) / 2).T, order=0).reshape(stored.shape) > 0
    np.testing.assert_array_equal(found[is_brain], stored[is_brain])
    for part in (EYE, NOSE, MOUTH, CHIN):
        near = (np.linalg.norm(inner - part, axis=1) < 5).reshape(stored.shape)
        assert near.any()
        assert (found[near] == stored.min()).all(), part
    for part in (EAR, CROWN):
        near = (np.linalg.norm(inner - part, axis=1) < 5).reshape(stored.shape)
        np.testing.assert_array_equal(found[near], stored[near])
    log = json.loads((tmp_path / "out" / "deidentify.json").read_text())
    assert log["deface"] is True
    assert [row["face"] for row in log["files"]] == ["removed"]


def expected(volume: np.ndarray, place: np.ndarray, value: float) -> np.ndarray:
    places = np.stack(np.indices(volume.shape[:3]), -1) @ place[:3, :3].T + place[:3, 3]
    changed = volume.copy()
    changed[(places[..., 1] > 3) & (places[..., 2] < 4)] = value
    assert 0 < (changed != volume).sum() < volume.size
    return changed


@pytest.mark.parametrize("frames", [(), (3,)])
def test_every_frame_of_a_nifti_file_loses_the_same_places(tmp_path, frames):
    volume = np.random.default_rng(1).integers(0, 1000, (6, 7, 5, *frames)).astype(np.int16)
    place = np.array([[0, -2, 0, 9], [1.5, 0, 0, -2], [0, 0, 3, -4], [0, 0, 0, 1]], float)
    file = nibabel.Nifti1Image(volume, place)
    file.header.set_slope_inter(0.5, -100)
    nibabel.save(file, tmp_path / "a.nii")
    nifti.write_bare(tmp_path / "b.nii", tmp_path / "a.nii", REMOVAL)
    result = nibabel.load(tmp_path / "b.nii")
    np.testing.assert_array_equal(result.dataobj.get_unscaled(), expected(nibabel.load(
        tmp_path / "a.nii").dataobj.get_unscaled(), place, (-7 + 100) / 0.5))
    assert (result.dataobj.slope, result.dataobj.inter) == (0.5, -100)
    np.testing.assert_allclose(result.affine, place)


@pytest.mark.parametrize(("module", "suffix"), [(metaimage, ".mha"), (nrrd, ".nrrd")])
def test_places_of_itk_formats(tmp_path, module, suffix):
    volume = np.random.default_rng(2).integers(0, 1000, (6, 7, 5)).astype(np.int16)
    made = SimpleITK.GetImageFromArray(volume.T)
    made.SetSpacing((1.5, 2.0, 3.0))
    made.SetOrigin((4.0, -7.0, -4.0))  # LPS
    SimpleITK.WriteImage(made, str(tmp_path / f"a{suffix}"))
    module.write_bare(tmp_path / f"b{suffix}", tmp_path / f"a{suffix}", REMOVAL)
    result = SimpleITK.ReadImage(str(tmp_path / f"b{suffix}"))
    place = np.array([[-1.5, 0, 0, -4], [0, -2, 0, 7], [0, 0, 3, -4], [0, 0, 0, 1]], float)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(result).T, expected(volume, place, -7))
    assert result.GetOrigin() == made.GetOrigin()
    assert result.GetSpacing() == made.GetSpacing()


def test_places_of_dicom_slices(tmp_path):
    """Rows of 2 mm go to the back (LPS +y); below 4 mm what lies in front of +3 mm is removed, in stored values."""
    for height, changes in ((0.0, True), (10.0, False)):
        pixels = np.random.default_rng(3).integers(0, 1000, (6, 8)).astype(np.uint16)
        dataset = image(pixels, height, RescaleSlope=2, RescaleIntercept=-107, ImagePositionPatient=[-10.0, -8.0, height])
        dataset.save_as(tmp_path / "a.dcm")
        found = deidentified(tmp_path / "a.dcm", KEY, Options(faces=True), Blank(removal=REMOVAL)).dataset
        rows = np.arange(6)
        should = pixels.copy()
        if changes:
            should[8 - 2 * rows > 3] = 50
        np.testing.assert_array_equal(found.pixel_array, should)
        assert found.ImagePositionPatient == [-10.0, -8.0, height]
        assert found.RecognizableVisualFeatures == "NO"
        assert "113102" in [code.CodeValue for code in found.DeidentificationMethodCodeSequence]


def test_what_is_no_volume_of_a_head_is_refused(tmp_path):
    def never(volume, affine):
        raise AssertionError

    with pytest.raises(UserError, match="no volume of CT or MR"):
        removal_of([Record(np.zeros((8, 8, 1), np.float32), "a", "a", spacing_mm=(1.0, 1.0))], never)
    with pytest.raises(UserError, match="one value everywhere"):
        find_head([], np.zeros((20, 20, 20)), np.eye(4))
    work = Deidentifier(tmp_path, tmp_path / "out", KEY, faces={})
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "a.nii")
    work.add(tmp_path / "a.nii", ["a.nii"])
    assert not work.done.rows
    assert "left out" in str(work.done.left_out[0])


@pytest.mark.slow
def test_faces_of_real_scans(test_data):
    """The tip of the nose of one person, whose scans differ in contrast and place; no head: vessels alone, an abdomen."""
    known = [Grid(*template) for template in templates()]

    def found(name: str):
        return removal_of(discover(test_data / name)[0].read(), lambda *scan: find_head(known, *scan))

    removal, tissue = found("nifti/chris_t1.nii.gz")
    assert tissue > 1e4
    for name in ("nifti/chris_MRA.nii.gz", "dicom/ct_regular_3slice", "seg/breast1_image.nrrd"):
        with pytest.raises(UserError, match="head"):
            found(name)
    assert removal.fill == 0
