"""Files that hold no image, too much, or something else: one clear line."""

import gzip
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest
from PIL import Image

from medjax.data.geometry import Orientation
from medjax.data.sources import labelled
from medjax.types import UserError
from tests.records import error_of, only

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


def test_a_header_that_claims_more_than_the_file_can_hold_costs_no_memory(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((1200, 1200, 1200))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    raw = header.binaryblock + bytes(4)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "bomb.nii").write_bytes(raw)
    Image.new("L", (8, 8)).save(tmp_path / "bomb.png")
    sound = (tmp_path / "bomb.png").read_bytes()
    start = sound.index(b"IHDR")
    head = b"IHDR" + (12000).to_bytes(4, "big") * 2 + sound[start + 12:start + 17]
    (tmp_path / "bomb.png").write_bytes(sound[:start] + head + zlib.crc32(head).to_bytes(4, "big") + sound[start + 21:])
    np.save(tmp_path / "bomb.npy", np.zeros((4, 4), np.uint8))
    array = (tmp_path / "bomb.npy").read_bytes()
    (tmp_path / "bomb.npy").write_bytes(array.replace(b"(4, 4), }", b"(9999, 99999), }")[:len(array)])
    assert (tmp_path / "bomb.nii.gz").stat().st_size < 200
    for name in ("bomb.nii.gz", "bomb.nii", "bomb.png", "bomb.npy"):
        tracemalloc.start()
        said = error_of(tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "damaged" in said
        assert peak < 10_000_000, name
    with pytest.raises(UserError, match=r"bomb\.png: damaged"):
        labelled.read(tmp_path / "bomb.png", 0, False)


def test_a_picture_is_png_or_jpeg_whatever_its_name(tmp_path):
    """Pillow would run Ghostscript on PostScript."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    assert "damaged or no image" in error_of(tmp_path / "a.png")
    with pytest.raises(UserError, match="damaged or no image"):
        labelled.read(tmp_path / "a.png", 0, False)


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.full((3, 3), np.nan), [[1, 0, 0], [1, 0, 0], [0, 0, 1]],
                                    [[1, 1, 0], [1, 1, 1e-9], [0, 0, 1]], np.diag([np.inf, 1, 1])])
def test_axes_that_do_not_span_space_are_one_line(matrix):
    affine = np.eye(4)
    affine[:3, :3] = matrix
    with pytest.raises(UserError, match=r"^scan\.x: its affine .* don't span space"):
        Orientation.of(affine, "scan.x")


@pytest.mark.parametrize(("slope", "inter"), [(1e38, 0), (1e37, 3e38)])
def test_a_scale_beyond_float32_is_one_line(tmp_path, slope, inter):
    file = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    nibabel.save(file, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.array([slope, inter], np.float32).tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    assert "a.nii" in error_of(tmp_path / "a.nii")


def test_any_cut_of_a_compressed_file_is_one_line(test_data, tmp_path):
    whole = (test_data / "nifti" / "nibabel_example4d.nii.gz").read_bytes()
    for size in np.random.default_rng(0).integers(0, len(whole) - 1, 20):
        (tmp_path / "cut.nii.gz").write_bytes(whole[:size])
        assert "cut.nii.gz" in error_of(tmp_path / "cut.nii.gz")
    raw = gzip.decompress(whole)
    for size in (0, 100, 348, 352, 5000):
        (tmp_path / "cut.nii").write_bytes(raw[:size])
        assert "cut.nii" in error_of(tmp_path / "cut.nii")
