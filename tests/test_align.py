"""Scans of a head that moved between them: the motion that is found is the one that was made; files through the command."""

import ast
import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medjax.classical.rigid import resample, rigid
from medjax.data.sources.icbm152 import Icbm152
from medjax.data.sources.multicontrast import MultiContrast
from tests.commands import command


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, np.ndarray]:
    """The template at 2 mm, `(z, y, x)`, and its affine."""
    (record,) = Icbm152().load()
    return record.image[::2, ::2, ::2, 0].astype(np.float32), record.affine @ np.diag([2.0, 2.0, 2.0, 1.0])


def motion(degrees, shift_mm, centre) -> np.ndarray:
    """x -> Rz Ry Rx (x - centre) + centre + shift, from the textbook's matrices."""
    x, y, z = np.radians(degrees)
    about_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    about_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    about_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    turn = np.array(about_z) @ about_y @ about_x
    return np.block([[turn, (centre + np.array(shift_mm) - turn @ centre)[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])


def world(affine: np.ndarray, *at: np.ndarray) -> list[np.ndarray]:
    return list(np.tensordot(affine[:3, :3], np.stack(at), 1) + affine[:3, 3].reshape(3, *[1] * at[0].ndim))


def scanned(head, moved_by, affine, shape) -> np.ndarray:
    """What a scan of another contrast with that grid shows of the head after the motion, with noise: 0 … 1."""
    image, head_affine = head
    at = world(np.linalg.inv(moved_by @ head_affine), *world(affine, *np.indices(shape, float)))
    values = ndimage.map_coordinates(ndimage.gaussian_filter(image, 0.5), at, order=1) / 255
    other = np.where(values > 0.05, (1 - values) ** 2 + 0.1 * np.sin(9 * values), 0)
    return other + np.random.default_rng(0).normal(0, 0.03, shape)


def centre_of(head) -> np.ndarray:
    return np.ravel(world(head[1], *((np.array(head[0].shape)[:, None] - 1) / 2)))


def scanner(moved_by) -> np.ndarray:
    """The affine of a scan that shows the same of the head after the motion: slices of 2.4 mm, oblique to the head's."""
    slices = np.array([[0, 0, 1.5, -90], [0, 1.5, 0, -120], [2.4, 0, 0, -70], [0, 0, 0, 1.0]])
    return moved_by @ motion((12, -5, 7), (0, 0, 0), np.zeros(3)) @ slices


SHAPE = (62, 140, 120)


def miss_mm(head, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How far from each other two motions bring each voxel of the brain."""
    brain = world(head[1], *(part.astype(float) for part in np.nonzero(head[0] > 25)))
    return np.linalg.norm(np.subtract(world(found, *brain), world(truth, *brain)), axis=0)


@pytest.mark.slow
def test_a_head_on_another_table_is_found(head, monkeypatch):
    """Another contrast and other voxels, 76 mm and 21 degrees away; without the finest level, for time."""
    monkeypatch.setattr("medjax.classical.rigid.LEVELS", {8.0: 5000, 4.0: 20000})
    degrees, shift_mm = (4.0, -6.0, 21.0), (-65.0, 30.0, 40.0)
    truth = motion(degrees, shift_mm, centre_of(head))
    found = rigid(*head, scanned(head, truth, scanner(truth), SHAPE), scanner(truth))
    np.testing.assert_allclose(found.degrees, degrees, atol=0.7)
    np.testing.assert_allclose(found.shift_mm, shift_mm, atol=0.7)
    assert miss_mm(head, found.matrix, truth).max() < 1
    assert 1 < found.nmi[0] < found.nmi[1] < 2


def test_resampling_is_linear_and_lowest_where_there_is_nothing():
    volume = np.random.default_rng(0).normal(size=(5, 6, 7))
    affine, fixed = np.diag([2.0, 1.0, 3.0, 1.0]), np.diag([1.0, 1.0, 1.0, 1.0])
    matrix = motion((0, 0, 0), (1.0, 0.5, -3.0), np.zeros(3))
    made = resample(volume, affine, (4, 4, 4), fixed, matrix)
    np.testing.assert_allclose(made[0, 2, 3], volume[0:2, 2:4, 0].mean(), atol=1e-6)
    np.testing.assert_allclose(made[1, 2, 0:3], np.float32(volume.min()))


def align(fixed: Path, moving: Path, output: Path) -> tuple[int, str, str]:
    return command("-m", "medjax.align", f"--fixed={fixed}", f"--moving={moving}", f"--output={output}")


@pytest.mark.slow
def test_files_come_onto_the_grid_of_the_fixed_one_ready_for_training(head, tmp_path):
    degrees, shift_mm = (-9.0, 0.5, -1.5), (1.0, 2.0, 8.0)
    truth = motion(degrees, shift_mm, centre_of(head))
    moving, affine = scanned(head, truth, scanner(truth), SHAPE), scanner(truth)
    to_file = np.diag([-1.0, 1, 1, 1])[[2, 1, 0, 3]]  # stored as x, y, z with x towards the left
    to_file[2, 3] = head[0].shape[2] - 1
    fixed = nibabel.Nifti1Image(head[0].transpose(2, 1, 0)[::-1].astype(np.uint8), head[1] @ to_file)
    fixed.to_filename(tmp_path / "a_T1.nii.gz")
    scan = nibabel.Nifti1Image(np.rint(moving * 4000).astype(np.int16), affine)
    scan.header.set_slope_inter(0.5, -100.0)
    scan.to_filename(tmp_path / "scan.nii")
    output = tmp_path / "a_PD.nii.gz"
    code, out, err = align(tmp_path / "a_T1.nii.gz", tmp_path / "scan.nii", output)
    assert code == 0, err

    made = nibabel.load(output)
    assert made.shape == fixed.shape
    np.testing.assert_allclose(made.affine, fixed.affine, atol=1e-5)
    assert (made.get_data_dtype(), made.dataobj.slope, made.dataobj.inter) == (np.int16, 0.5, -100.0)
    best = resample(moving * 2000 - 100, affine, fixed.shape, fixed.affine, truth)
    brain = np.asarray(fixed.dataobj) > 25
    assert np.corrcoef(made.get_fdata()[brain], best[brain])[0, 1] > 0.97
    with Image.open(tmp_path / "a_PD.png") as shown:
        assert min(shown.size) > 500
        assert np.asarray(shown.convert("L")).std() > 20

    rows = {line.split()[0]: [float(word) for word in line.split()[2:]] for line in out.splitlines() if line[:1] in "rt"}
    np.testing.assert_allclose(rows["rotation,"], degrees, atol=0.5)
    np.testing.assert_allclose(rows["translation,"], shift_mm, atol=0.5)
    assert miss_mm(head, motion(rows["rotation,"], rows["translation,"], centre_of(head)), truth).max() < 0.6
    words = dict(word.split("=", 1) for word in shlex.split(out.splitlines()[-1]) if word.startswith("--config.data"))
    source = MultiContrast(words["--config.data.source.path"], ast.literal_eval(words["--config.data.source.contrasts"]))
    (record,) = source.load()
    assert record.contrasts == ("T1", "PD")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_PD.nii.gz", "a_PD.png", "a_T1.nii.gz", "scan.nii"]


@pytest.mark.parametrize(("moving", "says"), [
    (np.zeros((9, 8, 7), np.uint8), "moving.nii: has one value everywhere; there is nothing to align"),
    (np.arange(9 * 8 * 7 * 2.0).reshape(9, 8, 7, 2), "moving.nii: holds several frames or colours; give one volume"),
], ids=["flat", "series"])
def test_what_cannot_be_aligned_is_said_in_one_line(tmp_path, moving, says):
    nibabel.Nifti1Image(np.arange(504, dtype=np.int16).reshape(9, 8, 7), np.eye(4)).to_filename(tmp_path / "fixed.nii")
    nibabel.Nifti1Image(moving, np.eye(4)).to_filename(tmp_path / "moving.nii")
    code, out, err = align(tmp_path / "fixed.nii", tmp_path / "moving.nii", tmp_path / "out.nii")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"error: {tmp_path}/{says}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fixed.nii", "moving.nii"]


@pytest.mark.slow
def test_a_part_of_a_head_finds_its_place_and_the_head_the_part(head, monkeypatch):
    """The points are those of the smaller scan, whichever is fixed; a seed gives one result."""
    monkeypatch.setattr("medjax.classical.rigid.LEVELS", {8.0: 2000})
    image, affine = head
    part, corner = image[20:60, 30:90, 20:80], affine.copy()
    corner[:3, 3] = np.ravel(world(affine, *np.array([[20.0], [30.0], [20.0]]))) + [4.0, -3.0, 6.0]  # it moved
    into, back = rigid(part, corner, image, affine), rigid(image, affine, part, corner)
    np.testing.assert_allclose(into.shift_mm, [-4.0, 3.0, -6.0], atol=1)
    np.testing.assert_allclose(into.matrix @ back.matrix, np.eye(4), atol=1e-4)
    assert rigid(part, corner, image, affine) == into
    assert rigid(part, corner, image, affine, seed=1) != into
