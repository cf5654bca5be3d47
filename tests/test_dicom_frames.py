"""Which DICOM images make a volume, and which are frames beside each other: by what headers say and by place."""


import numpy as np
import pytest
from pydicom.dataset import Dataset

from medjax.data import io
from medjax.types import Record
from tests.dicom_files import SIZE, image, slices
from tests.records import error_of, only


def numbers_of(record: Record) -> list[int]:
    """The value of each slice, from feet to head."""
    assert (record.image == record.image[:, :1, :1]).all()
    return record.image[:, 0, 0, 0].tolist()


# Frames


def test_echoes_are_frames_of_their_own_whatever_the_files_are_called(tmp_path):
    slices(tmp_path, range(5), 100, EchoNumbers=2, EchoTime=80)
    slices(tmp_path, range(5), 0, EchoNumbers=1, EchoTime=20)
    assert [numbers_of(record) for record in io.read(tmp_path)] == [[0, 1, 2, 3, 4], [100, 101, 102, 103, 104]]


def b_value_of_siemens(dataset: Dataset, value: int) -> None:
    dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", value)


@pytest.mark.parametrize("apart", ["TemporalPositionIdentifier", "DiffusionBValue", "AcquisitionNumber", "ImageType",
                                   "EchoTime", "InstanceNumber", "Siemens' b-value"])
def test_what_tells_frames_apart(tmp_path, apart):
    """Instance numbers that run over the slices first, and names in no order: neither gives the frames away."""
    values = {"ImageType": (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])}.get(apart, (3, 5))
    for frame in (0, 1):
        for z in range(4):
            tags = {} if apart in ("InstanceNumber", "Siemens' b-value") else {apart: values[frame]}
            instance = 2 * z + frame + 1 if z % 2 == 0 or apart == "InstanceNumber" else 2 * z + 2 - frame
            dataset = image(np.full(SIZE, 10 * frame + z, np.uint16), z, **{"InstanceNumber": instance, **tags})
            if apart == "Siemens' b-value":
                b_value_of_siemens(dataset, (0, 1000)[frame])
            dataset.save_as(tmp_path / f"{dataset.SOPInstanceUID[-12:]}.dcm", enforce_file_format=True)
    assert [numbers_of(record) for record in io.read(tmp_path)] == [[0, 1, 2, 3], [10, 11, 12, 13]]


def test_acquisitions_that_count_slices_are_one_volume(tmp_path):
    for z in range(4):
        slices(tmp_path, [z], z, AcquisitionNumber=z + 1, TemporalPositionIdentifier=z + 1,
               ImageType=["ORIGINAL", "PRIMARY", "AXIAL", *(["ADD"] if z < 2 else [])])
    assert numbers_of(only(tmp_path)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("apart", "label"), [
    ("EchoNumbers", "echo 2"), ("TemporalPositionIdentifier", "temporal position 2"), ("DiffusionBValue", "b-value 2"),
    ("AcquisitionNumber", "acquisition 2")])
def test_a_frame_that_lacks_a_slice_is_refused(tmp_path, apart, label):
    slices(tmp_path, range(5), 0, **{apart: 1})
    slices(tmp_path, [0, 1, 3, 4], 100, **{apart: 2})
    assert f"{label} lacks 1 of 5 slices: at (-10.00, -20.00, 2.00) mm" in error_of(tmp_path)


def test_echoes_that_share_no_slice_are_no_volume(tmp_path):
    slices(tmp_path, [0, 2, 4], 0, EchoNumbers=1)
    slices(tmp_path, [1, 3, 5], 10, EchoNumbers=2)
    assert "lacks 3 of 6 slices" in error_of(tmp_path)


def test_images_that_nothing_tells_apart_are_refused(tmp_path):
    slices(tmp_path, range(4), 0)
    slices(tmp_path, range(4), 0)
    assert "tells them apart" in error_of(tmp_path)


def test_a_repeated_image_among_single_ones_is_refused(tmp_path):
    slices(tmp_path, range(4), 0)
    slices(tmp_path, [2], 50)
    assert "has 1 image at most places, but 2 at (-10.00, -20.00, 2.00) mm" in error_of(tmp_path)


# Places


@pytest.mark.parametrize(("heights", "said"), [
    ([0, 1, 2, 4, 5, 6], "1 slice is missing: 1 after (-10.00, -20.00, 2.00) mm (regular gaps are 1.000 mm)"),
    ([0, 2.5, 10, 12.5, 15, 20, 22.5],
     "3 slices are missing: 2 after (-10.00, -20.00, 2.50) mm, 1 after (-10.00, -20.00, 15.00)"),
    ([0, 1, 3], "1 slice is missing"),
])
def test_holes_are_refused(tmp_path, heights, said):
    slices(tmp_path, heights)
    assert said in error_of(tmp_path)


def test_two_thicknesses_are_no_hole(tmp_path, caplog):
    for z in (0, 5, 10, 15, 20):
        slices(tmp_path, [z], z, SliceThickness=5.0)
    for z in (27.5, 37.5, 47.5):
        slices(tmp_path, [z], int(z), SliceThickness=10.0)
    record = only(tmp_path)
    assert numbers_of(record) == [0, 5, 10, 15, 20, 27, 37, 47]
    np.testing.assert_allclose(record.extras["slice_positions_mm"][:, 2], [0, 5, 10, 15, 20, 27.5, 37.5, 47.5])
    assert "slice gaps range from 5.000 to 10.000 mm" in caplog.text


def test_slices_a_few_micrometres_apart_are_slices(tmp_path):
    slices(tmp_path, [0, 0.004, 0.008, 0.012], PixelSpacing=[0.005, 0.005], SliceThickness=0.004)
    record = only(tmp_path)
    assert record.image.shape[0] == 4
    np.testing.assert_allclose(record.spacing_mm[0], 0.004)


def test_places_that_differ_by_rounding_are_one_and_that_is_said(tmp_path, caplog):
    slices(tmp_path, range(4), 0, EchoNumbers=1)
    slices(tmp_path, np.arange(4) + 0.004, 10, EchoNumbers=2)
    assert [numbers_of(record) for record in io.read(tmp_path)] == [[0, 1, 2, 3], [10, 11, 12, 13]]
    assert "up to 0.004 mm apart are taken as one place" in caplog.text


def test_jitter_of_directions_does_not_split_a_series(tmp_path):
    for z in range(4):
        turn = 0.0003 + 0.0004 * (z % 2)  # either side of half a thousandth
        slices(tmp_path, [z], z, ImageOrientationPatient=[1, turn, 0, -turn, 1, 0])
    assert numbers_of(only(tmp_path)) == [0, 1, 2, 3]


def test_a_slice_beside_the_others_is_refused(tmp_path):
    slices(tmp_path, [0, 1, 3], 0)
    slices(tmp_path, [2], 9, ImagePositionPatient=[30.0, -20.0, 2.0])
    assert "40.00 mm beside the line" in error_of(tmp_path)


def test_a_constant_slice_stays_in_its_volume(tmp_path):
    for z in range(4):
        pixels = np.arange(48, dtype=np.uint16).reshape(SIZE) if z > 1 else np.zeros(SIZE, np.uint16)
        image(pixels, z, InstanceNumber=z).save_as(tmp_path / f"{z}.dcm", enforce_file_format=True)
    assert only(tmp_path).image.max((1, 2, 3)).tolist() == [0, 0, 47, 47]
