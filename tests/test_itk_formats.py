"""NRRD and MetaImage against SimpleITK's own conversion to NIfTI, and against headers written by hand."""

import gzip

import numpy as np
import pytest
import SimpleITK as Sitk

from medjax.data import io
from medjax.data.write import write, write_labels
from medjax.types import Record, UserError
from tests.records import only

SUFFIXES = [".nrrd", ".nhdr", ".mha", ".mhd"]
SHEARLESS = [[0.0, -0.96, 0.28], [1.0, 0.0, 0.0], [0.0, 0.28, 0.96]]


def image(shape=(6, 5, 4), dtype=np.int16, channels=0, direction=SHEARLESS) -> Sitk.Image:
    """Noise `(x, y, z)`, anisotropic, oblique, off the origin; with channels a vector for each voxel."""
    size = (*shape[::-1], channels) if channels else shape[::-1]
    made = Sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 200, size).astype(dtype), isVector=bool(channels))
    made.SetSpacing([0.5, 1.5, 3.0][:len(shape)])
    made.SetOrigin([10.0, -20.0, 30.0][:len(shape)])
    if len(shape) == 3:
        made.SetDirection(np.ravel(direction).tolist())
    made.SetMetaData("operator", "nobody")
    return made


def same(one: Record, other: Record) -> None:
    np.testing.assert_array_equal(one.image, other.image)
    assert one.image.dtype == other.image.dtype
    np.testing.assert_allclose(one.spacing_mm, other.spacing_mm, rtol=1e-5)
    assert (one.affine is None) == (other.affine is None)
    if one.affine is not None:
        np.testing.assert_allclose(one.affine, other.affine, atol=1e-4)


def assert_written(path, folder, suffix):
    """What is read can be written, in the same format and geometry."""
    (study,) = io.discover(path)
    records = study.read()
    write(folder / f"back{suffix}", [record.in_units() for record in records], study)
    for one, other in zip(records, io.read(folder / f"back{suffix}"), strict=True):
        same(one, other)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_volume_lies_as_itk_writes_it_to_nifti(tmp_path, suffix, compressed):
    Sitk.WriteImage(image(), tmp_path / "a.nii.gz")
    (tmp_path / "in").mkdir()
    Sitk.WriteImage(image(), tmp_path / "in" / f"a{suffix}", compressed)
    same(only(tmp_path / "in"), only(tmp_path / "a.nii.gz"))
    assert_written(tmp_path / "in" / f"a{suffix}", tmp_path, suffix)
    kept = Sitk.ReadImage(tmp_path / f"back{suffix}")
    np.testing.assert_allclose(kept.GetDirection(), image().GetDirection(), atol=1e-9)
    assert kept.GetMetaData("operator") == "nobody"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_colours_frames_and_pictures(tmp_path, suffix):
    for name, made, shapes in (
            ("rgb", image(dtype=np.uint8, channels=3), [(4, 6, 5, 3)]),
            ("rgba", image(dtype=np.uint8, channels=4), [(4, 6, 5, 3)]),
            ("flow", image(dtype=np.float32, channels=2), [(4, 6, 5, 2)]),
            ("many", image(dtype=np.int16, channels=7), [(4, 6, 5, 1)] * 7),
            ("flat", image((6, 5), np.uint8), [(5, 6, 1)])):
        folder = tmp_path / name
        folder.mkdir()
        Sitk.WriteImage(made, folder / f"a{suffix}")
        records = io.read(folder / f"a{suffix}")
        assert [record.image.shape for record in records] == shapes
        assert_written(folder / f"a{suffix}", folder, suffix)
        whole = Sitk.GetArrayFromImage(made)
        again = Sitk.GetArrayFromImage(Sitk.ReadImage(folder / f"back{suffix}"))
        np.testing.assert_array_equal(again, whole)  # alpha too
    np.testing.assert_array_equal(records[0].image[..., 0], whole)  # a picture has row 0 at the top
    assert records[0].spacing_mm == (1.5, 0.5)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_fourth_axis_is_frames(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 99, (3, 4, 5, 6)).astype(np.int16)
    made = Sitk.GetImageFromArray(values, isVector=False)
    made.SetSpacing((0.5, 1.5, 3.0, 2.0))
    Sitk.WriteImage(made, tmp_path / f"a{suffix}")
    one = Sitk.GetImageFromArray(values[1])
    one.SetSpacing((0.5, 1.5, 3.0))
    Sitk.WriteImage(one, tmp_path / "one.nii")
    records = io.read(tmp_path / f"a{suffix}")
    assert [record.id for record in records] == ["a#000", "a#001", "a#002"]
    same(records[1], only(tmp_path / "one.nii"))
    assert_written(tmp_path / f"a{suffix}", tmp_path, suffix)
    assert Sitk.ReadImage(tmp_path / f"back{suffix}").GetSpacing() == (0.5, 1.5, 3.0, 2.0)


NRRD = ("NRRD0005\ntype: short\ndimension: {n}\nspace: {space}\nsizes: {sizes}\nspace directions: {directions}\n"
        "{more}kinds: {kinds}\nendian: little\nencoding: raw\nspace origin: {origin}\n\n")


@pytest.mark.parametrize(("space", "signs"), [("right-anterior-superior", (1, 1)), ("left-posterior-superior", (-1, -1)),
                                              ("left-anterior-superior", (-1, 1))])
def test_the_space_of_nrrd_counts_in_3d_and_4d(tmp_path, space, signs):
    values = np.arange(240, dtype=np.int16).reshape(2, 4, 5, 6)
    volume = NRRD.format(n=3, space=space, sizes="6 5 4", directions="(2,0,0) (0,3,0) (0,0,4)", kinds="domain domain domain",
                         origin="(7,8,9)", more="")
    series = NRRD.format(n=4, space=f"{space}-time", sizes="6 5 4 2", kinds="domain domain domain time", origin="(7,8,9,0)",
                         directions="(2,0,0,0) (0,3,0,0) (0,0,4,0) (0,0,0,1)", more="")
    (tmp_path / "a.nrrd").write_bytes(volume.encode() + values[1].tobytes())
    (tmp_path / "b.nrrd").write_bytes(series.encode() + values.tobytes())
    record = only(tmp_path / "a.nrrd")
    same(record, io.read(tmp_path / "b.nrrd")[1])
    for index in ((0, 0, 0), (1, 2, 3), (3, 4, 5)):  # every voxel is where the header says
        place = np.array([signs[0] * (7 + 2 * index[2]), signs[1] * (8 + 3 * index[1]), 9 + 4 * index[0], 1])
        z, y, x = np.round(np.linalg.solve(record.affine, place)[:3]).astype(int)
        assert record.image[z, y, x, 0] == values[1][index]
    assert_written(tmp_path / "b.nrrd", tmp_path, ".nrrd")


def test_sizes_in_other_units_are_in_mm(tmp_path):
    values = np.arange(120, dtype=np.int16)
    header = NRRD.format(n=3, space="left-posterior-superior", sizes="6 5 4", directions="(2,0,0) (0,3,0) (0,0,4)",
                         kinds="domain domain domain", origin="(7,8,9)", more='space units: "um" "um" "um"\n')
    (tmp_path / "a.nrrd").write_bytes(header.encode() + values.tobytes())
    np.testing.assert_allclose(only(tmp_path / "a.nrrd").spacing_mm, (4e-3, 3e-3, 2e-3))
    Sitk.WriteImage(image(), tmp_path / "a.mha")
    raw = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "b.mha").write_bytes(raw.replace(b"ElementSpacing", b"DistanceUnits = um\nElementSpacing"))
    np.testing.assert_allclose(only(tmp_path / "b.mha").spacing_mm, np.array(only(tmp_path / "a.mha").spacing_mm) / 1000)
    assert_written(tmp_path / "b.mha", tmp_path, ".mha")
    (tmp_path / "c.nrrd").write_bytes(header.encode().replace(b'"um" "um"', b'"mm" "um"') + values.tobytes())
    with pytest.raises(UserError, match="axes in mm and um"):
        io.read(tmp_path / "c.nrrd")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_results_of_another_size_and_labels(tmp_path, suffix):
    Sitk.WriteImage(image(), tmp_path / f"a{suffix}", True)
    (study,) = io.discover(tmp_path / f"a{suffix}")
    (record,) = study.read()
    write(tmp_path / f"large{suffix}", [np.repeat(record.in_units(), 2, 1)], study)
    large = only(tmp_path / f"large{suffix}")
    np.testing.assert_array_equal(large.in_units(), np.repeat(record.in_units(), 2, 1))
    for one in (0, 1):  # both corners of the field of view stay
        corners = [r.affine @ [*(one * np.array(r.image.shape[:3]) - 0.5), 1] for r in (record, large)]
        np.testing.assert_allclose(*corners, atol=1e-4)
    labels = (record.image[..., 0] > 100).astype(np.uint8)
    write_labels(tmp_path / f"labels{suffix}", [labels], ["air", "bone"], study)
    stored = Sitk.ReadImage(tmp_path / f"labels{suffix}")
    np.testing.assert_array_equal(Sitk.GetArrayFromImage(stored), Sitk.GetArrayFromImage(image()) > 100)
    assert stored.GetMetaData("labels") == '["air", "bone"]'
    np.testing.assert_allclose(stored.GetDirection(), image().GetDirection(), atol=1e-9)


def test_real_scans(test_data):
    record = only(test_data / "seg" / "breast1_image.nrrd")
    assert (record.image.shape, record.image.dtype) == ((21, 120, 45, 1), np.int16)
    assert (record.image.min(), record.image.max()) == (6, 248)
    np.testing.assert_allclose(record.spacing_mm, (2.1, 0.664062, 0.664062))
    assert only(test_data / "seg" / "breast1_label.nrrd").image.sum() == 143
    assert only(test_data / "ultrasound" / "MouseLiverRF.mha").image.dtype == np.int32


# What is wrong

HEAD = "NRRD0004\ntype: short\ndimension: 3\nsizes: {sizes}\nencoding: {encoding}\nendian: little\n{more}\n"


@pytest.mark.parametrize(("sizes", "encoding", "more", "says"), [
    ("60000 5000 400", "raw", "", "damaged: its header claims 240000000000 bytes"),
    ("6000 5000 400", "gzip", "", "even packed 1032 to 1"),
    ("6 5 -4", "raw", "", "damaged"), ("6 5", "raw", "", "damaged"), ("6 5 x", "raw", "", "damaged"),
    ("6 5 4", "bzip2", "", "encoding is raw, gzip, ascii or hex"),
    ("6 5 4", "raw", "data file: /etc/passwd\n", "must lie in one file beside it"),
    ("6 5 4", "raw", "data file: ../a.raw\n", "must lie in one file beside it"),
    ("6 5 4", "raw", "data file: LIST\n", "must lie in one file beside it"),
    ("6 5 4", "raw", "data file: slice%03d.raw 1 4 1\n", "must lie in one file beside it"),
    ("6 5 4", "raw", "data file: gone.raw\n", r"its data file gone\.raw can't be read"),
    ("6 5 4", "raw", "space: scanner-xyz\nspace directions: (0,0,0) (0,0,0) (0,0,0)\n", "can't be read: .*pacing"),
])
def test_damaged_nrrd_is_one_line(tmp_path, sizes, encoding, more, says):
    head = HEAD.format(sizes=sizes, encoding=encoding, more=more).encode()
    (tmp_path / "a.nrrd").write_bytes(head + (gzip.compress(bytes(240)) if encoding == "gzip" else bytes(240)))
    with pytest.raises(UserError, match=rf"a\.nrrd: .*{says}") as caught:
        io.read(tmp_path / "a.nrrd")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("old", "new", "says"), [
    ("DimSize = 6 5 4", "DimSize = 6000 5000 4000", "damaged: its header claims"),
    ("DimSize = 6 5 4", "DimSize = 6 5 0", "damaged"), ("NDims = 3", "NDims = 2", "damaged"),
    ("MET_SHORT", "MET_OTHER", "lacks or has an unknown 'MET_OTHER'"), ("DimSize", "Dimension", "unknown 'DimSize'"),
    ("ElementDataFile = LOCAL", "ElementDataFile = LIST", "must lie in one file beside it"),
    ("ElementDataFile = LOCAL", "ElementDataFile = ../../x.raw", "must lie in one file beside it"),
    ("ElementDataFile = LOCAL", "ElementDataFile = gone.raw", r"gone\.raw can't be read"),
    ("ElementDataFile = LOCAL", "", "has no ElementDataFile"),
    ("NDims = 3", "NDims = 3\nElementToIntensityFunctionSlope = 2", "is not read; store the values themselves"),
])
def test_damaged_metaimage_is_one_line(tmp_path, old, new, says):
    Sitk.WriteImage(image(), tmp_path / "a.mha")
    whole = (tmp_path / "a.mha").read_bytes()
    assert old.encode() in whole
    (tmp_path / "a.mha").write_bytes(whole.replace(old.encode(), new.encode()))
    with pytest.raises(UserError, match=rf"a\.mha: .*{says}") as caught:
        io.read(tmp_path / "a.mha")
    assert "\n" not in str(caught.value)


def test_the_values_beside_a_header_are_part_of_the_study(tmp_path):
    """So that the cache knows when they change."""
    Sitk.WriteImage(image(), tmp_path / "a.mhd")
    Sitk.WriteImage(image(), tmp_path / "b.nhdr")
    names = [[path.name for path in study.paths] for study in io.discover(tmp_path)]
    assert names == [["a.mhd", "a.raw"], ["b.nhdr", "b.raw"]]
    (tmp_path / "c.mhd").write_text("no header")
    assert [study.id for study in io.discover(tmp_path)] == ["a", "b", "c"]  # one damaged header hides no other file
