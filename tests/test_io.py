"""Files in and files out, against nibabel, pydicom and Pillow."""

import gzip

import nibabel
import numpy as np
import pytest
from PIL import Image

from medjax.data import io
from medjax.data.write import write
from medjax.types import Record, UserError

NIFTI = ["CT_pitch.nii.gz", "chris_PD.nii.gz", "chris_MRA.nii.gz", "stroke_T2.nii.gz", "pcasl.nii.gz", "fmri_pitch.nii.gz",
         "nibabel_anatomical.nii", "nibabel_functional.nii", "nibabel_example4d.nii.gz", "nibabel_example_nifti2.nii.gz",
         "nibabel_reoriented_anat_moved.nii", "nibabel_standard.nii.gz"]


def units(record: Record) -> np.ndarray:
    return record.image.astype(np.float64) * record.slope + record.intercept


def only(path) -> Record:
    (record,) = io.read(path)
    return record


def study(path) -> io.Study:
    (found,) = io.discover(path)
    return found


def error_of(path) -> str:
    with pytest.raises(UserError) as caught:
        io.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


@pytest.mark.parametrize(("stored", "inside"), [(np.float64, np.float32), (np.int64, np.int32), (np.uint16, np.uint16)])
def test_wide_numbers_become_what_devices_take(tmp_path, stored, inside):
    np.save(tmp_path / "a.npy", np.arange(60).reshape(4, 5, 3).astype(stored))
    record = only(tmp_path / "a.npy")
    assert record.image.dtype == inside
    np.testing.assert_array_equal(record.image.ravel(), np.arange(60))


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


# What is wrong

DAMAGED = {
    "DICOMDIR": "lists no file that is there", "ExplVR_BigEndNoMeta.dcm": "no image",
    "MR_truncated.dcm": "less than expected", "badVR.dcm": "NumberOfFrames is '1A'", "no_meta.dcm": "no DICOM file",
    "meta_missing_tsyntax.dcm": "no image", "empty_charset_LEI.dcm": "no image",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "no image", "reportsi.dcm": "no image", "rtplan.dcm": "no image",
    "rtplan_truncated.dcm": "no image", "nifti1.hdr": "no reader", "analyze.hdr": "no reader",
    "row_major.dconn.nii": "Cifti2", "minc2_baddim.mnc": "no reader", "truncated_gzip.nii.gz": "damaged",
    "truncated_payload.nii": "damaged", "empty.nii.gz": "Empty file", "text_renamed.nii": "no NIfTI",
    "negative_dim.nii": "(33, -41, 25)", "nan_inf.nii.gz": "65 of 33825 values are NaN or infinite",
    "truncated_header.dcm": "no image", "png_renamed.dcm": "no DICOM file",
}
SOUND = {"MR_small_padded.dcm": (64, 64, 1), "J2K_pixelrep_mismatch.dcm": (512, 512, 1),
         "slicethickness_empty_string.dcm": (384, 384, 1), "all_zero.nii.gz": (8, 16, 16, 1)}


def test_every_bad_file_is_known(test_data):
    compressed = {"bad_sequence.dcm"}  # sound where its decoder is installed
    assert {p.name for p in (test_data / "badinput").iterdir()} == DAMAGED.keys() | SOUND.keys() | compressed


@pytest.mark.parametrize("name", DAMAGED)
def test_bad_files_give_one_clear_line(test_data, name):
    said = error_of(test_data / "badinput" / name)
    assert name in said
    assert DAMAGED[name] in said


@pytest.mark.parametrize("name", SOUND)
def test_odd_files_are_read(test_data, name, caplog):
    assert only(test_data / "badinput" / name).image.shape == SOUND[name]
    assert ("everywhere" in caplog.text) == (name == "all_zero.nii.gz")


def test_missing_empty_and_unknown(tmp_path):
    assert "no such file or folder" in error_of(tmp_path / "nothing.nii.gz")
    assert "no images below" in error_of(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert "no images below" in error_of(tmp_path)
    assert "no reader for this kind" in error_of(tmp_path / "notes.txt")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    assert "objects.npy" in error_of(tmp_path / "objects.npy")
    np.save(tmp_path / "kspace.npy", np.zeros((4, 4), np.complex64))
    assert "complex" in error_of(tmp_path / "kspace.npy")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    assert "damaged or no image" in error_of(tmp_path / "cut.png")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.complex64), np.eye(4)), tmp_path / "c.nii")
    assert "complex" in error_of(tmp_path / "c.nii")


def test_any_cut_of_a_compressed_file_is_one_line(test_data, tmp_path):
    whole = (test_data / "nifti" / "nibabel_example4d.nii.gz").read_bytes()
    for size in np.random.default_rng(0).integers(0, len(whole) - 1, 20):
        (tmp_path / "cut.nii.gz").write_bytes(whole[:size])
        assert "cut.nii.gz" in error_of(tmp_path / "cut.nii.gz")
    raw = gzip.decompress(whole)
    for size in (0, 100, 348, 352, 5000):
        (tmp_path / "cut.nii").write_bytes(raw[:size])
        assert "cut.nii" in error_of(tmp_path / "cut.nii")


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
