"""Scans of a head that moved between them: the motion that is found is the one that was made; files through the command."""

import ast
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image
from scipy import ndimage

from medjax.classical.rigid import SHARP, Rigid, resample, rigid
from medjax.data import io
from medjax.data.sources.icbm152 import Icbm152
from medjax.data.sources.multicontrast import MultiContrast
from medjax.data.transform import write_transform
from medjax.report.alignment import next_command, table
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


def test_labels_take_the_nearest_and_background_where_there_is_nothing():
    labels = np.random.default_rng(0).choice([1.0, 7.0, 300.0], (5, 6, 7))
    affine, fixed = np.diag([2.0, 1.0, 3.0, 1.0]), np.diag([1.0, 1.0, 1.0, 1.0])
    matrix = motion((0, 0, 0), (0.9, 0.2, -3.0), np.zeros(3))
    made = resample(labels, affine, (4, 4, 4), fixed, matrix, labels=True)
    assert set(np.unique(made)) <= {0, 1, 7, 300}
    np.testing.assert_array_equal(made[:, :, 3], labels[[0, 1, 1, 2], :4, 0])
    np.testing.assert_array_equal(made[:, :, :2], 0)


def test_the_transform_that_is_written_is_itks(tmp_path):
    """SimpleITK brings the moving file to the same place with it."""
    random = np.random.default_rng(0)
    moving = ndimage.gaussian_filter(random.random((12, 14, 16)), 1.5).astype(np.float32)
    affines = [motion(angles, (0, 0, 0), np.zeros(3)) @ np.diag([*sizes, 1.0]) for angles, sizes in (
        ((12, -5, 7), (2.0, 1.5, 1.0)), ((-4, 9, 3), (1.5, 1.5, 2.0)))]
    centre = np.array([9.0, 10.0, 11.0])
    matrix = motion((5, -8, 12), (1.0, -2.0, 0.5), centre)
    ours = resample(moving, affines[1], (13, 12, 11), affines[0], matrix)
    write_transform(tmp_path / "a.tfm", matrix, centre)
    for name, image, affine in (("moving", moving, affines[1]), ("fixed", ours, affines[0])):
        nibabel.Nifti1Image(image, affine).to_filename(tmp_path / f"{name}.nii")
    files = [SimpleITK.ReadImage(str(tmp_path / f"{name}.nii")) for name in ("moving", "fixed")]
    transform = SimpleITK.ReadTransform(str(tmp_path / "a.tfm"))
    made = SimpleITK.Resample(*files, transform, SimpleITK.sitkLinear, float(moving.min()))
    theirs = SimpleITK.GetArrayFromImage(made).T
    inside = ndimage.binary_erosion(theirs > moving.min(), iterations=2)
    assert inside.sum() > 200
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=1e-4)


FOUND = Rigid((1.0, -2.0, 3.0), (4.0, 5.0, -6.0), (10.0, 20.0, 30.0), (1.05, 1.1), 0.3)


def test_the_table_states_its_axes_and_names_a_poor_fit():
    said = table(FOUND)
    assert "rotation, degrees" in said
    assert "x to the patient's right, y to the front, z to the head (RAS); right-handed rotation about the fixed axes x, " \
           "then y, then z, around the middle of the fixed scan (10.0, 20.0, 30.0)" in said
    assert "mutual information 1.0500, aligned 1.1000, of which a shift of 5 mm loses 30%" in said
    assert "poor fit" not in said
    assert "\npoor fit: " in table(replace(FOUND, sharpness=0.1))


def test_the_next_command_is_in_short_lines_that_a_shell_reads(tmp_path):
    said = next_command(tmp_path / "all scans" / "a b_T1.nii.gz", tmp_path / "all scans" / "a b_O'Neil.nii.gz")
    assert all(line.endswith(" \\") for line in said.splitlines()[:-1])
    assert "    --config.data.source.contrasts='(\"T1\", \"O'\"'\"'Neil\")'" in said
    run = subprocess.run(["bash", "-c", said.replace("python train.py", "printf '%s\\n'")], capture_output=True, text=True,
                         check=True)
    words = dict(line.removeprefix("--").split("=", 1) for line in run.stdout.splitlines())
    assert words["config.data.source.path"] == f"{tmp_path}/all scans/a b_{{contrast}}.nii.gz"
    assert ast.literal_eval(words["config.data.source.contrasts"]) == ("T1", "O'Neil")
    assert ast.literal_eval(words["config.task.source"]) == ("T1",)
    assert words["config.task.target"] == "O'Neil"


def align(fixed: Path, moving: Path, output: Path, *flags: str) -> tuple[int, str, str]:
    return command("-m", "medjax.align", f"--fixed={fixed}", f"--moving={moving}", f"--output={output}", *flags)


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
    regions = (np.indices(moving.shape).sum(0) // 20 % 3).astype(np.uint8)
    nibabel.Nifti1Image(regions, affine).to_filename(tmp_path / "regions.nii")
    output = tmp_path / "a_PD.nii.gz"
    code, out, err = align(tmp_path / "a_T1.nii.gz", tmp_path / "scan.nii", output, f"--labels={tmp_path / 'regions.nii'}")
    assert code == 0, err

    made = nibabel.load(output)
    assert made.shape == fixed.shape
    np.testing.assert_allclose(made.affine, fixed.affine, atol=1e-5)
    assert (made.get_data_dtype(), made.dataobj.slope, made.dataobj.inter) == (np.int16, 0.5, -100.0)
    best = resample(moving * 2000 - 100, affine, fixed.shape, fixed.affine, truth)
    brain = np.asarray(fixed.dataobj) > 25
    assert np.corrcoef(made.get_fdata()[brain], best[brain])[0, 1] > 0.97
    mapped = nibabel.load(tmp_path / "a_PD_labels.nii.gz")
    nearest = resample(regions, affine, fixed.shape, fixed.affine, truth, labels=True)
    assert mapped.get_data_dtype() == np.uint8
    assert (np.asarray(mapped.dataobj) == nearest)[brain].mean() > 0.95
    with Image.open(tmp_path / "a_PD.png") as shown:
        assert min(shown.size) > 500
        assert np.asarray(shown.convert("L")).std() > 20

    rows = {line.split()[0]: [float(word) for word in line.split()[2:]] for line in out.splitlines() if line[:1] in "rt"}
    np.testing.assert_allclose(rows["rotation,"], degrees, atol=0.5)
    np.testing.assert_allclose(rows["translation,"], shift_mm, atol=0.5)
    assert miss_mm(head, motion(rows["rotation,"], rows["translation,"], centre_of(head)), truth).max() < 0.6
    to_lps = np.diag([-1.0, -1.0, 1.0])
    transform = SimpleITK.ReadTransform(str(tmp_path / "a_PD.tfm"))
    for point in np.random.default_rng(0).uniform(-50, 50, (3, 3)):
        itk = to_lps @ transform.TransformPoint((to_lps @ point).tolist())
        np.testing.assert_allclose(itk, np.ravel(world(truth, *point[:, None])), atol=0.6)
    assert "poor fit" not in out
    given = shlex.split(out.partition("next:\n")[2])
    words = dict(word.split("=", 1) for word in given if word.startswith("--config.data"))
    source = MultiContrast(words["--config.data.source.path"], ast.literal_eval(words["--config.data.source.contrasts"]))
    (record,) = source.load()
    assert record.contrasts == ("T1", "PD")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a_PD.nii.gz", "a_PD.png", "a_PD.tfm", "a_PD_labels.nii.gz", "a_T1.nii.gz", "regions.nii", "scan.nii"]


@pytest.mark.slow
def test_scans_of_two_people_are_a_poor_fit(test_data):
    """A T1 and a FLAIR of other people; the FLAIR fits the T1 of its own."""
    own, flair, other = (io.read(test_data / "nifti" / name)[0] for name in (
        "stroke_T1.nii.gz", "stroke_FLAIR.nii.gz", "chris_t1.nii.gz"))
    assert rigid(own.image[..., 0], own.affine, flair.image[..., 0], flair.affine).sharpness > SHARP + 0.1
    assert rigid(other.image[..., 0], other.affine, flair.image[..., 0], flair.affine).sharpness < SHARP - 0.05


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


def test_labels_that_are_none_are_refused_before_the_work(tmp_path):
    volume = np.arange(504, dtype=np.float32).reshape(9, 8, 7) / 2
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "a.nii")
    code, _, err = align(tmp_path / "a.nii", tmp_path / "a.nii", tmp_path / "out.nii", f"--labels={tmp_path / 'a.nii'}")
    assert (code, err) == (2, f"error: {tmp_path / 'a.nii'}: is no label map: it has values that are no whole numbers\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii"]


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
