"""DICOM in, against pydicom and NiBabel: geometry, values, mosaics, and what is refused."""

import io as streams
import logging
import shutil
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import MPEG2MPML

from medjax.data import io
from medjax.data.formats import dicom
from medjax.data.sources.files import Files
from tests.dicom_files import PYDICOM, SIZE, changed, enhanced, image, siemens_mosaic, slices, united_mosaic
from tests.records import error_of, only, units


@pytest.fixture(scope="module")
def series(test_data):
    return {name: only(test_data / "dicom" / name) for name in ("ct_regular_3slice", "mr_t1w_head")}


@pytest.mark.parametrize("name", ["ct_regular_3slice", "mr_t1w_head"])
def test_series_places_every_pixel_where_its_header_says(test_data, series, name):
    record = series[name]
    random = np.random.default_rng(0)
    inverse = np.linalg.inv(record.affine)
    for path in sorted((test_data / "dicom" / name).iterdir())[::7]:
        header = pydicom.dcmread(path)
        hu = pydicom.pixels.apply_rescale(header.pixel_array, header)
        along_row, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        for row, column in random.integers(0, min(hu.shape), (20, 2)):
            lps = np.array(header.ImagePositionPatient, float) + (
                down * row * header.PixelSpacing[0] + along_row * column * header.PixelSpacing[1])
            index = (inverse @ [-lps[0], -lps[1], lps[2], 1])[:3]
            np.testing.assert_allclose(index, np.round(index), atol=0.01)
            z, y, x = np.round(index).astype(int)
            if header.pixel_array[row, column] != header.get("PixelPaddingValue"):
                assert units(record)[z, y, x, 0] == hu[row, column]
            else:
                assert not record.extras["mask"][z, y, x, 0]


def test_ct_is_in_hu_and_its_padding_is_masked_and_filled_with_air(series):
    record = series["ct_regular_3slice"]
    assert record.modality == "CT"
    assert record.image.dtype == np.int16
    assert units(record).min() == -1024
    assert 0.7 < record.extras["mask"].mean() < 0.8
    assert units(record)[record.extras["mask"]].max() == 2405 - 1024


def test_irregular_and_tilted_series_is_said_and_kept(test_data, caplog):
    with caplog.at_level(logging.WARNING):
        record = only(test_data / "dicom" / "ct_ge_head")
    (said,) = [r.getMessage() for r in caplog.records]
    assert "1.081 to 6.999 mm" in said
    assert "18.5 degrees" in said
    places = record.extras["slice_positions_mm"]
    assert places.shape == (28, 3)
    gaps = np.diff(places @ np.array([0, 0.3173047, 0.9483237]))
    np.testing.assert_allclose(np.unique(np.abs(gaps).round(2)), [1.08, 4.0, 7.0], atol=0.011)
    headers = sorted((pydicom.dcmread(p) for p in (test_data / "dicom" / "ct_ge_head").iterdir()),
                     key=lambda h: float(h.ImagePositionPatient[2]))
    for z, header in enumerate(headers):
        np.testing.assert_allclose(places[z], np.array(header.ImagePositionPatient, float) * [-1, -1, 1])
        inside = record.extras["mask"][z, ..., 0]
        np.testing.assert_array_equal(record.image[z, ..., 0][inside], header.pixel_array[::-1, ::-1][inside])


def test_unequal_gaps_are_said_again_of_what_lies_in_the_cache(tmp_path, caplog):
    slices(tmp_path / "in", [0, 1, 2.5])
    for said in ("slice gaps range from 1.000 to 1.500 mm", "1 of 1 volumes in the cache have unequal slice gaps"):
        caplog.clear()
        Files(str(tmp_path / "in"), cache=str(tmp_path / "cache")).load()
        assert [said in record.getMessage() for record in caplog.records] == [True]


def test_sorting_is_by_place_not_by_file_name(test_data, series, tmp_path):
    files = sorted((test_data / "dicom" / "mr_t1w_head").iterdir())
    for number, path in enumerate(np.random.default_rng(0).permutation(files)):
        shutil.copy(path, tmp_path / f"{number:03d}")  # no suffix either
    np.testing.assert_array_equal(only(tmp_path).image, series["mr_t1w_head"].image)


def test_transfer_syntaxes_agree(test_data):
    folder = test_data / "dicom" / "single"
    reference = only(folder / "MR_small.dcm")
    np.testing.assert_array_equal(reference.image[..., 0], pydicom.dcmread(folder / "MR_small.dcm").pixel_array)
    for name in ("implicit", "bigendian", "RLE", "jp2klossless", "jpeg_ls_lossless"):
        np.testing.assert_array_equal(only(folder / f"MR_small_{name}.dcm").image, reference.image)


def test_a_stream_that_ends_gdcm_ends_no_more_than_it(tmp_path):
    """JPEG Lossless, which GDCM alone decodes: a sound file, one that makes it abort, and the sound one again."""
    gdcm = pytest.importorskip("gdcm")
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(PYDICOM / "MR_small.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "sound.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    data = bytearray((tmp_path / "sound.dcm").read_bytes())
    stream = data.index(b"\xff\xd8\xff\xc3")
    data[stream + 15], data[stream + 75] = 145, 14
    (tmp_path / "damaged.dcm").write_bytes(data)
    reference = only(PYDICOM / "MR_small.dcm").image
    np.testing.assert_array_equal(only(tmp_path / "sound.dcm").image, reference)
    assert "its pixels can't be decoded: GDCM comes to no end" in error_of(tmp_path / "damaged.dcm")
    np.testing.assert_array_equal(only(tmp_path / "sound.dcm").image, reference)


def test_multiframe_and_other_modalities(test_data):
    folder = test_data / "dicom" / "single"
    ct = only(folder / "eCT_Supplemental.dcm")
    assert (ct.image.shape, ct.slope, ct.intercept) == ((2, 512, 512, 1), 1.0, -1024.0)  # from the functional groups
    assert len(io.read(folder / "emri_small.dcm")) == 10
    dose = only(folder / "rtdose.dcm")
    assert dose.image.shape == (15, 10, 10, 1)
    np.testing.assert_allclose(units(dose).max(), 1.254)
    assert only(folder / "decimal_rescale.dcm").slope == 2
    assert only(folder / "liver_1frame.dcm").modality == "SEG"
    assert only(folder / "SC_ybr_full_422_uncompressed.dcm").image.shape == (100, 100, 3)
    assert only(folder / "examples_palette.dcm").image.shape == (350, 800, 3)
    assert len(io.read(test_data / "ultrasound" / "examples_ybr_color.dcm")) == 30


def test_slices_with_scales_of_their_own_come_in_units(test_data, tmp_path):
    for number, path in enumerate(sorted((test_data / "dicom" / "ct_regular_3slice").iterdir())):
        header = pydicom.dcmread(path)
        header.RescaleSlope = number + 1
        header.save_as(tmp_path / path.name)
    record = only(tmp_path)
    assert (record.image.dtype, record.slope, record.intercept) == (np.float32, 1.0, 0.0)
    stored = sorted((pydicom.dcmread(p) for p in tmp_path.iterdir()), key=lambda h: h.ImagePositionPatient[2])
    for z, header in enumerate(stored):
        inside = record.extras["mask"][z, ..., 0]
        hu = pydicom.pixels.apply_rescale(header.pixel_array, header)[::-1, ::-1]
        np.testing.assert_array_equal(record.image[z, ..., 0][inside], hu[inside])


def test_inverted_radiograph_is_turned(test_data, tmp_path):
    header = pydicom.dcmread(test_data / "dicom" / "single" / "image_dfl.dcm")
    header.PhotometricInterpretation, header.Modality = "MONOCHROME1", "DX"
    header.save_as(tmp_path / "dx.dcm")
    np.testing.assert_array_equal(units(only(tmp_path / "dx.dcm"))[..., 0], 255 - header.pixel_array.astype(int))


# Mosaics


@pytest.mark.parametrize("made", [siemens_mosaic, enhanced])
def test_mosaics_and_enhanced_files_agree_with_nibabel(tmp_path, made):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom import dicomwrappers
        oracle = dicomwrappers.wrapper_from_file(made(tmp_path))
        expected, affine = oracle.get_unscaled_data(), np.diag([-1.0, -1, 1, 1]) @ oracle.affine
    record = only(next(tmp_path.iterdir()))
    assert sorted(record.image.shape[:3]) == sorted(expected.shape)
    inverse = np.linalg.inv(record.affine)
    for index in np.random.default_rng(0).integers(0, expected.shape, (200, 3)):
        place = (inverse @ affine @ [*index, 1])[:3]
        np.testing.assert_allclose(place, np.round(place), atol=1e-3)
        assert record.image[(*np.round(place).astype(int), 0)] == expected[tuple(index)]


def test_a_series_of_mosaics_has_a_frame_for_each(tmp_path):
    for b_value in (1000, 0):
        siemens_mosaic(tmp_path, b_value)
    first, second = io.read(tmp_path)
    assert first.image.shape == second.image.shape == (48, 128, 128, 1)
    assert (first.image.max(), second.image.max()) == (999, 1999)


@pytest.mark.parametrize(("count", "columns"), [(20, 5), (17, 5), (9, 3), (20, 4)])
def test_a_mosaic_of_united_imaging(tmp_path, count, columns):
    volume = np.random.default_rng(0).integers(1, 1000, (count, 8, 8)).astype(np.uint16)
    record = only(united_mosaic(tmp_path, volume, columns))
    assert record.spacing_mm == (4.0, 2.0, 3.0)
    np.testing.assert_array_equal(record.image[..., 0], volume[:, ::-1, ::-1])  # to RAS
    np.testing.assert_allclose(record.affine @ [0, 7, 7, 1], [10, 20, 0, 1])


@pytest.mark.parametrize(("tag", "said"), [((0x0029, 0x1010), "without its Siemens CSA header"),
                                           ((0x0018, 0x0088), "lacks SpacingBetweenSlices")])
def test_a_mosaic_of_unknown_layout_is_refused(tmp_path, tag, said):
    dataset = pydicom.dcmread(siemens_mosaic(tmp_path))
    del dataset[tag]
    dataset.save_as(tmp_path / "cut.dcm")
    assert said in error_of(tmp_path / "cut.dcm")


def test_a_grid_that_does_not_divide_is_refused(tmp_path):
    path = united_mosaic(tmp_path, np.ones((12, 8, 8), np.uint16), 4)
    dataset = pydicom.dcmread(path)
    del dataset[0x0065, 0x1051]
    dataset.save_as(tmp_path / "no_places.dcm")
    assert "without the list of its slices" in error_of(tmp_path / "no_places.dcm")
    dataset = pydicom.dcmread(path)
    dataset[0x0065, 0x1050].value = "11"
    dataset.save_as(tmp_path / "eleven.dcm")
    assert "11 slices that lists the places of 12" in error_of(tmp_path / "eleven.dcm")
    dataset[0x0065, 0x1050].value = "17"
    dataset.save_as(tmp_path / "seventeen.dcm")
    assert "do not divide" in error_of(tmp_path / "seventeen.dcm")


# Values


def test_units(test_data, tmp_path):
    single = test_data / "dicom" / "single"
    assert only(single / "CT_small.dcm").units == "HU"
    assert only(single / "eCT_Supplemental.dcm").units == ""  # RescaleType US, unspecified
    assert only(single / "MR_small.dcm").units == ""
    assert only(changed(single / "CT_small.dcm", tmp_path / "pt.dcm", Modality="PT", Units="BQML")).units == "BQML"
    assert only(changed(single / "CT_small.dcm", tmp_path / "us.dcm", RescaleType="US")).units == ""
    assert only(changed(single / "CT_small.dcm", tmp_path / "hu.dcm", RescaleType="HU")).units == "HU"


def test_padding_of_signed_pixels_written_unsigned(tmp_path):
    dataset = image(np.array([[-2000, 5], [-1000, 7]], np.int16), PixelRepresentation=1)
    dataset.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    record = only(tmp_path / "a.dcm")
    assert record.extras["mask"][..., 0].tolist() == [[False, True], [True, True]]
    assert record.image[..., 0].tolist() == [[-1000, 5], [-1000, 7]]


@pytest.mark.parametrize(("tags", "said"), [
    ({"PixelSpacing": [0, 0.5]}, "PixelSpacing is [0.0, 0.5]"), ({"PixelSpacing": [-1, 1]}, "PixelSpacing is [-1.0, 1.0]"),
    ({"PixelSpacing": [1.0]}, "PixelSpacing is '1.0'"), ({"RescaleSlope": 0}, "RescaleSlope is 0"),
    ({"RescaleSlope": "nan"}, "RescaleSlope is"), ({"RescaleSlope": "inf"}, "RescaleSlope is"),
    ({"RescaleSlope": "1e300"}, "RescaleSlope is 1e+300"), ({"RescaleIntercept": "nan"}, "RescaleIntercept is"),
    ({"Rows": None}, "no image"), ({"Columns": None}, "has no Columns"), ({"Rows": 0}, "Rows is 0"),
    ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "ImageOrientationPatient is [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]"),
    ({"ImagePositionPatient": [1, 2]}, "ImagePositionPatient is [1.0, 2.0]"), ({"SamplesPerPixel": 7}, "PerPixel is 7"),
    ({"PhotometricInterpretation": None}, "has no PhotometricInterpretation"), ({"BitsAllocated": None}, "no BitsAllocated"),
    ({"NumberOfFrames": 4000}, "bytes of pixels, less than expected"),
    ({"Rows": 60000, "Columns": 60000}, "bytes of pixels, less than expected"),
])
def test_impossible_headers_are_one_line(tmp_path, tags, said):
    dataset = image(np.zeros(SIZE, np.uint16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in tags.items():
            if value is None:
                delattr(dataset, keyword)
            elif isinstance(value, str):
                dataset.add(pydicom.DataElement(keyword, "DS", value, validation_mode=pydicom.config.IGNORE))
            else:
                setattr(dataset, keyword, value)
        dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    error = error_of(tmp_path / "a.dcm")
    assert "a.dcm" in error
    assert said in error


def test_a_sequence_without_an_end_does_not_go_on_through_the_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("medjax.data.formats._dicom_header.MAX_READS", 1000)
    dataset = image(np.zeros((400, 400), np.uint16))
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert only(tmp_path / "a.dcm").image.shape == (400, 400, 1)
    data = (tmp_path / "a.dcm").read_bytes()
    pixels = data.index(b"\xe0\x7f\x10\x00OW")
    endless = b"\x29\x00\x10\x00SQ\x00\x00\xff\xff\xff\xff"
    (tmp_path / "a.dcm").write_bytes(data[:pixels] + endless + data[pixels + len(endless):])
    assert "a sequence has no end" in error_of(tmp_path / "a.dcm")


def test_values_without_an_end_are_not_looked_for_to_the_end_of_the_file_again_and_again(tmp_path):
    dataset = image(np.full((400, 400), 0xFFFF, np.uint16))
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    data = (tmp_path / "a.dcm").read_bytes()
    pixels = data.index(b"\xe0\x7f\x10\x00OW")
    (tmp_path / "a.dcm").write_bytes(data[:pixels] + b"\x18\x00\x38\x93" + data[pixels + 12:])
    assert "a sequence has no end" in error_of(tmp_path / "a.dcm")


def test_volumes_need_a_spacing(tmp_path):
    slices(tmp_path, range(3), PixelSpacing=None)
    assert "has no PixelSpacing" in error_of(tmp_path)


def test_a_compressed_claim_beyond_reason_is_refused_before_it_is_allocated(test_data, tmp_path):
    path = changed(test_data / "dicom" / "single" / "MR_small_RLE.dcm", tmp_path / "a.dcm", Rows=60000, Columns=60000)
    assert "its header is damaged" in error_of(path)


def test_the_codes_size_is_held_against_the_headers(test_data, tmp_path):
    path = changed(test_data / "dicom" / "single" / "MR_small_jp2klossless.dcm", tmp_path / "a.dcm", Rows=128)
    assert "holds images of 64 x 64 x 1, but its header says 128 x 64 x 1" in error_of(path)


def test_a_deflated_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("medjax.data.formats._dicom_header.MAX_INFLATED", 1 << 16)
    assert "inflates to more than" in error_of(PYDICOM / "image_dfl.dcm")


@pytest.mark.parametrize(("name", "left", "command"), [
    ("JPEG-lossy.dcm", ("pillow", "gdcm"), "pip install pylibjpeg pylibjpeg-libjpeg (no other reads 12 bits"),
    ("SC_rgb_jpeg_gdcm.dcm", (), "pip install python-gdcm (or"),
    ("MR_small_jpeg_ls_lossless.dcm", (), "pip install pyjpegls")])
def test_a_missing_decoder_is_named_with_its_command(monkeypatch, name, left, command):
    syntax = pydicom.dcmread(PYDICOM / name, stop_before_pixels=True).file_meta.TransferSyntaxUID
    decoders = {plugin: call for plugin, call in get_decoder(syntax)._available.items() if plugin in left}
    monkeypatch.setattr(get_decoder(syntax), "_available", decoders)
    assert f"needs a decoder for {syntax.name} that is not installed; try: {command}" in error_of(PYDICOM / name)


def test_video_is_refused_by_its_name(test_data, tmp_path):
    path = changed(test_data / "dicom" / "single" / "MR_small_RLE.dcm", tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.save_as(path)
    assert "is compressed as MPEG2 Main Profile / Main Level, which is not read" in error_of(path)


def test_files_without_preamble_or_suffix(test_data, tmp_path):
    data = (test_data / "dicom" / "single" / "MR_small_implicit.dcm").read_bytes()
    dataset = pydicom.dcmread(streams.BytesIO(data))
    bare = streams.BytesIO()
    pydicom.dcmwrite(bare, Dataset(dataset), implicit_vr=True, little_endian=True)
    (tmp_path / "bare").write_bytes(bare.getvalue())
    assert dicom.accepts(tmp_path / "bare")
    np.testing.assert_array_equal(only(tmp_path / "bare").image[..., 0], dataset.pixel_array)
    (tmp_path / "notes").write_text("hello")
    (tmp_path / "zeros").write_bytes(bytes(300))
    assert not dicom.accepts(tmp_path / "notes")
    assert not dicom.accepts(tmp_path / "zeros")
