"""DICOM out: what is kept, files and their names, other sizes, values and colours."""

import copy
import shutil

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from medjax.data import io
from medjax.data.formats import dicom
from medjax.data.geometry import resized
from medjax.data.write import write
from medjax.types import Record, UserError
from tests.dicom_files import SIZE, changed, doppler, image, rewritten, siemens_mosaic, slices, united_mosaic
from tests.records import only, study, units


def corners(record: Record) -> np.ndarray:
    """Outer corners of a volume in mm."""
    shape = np.array(record.image.shape[:-1])
    return np.stack([record.affine[:3] @ [*(c * shape - 0.5), 1] for c in np.ndindex(2, 2, 2)])


@pytest.fixture(scope="module")
def series(test_data):
    return {name: only(test_data / "dicom" / name) for name in ("ct_regular_3slice", "mr_t1w_head")}


@pytest.mark.parametrize("name", ["ct_regular_3slice", "mr_t1w_head"])
def test_derived_series_keeps_pixels_geometry_and_patient(test_data, tmp_path, name):
    source = study(test_data / "dicom" / name)
    (record,) = source.read()
    write(tmp_path / "out", [units(record)], source)
    back = only(tmp_path / "out")
    np.testing.assert_array_equal(back.image, record.image)
    np.testing.assert_allclose(back.affine, record.affine)
    files = sorted(p.name for p in (test_data / "dicom" / name).iterdir())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == files
    old, new = ([pydicom.dcmread(folder / f) for f in files] for folder in (test_data / "dicom" / name, tmp_path / "out"))
    assert len({h.SOPInstanceUID for h in new + old}) == 2 * len(files)
    assert len({h.SeriesInstanceUID for h in new}) == 1
    for before, after in zip(old, new, strict=True):
        np.testing.assert_array_equal(after.pixel_array, before.pixel_array)  # padding too
        assert after.SeriesInstanceUID != before.SeriesInstanceUID
        assert after.StudyInstanceUID == before.StudyInstanceUID
        assert after.PatientID == before.PatientID
        assert after.ImageType[0] == "DERIVED"
        assert after.SeriesDescription.endswith("medjax")
        assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
        assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
        same = ("RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        assert [after.get(tag) for tag in same] == [before.get(tag) for tag in same]
    with pytest.raises(UserError, match="is there already"):
        write(tmp_path / "out", [units(record)], source)


@pytest.mark.parametrize("factor", [(1, 2, 2), (2, 1, 1), (2, 2, 2)])
def test_an_enlarged_series_keeps_its_field_of_view(test_data, tmp_path, factor):
    (tmp_path / "in").mkdir()
    for path in sorted((test_data / "dicom" / "mr_t1w_head").iterdir())[:4]:
        shutil.copy(path, tmp_path / "in")
    source = study(tmp_path / "in")
    (record,) = source.read()
    large = units(record)
    for axis, times in enumerate(factor):
        large = np.repeat(large, times, axis)
    write(tmp_path / "out", [large], source)
    back = only(tmp_path / "out")
    np.testing.assert_array_equal(units(back), large)
    np.testing.assert_allclose(corners(back), corners(record), atol=0.02)
    np.testing.assert_allclose(back.affine, resized(record.affine, record.image.shape[:3], large.shape[:3]), atol=0.02)


@pytest.mark.parametrize("name", ["CT_small", "MR_small_bigendian", "MR_small_RLE", "eCT_Supplemental", "emri_small",
                                  "rtdose", "examples_palette", "SC_ybr_full_422_uncompressed", "image_dfl"])
def test_single_files_come_back(test_data, tmp_path, name):
    source = study(test_data / "dicom" / "single" / f"{name}.dcm")
    records = source.read()
    write(tmp_path / "out.dcm", [units(r) for r in records], source)
    back = io.read(tmp_path / "out.dcm")
    for before, after in zip(records, back, strict=True):
        np.testing.assert_array_equal(after.image, before.image)
        assert (after.slope, after.intercept, after.spacing_mm) == (before.slope, before.intercept, before.spacing_mm)


def test_segmentations_are_not_written(test_data, tmp_path):
    source = study(test_data / "dicom" / "single" / "liver_1frame.dcm")
    with pytest.raises(UserError, match="can't be written back"):
        write(tmp_path / "out.dcm", [units(r) for r in source.read()], source)
    assert list(tmp_path.iterdir()) == []


# Files


def test_no_file_takes_the_place_of_another(tmp_path):
    """Two frames of 4 slices, twice as many slices each: 16 files."""
    slices(tmp_path / "in", range(4), 0, EchoNumbers=1)
    slices(tmp_path / "in", range(4), 100, EchoNumbers=2)
    source = study(tmp_path / "in")
    large = [np.repeat(units(r), 2, 0) for r in source.read()]
    write(tmp_path / "out", large, source)
    headers = [pydicom.dcmread(path) for path in (tmp_path / "out").iterdir()]
    assert len(headers) == 16
    assert len({header.InstanceNumber for header in headers}) == 16
    for expected, record in zip(large, io.read(tmp_path / "out"), strict=True):
        np.testing.assert_array_equal(units(record), expected)
        assert record.spacing_mm == (0.5, 2.0, 3.0)


def test_a_long_cine_does_not_copy_its_header_for_each_frame(tmp_path, monkeypatch):
    frames = np.arange(60, dtype=np.uint16)[:, None, None] * np.ones(SIZE, np.uint16)
    dataset = image(frames[0], z=None, NumberOfFrames=60)
    dataset.PixelData = frames.tobytes()
    dataset.save_as(tmp_path / "cine.dcm", enforce_file_format=True)
    copies = []
    monkeypatch.setattr(copy, "deepcopy", lambda value, memo=None, real=copy.deepcopy: copies.append(
        isinstance(value, Dataset) and "SOPInstanceUID" in value) or real(value, memo))
    (back,) = rewritten(tmp_path / "cine.dcm", tmp_path / "out.dcm")
    assert sum(copies) <= 1
    np.testing.assert_array_equal(back.pixel_array, frames)


def test_a_mosaic_goes_back_as_it_came(tmp_path):
    united = united_mosaic(tmp_path, np.arange(17 * 64, dtype=np.uint16).reshape(17, 8, 8), 5)
    for source in (siemens_mosaic(tmp_path, 1000), united):
        before, (after,) = pydicom.dcmread(source), rewritten(source, tmp_path / f"out_{source.name}")
        np.testing.assert_array_equal(after.pixel_array, before.pixel_array)
        np.testing.assert_array_equal(units(only(tmp_path / f"out_{source.name}")), units(only(source)))
        large = np.repeat(np.repeat(units(only(source)), 2, 1), 2, 2)
        with pytest.raises(UserError, match="a mosaic can't be written in another size"):
            dicom.write(tmp_path / "large.dcm", [large], [source])


def test_results_of_one_series_are_one_series(tmp_path):
    for number in range(3):
        dataset = image(np.arange(48, dtype=np.uint16).reshape(SIZE), z=None)
        dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "again").mkdir()
    uids = {folder: {rewritten(tmp_path / f"{number}.dcm", tmp_path / folder / f"{number}.dcm")[0].SeriesInstanceUID
                     for number in range(3)} for folder in ("out", "again")}
    assert [len(found) for found in uids.values()] == [1, 1]
    assert uids["out"] != uids["again"]


def test_a_header_that_cannot_be_written_is_one_line(tmp_path):
    """An attribute whose type is not that of its value."""
    (path,) = slices(tmp_path, [0])
    data = path.read_bytes()
    at = data.index(b"\x08\x00\x08\x00CS")
    path.write_bytes(data[:at + 4] + b"SS" + data[at + 6:])
    with pytest.raises(UserError) as caught:
        dicom.write(tmp_path / "b.dcm", [np.zeros((*SIZE, 1))], [path])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


# Size


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"])
def test_distances_measure_right_without_a_place(tmp_path, keyword):
    dataset = image(np.arange(48, dtype=np.uint16).reshape(SIZE), z=None, **{"PixelSpacing": None, keyword: [0.2, 0.3]})
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    (large,) = rewritten(tmp_path / "a.dcm", tmp_path / "b.dcm", 2)
    assert (large.Rows, large.Columns) == (12, 16)
    np.testing.assert_allclose([float(v) for v in large[keyword].value], [0.1, 0.15])
    assert only(tmp_path / "b.dcm").spacing_mm == (0.1, 0.15)


def test_distances_in_an_ultrasound_region_measure_right(test_data, tmp_path):
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMaxX1 = 10, 109
    region.RegionLocationMinY0, region.RegionLocationMaxY1 = 20, 219
    region.PhysicalDeltaX, region.PhysicalDeltaY, region.ReferencePixelX0, region.ReferencePixelY0 = 0.04, 0.05, 50, 0
    changed(test_data / "ultrasound" / "US1_UNCR.dcm", tmp_path / "a.dcm", SequenceOfUltrasoundRegions=[region])
    (large,) = rewritten(tmp_path / "a.dcm", tmp_path / "b.dcm", 2)
    (found,) = large.SequenceOfUltrasoundRegions
    assert (found.RegionLocationMinX0, found.RegionLocationMaxX1) == (20, 219)
    assert (found.RegionLocationMinY0, found.RegionLocationMaxY1) == (40, 439)
    assert (found.PhysicalDeltaX, found.PhysicalDeltaY, found.ReferencePixelX0) == (0.02, 0.025, 100)


@pytest.mark.parametrize("name", ["eCT_Supplemental", "rtdose", "emri_small"])
def test_a_multi_frame_file_grows_in_plane(test_data, tmp_path, name):
    source = test_data / "dicom" / "single" / f"{name}.dcm"
    rewritten(source, tmp_path / "b.dcm", 2)
    for before, after in zip(io.read(source), io.read(tmp_path / "b.dcm"), strict=True):
        assert after.image.shape[-3:-1] == (2 * before.image.shape[-3], 2 * before.image.shape[-2])
        if before.affine is not None:
            np.testing.assert_allclose(corners(after), corners(before), atol=1e-3)


def test_a_multi_frame_file_keeps_its_count_of_slices(test_data, tmp_path):
    source = study(test_data / "dicom" / "single" / "rtdose.dcm")
    with pytest.raises(UserError, match="can't be written with another count of slices: 30, not 15"):
        write(tmp_path / "b.dcm", [np.repeat(units(r), 2, 0) for r in source.read()], source)


def test_an_uneven_series_keeps_its_count_of_slices(tmp_path):
    files = slices(tmp_path / "in", [0, 1, 2.3, 4.1])
    (record,) = dicom.read(files, "a", "s")
    with pytest.raises(UserError, match="unevenly spaced, so 8 slices in place of 4 have no places"):
        dicom.write(tmp_path / "out", [np.repeat(units(record), 2, 0)], files)


def test_overlays_and_shutters_in_pixels_go_with_the_size(tmp_path):
    dataset = image(np.arange(48, dtype=np.uint16).reshape(SIZE), ShutterShape="RECTANGULAR", ShutterLeftVerticalEdge=1)
    dataset.add_new(0x60000010, "US", 6)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert 0x60000010 in rewritten(tmp_path / "a.dcm", tmp_path / "same.dcm")[0]
    (large,) = rewritten(tmp_path / "a.dcm", tmp_path / "large.dcm", 2)
    assert 0x60000010 not in large
    assert "ShutterShape" not in large


# Values


def test_what_is_clipped_does_not_become_padding(tmp_path):
    pixels = np.array([[0, 0, 500, 600], [0, 24, 700, 65000]], np.uint16)
    image(pixels, PixelPaddingValue=0, RescaleSlope=1, RescaleIntercept=-1024, Modality="CT").save_as(
        tmp_path / "a.dcm", enforce_file_format=True)
    record = only(tmp_path / "a.dcm")
    result = units(record)
    result[1, 1] = -1200  # noise below what unsigned numbers hold
    result[1, 2] = -1024
    dicom.write(tmp_path / "b.dcm", [result], [tmp_path / "a.dcm"])
    stored = pydicom.dcmread(tmp_path / "b.dcm").pixel_array
    np.testing.assert_array_equal(stored, [[0, 0, 500, 600], [0, 1, 1, 65000]])
    np.testing.assert_array_equal(only(tmp_path / "b.dcm").extras["mask"], record.extras["mask"])


def test_coloured_marks_keep_their_colour(tmp_path):
    rgb = doppler(tmp_path / "a.dcm")
    record = only(tmp_path / "a.dcm")
    assert record.image.shape == (50, 50, 1)
    dicom.write(tmp_path / "same.dcm", [units(record)], [tmp_path / "a.dcm"])
    assert np.abs(pydicom.dcmread(tmp_path / "same.dcm").pixel_array.astype(int) - rgb).max() <= 1
    dicom.write(tmp_path / "lighter.dcm", [units(record) + 10], [tmp_path / "a.dcm"])
    lighter = pydicom.dcmread(tmp_path / "lighter.dcm").pixel_array.astype(int)
    assert np.abs(lighter - np.clip(rgb.astype(int) + 10, 0, 255)).max() <= 1
    dicom.write(tmp_path / "large.dcm", [np.repeat(np.repeat(units(record), 2, 0), 2, 1)], [tmp_path / "a.dcm"])
    large = pydicom.dcmread(tmp_path / "large.dcm").pixel_array.astype(int)
    assert (large[24:26, 24:36, 0] - large[24:26, 24:36, 1]).min() > 150
    assert np.abs(large[60:, 60:] - np.repeat(np.repeat(rgb, 2, 0), 2, 1)[60:, 60:].astype(int)).max() <= 1


def test_a_grey_result_keeps_the_colours_of_a_coloured_source(test_data, tmp_path):
    source = test_data / "dicom" / "single" / "SC_ybr_full_422_uncompressed.dcm"
    (record,) = dicom.read([source], "a", "s")
    assert record.image.shape[-1] == 3
    grey = record.image.astype(float) @ [[0.299], [0.587], [0.114]]
    dicom.write(tmp_path / "a.dcm", [grey], [source])
    assert np.abs(pydicom.dcmread(tmp_path / "a.dcm").pixel_array.astype(int) - record.image).max() <= 1


def test_colours_of_16_bits_keep_them(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 65535, (6, 8, 3)).astype(np.uint16)
    dataset = image(rgb[..., 0], SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    dataset.PixelData = rgb.tobytes()
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(rewritten(tmp_path / "a.dcm", tmp_path / "b.dcm")[0].pixel_array, rgb)


def test_more_channels_than_the_source_are_refused(tmp_path):
    (path,) = slices(tmp_path, [0])
    with pytest.raises(UserError, match="has 1 channels, the result has 4"):
        dicom.write(tmp_path / "b.dcm", [np.zeros((*SIZE, 4))], [path])
