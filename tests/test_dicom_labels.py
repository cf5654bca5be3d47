"""Label maps as DICOM segmentations, read back by highdicom and pydicom."""

import highdicom
import numpy as np
import pydicom
import pytest

from medjax.data.formats import dicom
from medjax.types import Record, UserError
from tests.dicom_files import PYDICOM, SIZE, WHO, changed, complaints, enhanced, needs_dciodvfy, siemens_mosaic, slices


@pytest.fixture(scope="module")
def series(test_data):
    return {name: dicom.read(sorted((test_data / "dicom" / name).iterdir()), "a", "s")[0]
            for name in ("ct_regular_3slice", "mr_t1w_head")}


def labels_of(record: Record) -> np.ndarray:
    """Three classes by value, so that every slice tells where it is."""
    values = record.image[..., 0] * record.slope + record.intercept
    return np.digitize(values, np.quantile(values, [0.5, 0.9])).astype(np.uint8)


@pytest.mark.parametrize("name", ["ct_regular_3slice", "mr_t1w_head"])
def test_labels_of_a_series_are_a_segmentation(test_data, series, tmp_path, name):
    files = sorted((test_data / "dicom" / name).iterdir())
    (group, _), = dicom.group(files)
    labels = labels_of(series[name])
    dicom.write_labels(tmp_path / "out", [labels], ["background", "tissue", "bone"], group, WHO)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["segmentation.dcm"]
    made = highdicom.seg.segread(tmp_path / "out" / "segmentation.dcm")
    assert [made.get_segment_description(number).segment_label for number in (1, 2)] == ["tissue", "bone"]
    assert made.get_segment_description(1).algorithm_identification.name == "denoise/unet"
    headers = [pydicom.dcmread(path) for path in files]
    order = sorted(headers, key=lambda header: header.InstanceNumber)
    found = made.get_pixels_by_source_instance([header.SOPInstanceUID for header in order], combine_segments=True,
                                               skip_overlap_checks=True, assert_missing_frames_are_empty=True)
    inverse = np.linalg.inv(series[name].affine)
    for header, frame in zip(order, found, strict=True):
        for row, column in np.random.default_rng(0).integers(0, min(frame.shape), (20, 2)):
            along_row, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
            lps = np.array(header.ImagePositionPatient, float) + (
                down * row * header.PixelSpacing[0] + along_row * column * header.PixelSpacing[1])
            index = np.round((inverse @ [-lps[0], -lps[1], lps[2], 1])[:3]).astype(int)
            assert frame[row, column] == labels[tuple(index)]
    plain = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    assert (plain.Modality, plain.SegmentationType) == ("SEG", "BINARY")
    assert plain.StudyInstanceUID == headers[0].StudyInstanceUID
    assert plain.FrameOfReferenceUID == headers[0].FrameOfReferenceUID
    assert plain.ContributingEquipmentSequence[-1].Manufacturer == "medjax"


@pytest.mark.parametrize("name", ["CT_small", "examples_palette", "eCT_Supplemental", "rtdose", "image_dfl"])
def test_labels_of_a_single_file_are_a_segmentation(test_data, tmp_path, name):
    source = test_data / "dicom" / "single" / f"{name}.dcm"
    (record,) = dicom.read([source], "a", "s")
    labels = labels_of(record) if record.image.shape[-1] == 1 else (record.image[..., 0] > 90).astype(np.uint8)
    dicom.write_labels(tmp_path / "out.dcm", [labels], ["background", "tissue", "bone"], [source])
    made = highdicom.seg.segread(tmp_path / "out.dcm")
    pixels = made.get_total_pixel_matrix(combine_segments=True) if made.is_tiled else made.pixel_array
    assert pixels.sum() == (labels == 1).sum() + (labels == 2).sum()
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == pydicom.dcmread(source).SOPInstanceUID
    if record.affine is not None:
        volume = made.get_volume(combine_segments=True, skip_overlap_checks=True)
        assert sorted(volume.array.shape) == sorted(labels.shape)
        assert np.bincount(volume.array.ravel(), minlength=3).tolist() == np.bincount(labels.ravel(), minlength=3).tolist()


def test_labels_of_a_mosaic_lie_where_its_slices_are(tmp_path):
    source = siemens_mosaic(tmp_path)
    (record,) = dicom.read([source], "a", "s")
    labels = (np.arange(48)[:, None, None] == 5) * np.ones((1, 128, 128), np.uint8)
    labels[5, :64] = 0
    dicom.write_labels(tmp_path / "out.dcm", [labels.astype(np.uint8)], ["background", "slab"], [source])
    made = highdicom.seg.segread(tmp_path / "out.dcm")
    (group,) = made.PerFrameFunctionalGroupsSequence
    place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float) * [-1, -1, 1]
    assert np.round(np.linalg.inv(record.affine) @ [*place, 1]).astype(int)[0] == 5


def test_labels_that_do_not_fit_are_refused(tmp_path):
    (path,) = slices(tmp_path, [0])
    with pytest.raises(UserError, match="labels go up to 3, but 2 names were given"):
        dicom.write_labels(tmp_path / "a.dcm", [np.full(SIZE, 3, np.uint8)], ["background", "a"], [path])
    with pytest.raises(UserError, match="can't be laid over"):
        dicom.write_labels(tmp_path / "a.dcm", [np.zeros((5, 5), np.uint8)], ["background", "a"], [path])
    changed(path, tmp_path / "b.dcm", SOPInstanceUID=None)
    with pytest.raises(UserError, match="has no SOPInstanceUID"):
        dicom.write_labels(tmp_path / "a.dcm", [np.ones(SIZE, np.uint8)], ["background", "a"], [tmp_path / "b.dcm"])


@needs_dciodvfy
@pytest.mark.parametrize("made", [
    siemens_mosaic, enhanced, lambda folder: PYDICOM / "CT_small.dcm", lambda folder: PYDICOM / "examples_palette.dcm",
    lambda folder: PYDICOM / "rtdose.dcm"], ids=["mosaic", "enhanced", "CT", "ultrasound", "dose"])
def test_dciodvfy_finds_no_error_that_the_source_did_not_have(tmp_path, made):
    source = made(tmp_path)
    (record,) = dicom.read([source], "a", "s")
    dicom.write_labels(tmp_path / "out.dcm", [labels_of(record)], ["background", "tissue", "bone"], [source], WHO)
    assert complaints(tmp_path / "out.dcm") - complaints(source) == set()
