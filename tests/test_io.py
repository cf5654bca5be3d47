"""Files in and files out, against nibabel, pydicom and Pillow."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from medjax.data import io
from medjax.data.formats import nifti
from medjax.data.write import write, write_labels
from medjax.types import Record, UserError
from tests.records import error_of, only, study, units

NIFTI = ["CT_pitch.nii.gz", "chris_PD.nii.gz", "chris_MRA.nii.gz", "stroke_T2.nii.gz", "pcasl.nii.gz", "fmri_pitch.nii.gz",
         "nibabel_anatomical.nii", "nibabel_functional.nii", "nibabel_example4d.nii.gz", "nibabel_example_nifti2.nii.gz",
         "nibabel_reoriented_anat_moved.nii", "nibabel_standard.nii.gz"]


# NIfTI


@pytest.mark.parametrize("name", NIFTI)
def test_nifti_agrees_with_nibabel(test_data, name):
    oracle = nibabel.as_closest_canonical(nibabel.load(test_data / "nifti" / name))
    values = oracle.get_fdata().reshape(*oracle.shape[:3], -1)
    records = io.read(test_data / "nifti" / name)
    assert len(records) == values.shape[-1]
    assert len({r.id for r in records}) == len(records)
    assert len({r.subject for r in records}) == 1
    for record, frame in zip(records, np.moveaxis(values, -1, 0), strict=True):
        np.testing.assert_allclose(units(record)[..., 0], frame.T, rtol=1e-6)
        np.testing.assert_allclose(record.affine, oracle.affine[:, [2, 1, 0, 3]], atol=1e-4)
        np.testing.assert_allclose(record.spacing_mm, oracle.header.get_zooms()[2::-1], rtol=1e-4)
        assert record.image.dtype.isnative
        assert record.image.dtype == nibabel.load(test_data / "nifti" / name).get_data_dtype().newbyteorder("=")


@pytest.mark.parametrize("name", NIFTI)
def test_nifti_comes_back_as_it_was(test_data, tmp_path, name):
    source = study(test_data / "nifti" / name)
    write(tmp_path / name, [units(r) for r in source.read()], source)
    before, after = (nibabel.load(folder / name) for folder in (test_data / "nifti", tmp_path))
    assert {key for key in before.header if before.header[key].tobytes() != after.header[key].tobytes()} == set()
    assert before.header.endianness == after.header.endianness
    np.testing.assert_array_equal(np.asanyarray(after.dataobj), np.asanyarray(before.dataobj))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 1, 30), (1, 20, 30)])
def test_a_single_slice_is_two_dimensional_and_comes_back(tmp_path, shape):
    values = np.random.default_rng(0).integers(0, 9, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, -3.0, 4.0, 1.0])), tmp_path / "slice.nii")
    record = only(tmp_path / "slice.nii")
    assert record.image.ndim == 3
    assert sorted(record.image.shape) == [1, 20, 30]
    source = study(tmp_path / "slice.nii")
    write(tmp_path / "back.nii", [units(record)], source)
    np.testing.assert_array_equal(np.asanyarray(nibabel.load(tmp_path / "back.nii").dataobj), values)


def test_nifti_colour(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    coloured = values.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(coloured, np.eye(4)), tmp_path / "rgb.nii")
    record = only(tmp_path / "rgb.nii")
    np.testing.assert_array_equal(record.image, values.transpose(2, 1, 0, 3))
    write(tmp_path / "back.nii", [units(record)], study(tmp_path / "rgb.nii"))
    np.testing.assert_array_equal(only(tmp_path / "back.nii").image, record.image)


def test_alpha_of_a_colour_is_kept(tmp_path):
    kind = [("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")]
    values = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 4)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(values.view(kind)[..., 0], np.eye(4)), tmp_path / "rgba.nii")
    record = only(tmp_path / "rgba.nii")
    assert record.image.shape == (6, 5, 4, 3)
    write(tmp_path / "back.nii", [255 - units(record)], study(tmp_path / "rgba.nii"))
    back = np.asanyarray(nibabel.load(tmp_path / "back.nii").dataobj)
    np.testing.assert_array_equal(np.stack([back[name] for name in "RGB"], -1), 255 - values[..., :3])
    np.testing.assert_array_equal(back["A"], values[..., 3])
    write(tmp_path / "large.nii", [np.repeat(units(record), 2, 0)], study(tmp_path / "rgba.nii"))
    assert (np.asanyarray(nibabel.load(tmp_path / "large.nii").dataobj)["A"] == 255).all()
    nibabel.save(nibabel.Nifti1Image(values[..., 0], np.eye(4)), tmp_path / "grey.nii")
    source = study(tmp_path / "grey.nii")
    with pytest.raises(UserError, match="2 channels"):
        write(tmp_path / "two.nii", [np.zeros((6, 5, 4, 2))], source)


@pytest.mark.parametrize(("unit", "mm"), [("micron", 1e-3), ("meter", 1e3), ("mm", 1.0), ("unknown", 1.0)])
def test_the_unit_of_length_counts(tmp_path, unit, mm):
    file = nibabel.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.diag([2.0, 3.0, 4.0, 1.0]))
    file.header.set_xyzt_units(unit)
    nibabel.save(file, tmp_path / "a.nii")
    record = only(tmp_path / "a.nii")
    np.testing.assert_allclose(record.spacing_mm, [4 * mm, 3 * mm, 2 * mm])
    np.testing.assert_allclose(np.diag(record.affine[[2, 1, 0, 3]]), [4 * mm, 3 * mm, 2 * mm, 1])
    write(tmp_path / "large.nii", [np.repeat(units(record), 2, 0)], study(tmp_path / "a.nii"))
    large = nibabel.load(tmp_path / "large.nii")
    np.testing.assert_allclose(large.header.get_zooms(), [2, 3, 2])
    assert large.header.get_xyzt_units()[0] == unit
    np.testing.assert_allclose(corners(only(tmp_path / "large.nii")), corners(record), atol=1e-6 * mm)


@pytest.mark.parametrize(("stored", "inside"), [
    (np.float64, np.float32), (np.int64, np.int32), (np.uint64, np.int32), (np.uint16, np.uint16), (np.float16, np.float32),
    (bool, np.uint8)])
def test_wide_numbers_become_what_devices_take(tmp_path, stored, inside):
    values = np.arange(60).reshape(4, 5, 3).astype(stored)
    np.save(tmp_path / "a.npy", values)
    record = only(tmp_path / "a.npy")
    assert record.image.dtype == inside
    np.testing.assert_array_equal(record.image, values)
    write(tmp_path / "b.npy", [units(record)], study(tmp_path / "a.npy"))
    assert np.load(tmp_path / "b.npy").dtype == stored
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), values)


def test_whole_numbers_beyond_32_bits_are_exact_or_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[3_000_000_000, 2**32 - 1]]))
    assert only(tmp_path / "a.npy").image.ravel().tolist() == [3_000_000_000, 2**32 - 1]
    np.save(tmp_path / "b.npy", np.array([[2**40, -(2**33)]]))
    assert only(tmp_path / "b.npy").image.ravel().tolist() == [2**40, -(2**33)]
    np.save(tmp_path / "c.npy", np.array([[2**40 + 1, 0]]))
    assert "whole numbers from 0 to 1099511627777, which 32 bits can't hold" in error_of(tmp_path / "c.npy")
    np.save(tmp_path / "d.npy", np.array([[1e300, 0]]))
    assert "beyond float32" in error_of(tmp_path / "d.npy")
    np.save(tmp_path / "e.npy", np.array([[2**62, 0]]))
    write(tmp_path / "f.npy", [np.full((1, 2, 1), 1e30)], study(tmp_path / "e.npy"))
    assert np.load(tmp_path / "f.npy").min() > 2**62  # clipped, and not wrapped round


def test_units_are_exact_for_what_is_stored():
    record = Record(np.array([[[70_000_001], [-5]]], np.int32), "a", "a", slope=0.5, intercept=-35_000_000.0)
    np.testing.assert_array_equal(record.in_units(), np.array([[[0.5], [-35_000_002.5]]], np.float32))
    assert record.in_units((0, 1)).tolist() == [np.float32(-35_000_002.5)]
    assert record.in_units().dtype == np.float32
    assert Record(np.ones((2, 2, 1), np.float32), "a", "a").in_units(slice(0, 1)).shape == (1, 2, 1)


def test_an_enlarged_nifti_keeps_its_field_of_view(test_data, tmp_path):
    source = study(test_data / "nifti" / "nibabel_anatomical.nii")
    (record,) = source.read()
    large = np.repeat(np.repeat(units(record), 2, 0), 3, 2)
    write(tmp_path / "large.nii", [large], source)
    back = only(tmp_path / "large.nii")
    np.testing.assert_array_equal(units(back), large)
    np.testing.assert_allclose(corners(back), corners(record), atol=1e-3)


def corners(record: Record) -> np.ndarray:
    """Outer corners of a volume in mm."""
    shape = np.array(record.image.shape[:-1])
    return np.stack([record.affine[:3] @ [*(c * shape - 0.5), 1] for c in np.ndindex(2, 2, 2)])


def test_images_and_vectors_in_the_geometry_of_a_record(tmp_path):
    """A vector that leads from one voxel to another does so in the file's millimetres too."""
    affine = np.array([[0, -2.0, 0.6, 5], [1.5, 0, 0, -7], [0, 0.4, 3, 2], [0, 0, 0, 1]])
    stored = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "a.nii")
    record = only(tmp_path / "a.nii")
    values = np.random.default_rng(0).normal(size=(*record.image.shape[:-1], 1)).astype(np.float32)
    nifti.write_image(tmp_path / "b.nii.gz", values, record)
    back = only(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(back.image, values)
    np.testing.assert_allclose(back.affine, record.affine, atol=1e-5)
    nifti.write_image(tmp_path / "large.nii.gz", np.repeat(values, 2, 1), record)
    np.testing.assert_allclose(corners(only(tmp_path / "large.nii.gz")), corners(record), atol=1e-4)
    steps = np.array([1, 2, -1])  # voxels along z, y, x
    field = np.broadcast_to(steps * record.spacing_mm, (*record.image.shape[:-1], 3))
    nifti.write_vectors(tmp_path / "c.nii.gz", field, record)
    file = nibabel.load(tmp_path / "c.nii.gz")
    assert (file.shape, file.header.get_intent()[0]) == ((*record.image.shape[2::-1], 1, 3), "vector")
    lps = [-1, -1, 1] * (record.affine[:3, :3] @ steps)
    np.testing.assert_allclose(np.asanyarray(file.dataobj)[1, 2, 3, 0], lps, atol=1e-5)
    flat = Record(np.zeros((4, 6, 1)), "a", "a", spacing_mm=(0.5, 2.0))
    nifti.write_image(tmp_path / "d.nii.gz", np.arange(24.0).reshape(4, 6, 1), flat)
    np.testing.assert_array_equal(only(tmp_path / "d.nii.gz").image[..., 0], np.arange(24).reshape(4, 6))
    assert only(tmp_path / "d.nii.gz").spacing_mm == (0.5, 2.0)
    nifti.write_vectors(tmp_path / "e.nii.gz", np.broadcast_to([3.0, 7.0], (4, 6, 2)), flat)
    assert np.asanyarray(nibabel.load(tmp_path / "e.nii.gz").dataobj)[0, 0, 0, 0].tolist() == [-7, -3]


# Pictures and arrays


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16"])
def test_grey_in_any_coat_has_one_channel(tmp_path, mode):
    deep = mode == "I;16"
    values = np.random.default_rng(0).integers(0, 2**16 if deep else 256, (12, 17)).astype(np.uint16 if deep else np.uint8)
    picture = Image.fromarray(values) if deep else Image.fromarray(values).convert(mode)
    picture.save(tmp_path / "a.png")
    record = only(tmp_path / "a.png")
    assert record.image.shape == (12, 17, 1)
    if mode != "1":
        np.testing.assert_array_equal(record.image[..., 0], values)
        write(tmp_path / "b.png", [units(record)], study(tmp_path / "a.png"))
        np.testing.assert_array_equal(only(tmp_path / "b.png").image, record.image)
        with Image.open(tmp_path / "b.png") as back:
            assert back.mode == (mode if mode != "P" else "L")


def test_colour_stays(test_data):
    record = only(next((test_data / "endoscopy").glob("*.png")))
    assert record.image.shape == (280, 280, 3)


def test_radiographs_are_grey_but_for_the_tinted(test_data):
    found = io.discover(test_data / "xray" / "images")
    assert len(found) == 68
    small = [study for study in found if study.paths[0].stat().st_size < 95_000]
    shapes = {study.paths[0].name: study.read()[0].image.shape[-1] for study in small}
    assert sorted(name for name, channels in shapes.items() if channels == 3) == [
        f"41182_2020_203_Fig{n}_HTML.jpg" for n in (3, 4, 5)]


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3), (6, 7, 9), (5, 6, 7, 2)])
def test_arrays_come_back(tmp_path, shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    record = only(tmp_path / "a.npy")
    assert record.ndim == (3 if shape in ((6, 7, 9), (5, 6, 7, 2)) else 2)
    write(tmp_path / "b.npy", [record.image], study(tmp_path / "a.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), values)


def test_integers_are_rounded_and_clipped(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2), np.uint8))
    write(tmp_path / "b.npy", [np.array([[-3.0, 0.6], [254.4, 300.0]])[..., None]], study(tmp_path / "a.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), [[0, 1], [254, 255]])


@pytest.mark.parametrize("suffix", [".npy", ".nii.gz", ".png"])
def test_label_maps_lie_on_the_grid_of_the_source(tmp_path, suffix):
    random = np.random.default_rng(0)
    if suffix == ".nii.gz":
        affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 2], [0, 0, 0, 1]])
        nibabel.save(nibabel.Nifti1Image(random.normal(size=(6, 5, 4)).astype(np.float32), affine), tmp_path / "a.nii.gz")
    elif suffix == ".png":
        Image.fromarray(random.integers(0, 255, (7, 8, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    else:
        np.save(tmp_path / "a.npy", random.normal(size=(6, 7)))
    source = study(tmp_path / f"a{suffix}")
    (record,) = source.read()
    labels = random.integers(0, 3, record.image.shape[:-1]).astype(np.uint8)
    write_labels(tmp_path / f"b{suffix}", [labels], ["background", "lung", "tumour"], source)
    back = only(tmp_path / f"b{suffix}")
    assert back.image.dtype == np.uint8
    np.testing.assert_array_equal(back.image[..., 0], labels)
    np.testing.assert_array_equal(back.affine, record.affine)
    with pytest.raises(UserError, match="up to 2; give uint8 below 2, the number of classes"):
        write_labels(tmp_path / f"c{suffix}", [labels], ["background", "lung"], source)
    if suffix == ".png":
        assert Image.open(tmp_path / "b.png").text["labels"] == '["background", "lung", "tumour"]'
        with pytest.raises(UserError, match="JPEG would change the labels"):
            write_labels(tmp_path / "b.jpg", [labels], ["background", "lung", "tumour"], source)
    if suffix == ".nii.gz":
        header = nibabel.load(tmp_path / "b.nii.gz").header
        assert header.get_intent()[0] == "label"
        assert "tumour" in str(header.extensions[0].get_content())
    assert not (tmp_path / f"c{suffix}").exists()


def test_the_format_is_kept(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2), np.uint8))
    with pytest.raises(UserError, match=r"b\.nii: the format is kept; give a name that ends in \.npy"):
        write(tmp_path / "b.nii", [np.zeros((2, 2, 1))], study(tmp_path / "a.npy"))
    Image.fromarray(np.full((4, 4), 70, np.uint8)).save(tmp_path / "a.jpg")
    write(tmp_path / "a.png", [np.full((4, 4, 1), 71.0)], study(tmp_path / "a.jpg"))
    with Image.open(tmp_path / "a.png") as picture:  # the name says what is inside
        assert (picture.format, picture.getpixel((0, 0))) == ("PNG", 71)


def test_nothing_is_written_of_a_result_that_is_no_number(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(UserError, match="nothing was written"):
        write(tmp_path / "b.npy", [np.full((2, 2, 1), np.nan)], study(tmp_path / "a.npy"))
    assert not (tmp_path / "b.npy").exists()


# Whose image it is


def test_subjects(test_data, tmp_path):
    assert {s.subject for s in io.discover(test_data / "dicom" / "mr_t1w_head")} == {"02"}
    by_index = {s.paths[0].name: s.subject for s in io.discover(test_data / "xray" / "images")}
    assert len(set(by_index.values())) == 39
    assert by_index["41182_2020_203_Fig5_HTML.jpg"] == by_index["41182_2020_203_Fig4_HTML.jpg"] == "331b"
    folder = tmp_path / "sub-07" / "anat"
    folder.mkdir(parents=True)
    for name in ("sub-07_run-1_T1w.npy", "sub-07_run-2_T1w.npy"):
        np.save(folder / name, np.eye(4))
    np.save(tmp_path / "other.npy", np.eye(4))
    found = {s.id: s.subject for s in io.discover(tmp_path)}
    assert found == {"other": "other", "sub-07/anat/sub-07_run-1_T1w": "sub-07", "sub-07/anat/sub-07_run-2_T1w": "sub-07"}
    table = tmp_path / "who.csv"
    table.write_text("filename,patientid\nother.npy,P1\nsub-07_run-1_T1w.npy,P1\nsub-07_run-2_T1w.npy,P2\n")
    assert [s.subject for s in io.discover(tmp_path, table)] == ["P1", "P1", "P2"]
    table.write_text("filename,patientid\nother.npy,P1\n")
    with pytest.raises(UserError, match=r"no row for sub-07_run-1_T1w\.npy"):
        io.discover(tmp_path, table)
    table.write_text("file,who\nother.npy,P1\n")
    with pytest.raises(UserError, match="columns filename and patientid"):
        io.discover(tmp_path, table)


def test_a_folder_of_many_series(test_data):
    found = io.discover(test_data / "dicom")
    assert {"ct_ge_head", "ct_regular_3slice", "mr_t1w_head", "single/CT_small"} <= {s.id for s in found}
    assert len({s.id for s in found}) == len(found)
    assert next(s for s in found if s.id == "ct_ge_head").place.as_posix() == "ct_ge_head"


def test_damaged_exif_data_around_the_orientation_is_no_remark(tmp_path, recwarn):
    """Upside down (274 is 3), and a text that goes on beyond the end of the data."""
    entries = b"\x02\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\x0f\x01\x02\0\xff\xff\0\0\x1a\0\0\0\0\0\0\0abc"
    stored = np.repeat(np.arange(0, 256, 32, np.uint8), 8).reshape(8, 8)
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0" + entries)
    np.testing.assert_allclose(only(tmp_path / "a.jpg").image[..., 0], stored[::-1, ::-1], atol=3)
    assert not recwarn.list


def test_a_byte_that_differs_from_the_checksum_is_damage(tmp_path):
    """Behind the last voxel stands the checksum, which nibabel's reader doesn't come to."""
    path = tmp_path / "a.nii.gz"
    nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 999, (40, 40, 40), np.int16), np.eye(4)).to_filename(path)
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"a\.nii\.gz: damaged NIfTI file: [^\n]*; copy it again from its source$"):
        io.read(path)
