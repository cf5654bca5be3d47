"""CT sinograms with their geometry: drawn ones, whose line integrals are known, and measured ones."""

import json
from functools import partial

import nibabel
import numpy as np
import pytest
import scipy.io
from skimage.filters import threshold_otsu

from medjax.data import ct_geometry, io
from medjax.data.sources.files import Files
from medjax.data.sources.shards import Shards
from medjax.data.storage import shard_writer
from medjax.data.storage.builder import builder_class
from medjax.physics.analytic import shepp_logan
from medjax.types import UserError
from tests import records
from tests.commands import ROOT

PIXEL = 0.5
FAN = {"beam": "fan", "angles_deg": {"first": 0, "last": 357, "count": 120}, "detector_count": 96, "detector_mm": 1.2,
       "source_axis_mm": 120.0, "source_detector_mm": 200.0, "pixel_mm": PIXEL, "image_shape": [64, 64],
       "detector_offset_mm": 0.3}
PARALLEL = {"beam": "parallel", "angles_deg": np.arange(0, 180, 2).tolist(), "detector_count": 96, "detector_mm": 0.45,
            "pixel_mm": [PIXEL, PIXEL], "image_shape": [64, 64]}


only = partial(records.only, kind="sinogram")


def rays(geometry: dict) -> tuple[np.ndarray, np.ndarray]:
    """A point on each ray and its direction, `(2, views, detectors)`, by the words of `medjax.data.ct_geometry`."""
    spec = geometry["angles_deg"]
    degrees = np.linspace(spec["first"], spec["last"], spec["count"]) if isinstance(spec, dict) else np.array(spec)
    turn = np.deg2rad(degrees)[:, None]
    count = geometry["detector_count"]
    along = (np.arange(count) - (count - 1) / 2) * geometry["detector_mm"] + geometry.get("detector_offset_mm", 0)
    across, up = np.stack([np.cos(turn), np.sin(turn)]), np.stack([-np.sin(turn), np.cos(turn)])
    if geometry["beam"] == "parallel":
        return along * across, np.broadcast_to(up, (2, len(turn), count))
    source = -geometry["source_axis_mm"] * up
    cell = source + geometry["source_detector_mm"] * up + along * across
    return np.broadcast_to(source, cell.shape), cell - source


def write(folder, geometry, name="scan.npy", change=lambda sinogram: sinogram):
    """The line integrals of the Shepp-Logan head, and the geometry beside them."""
    sinogram = shepp_logan(15.0, 0.02).line_integrals(*rays(geometry)).astype(np.float32)
    stored = change(sinogram)
    if name.endswith(".npy"):
        np.save(folder / name, stored)
    else:
        nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), folder / name)
    (folder / f"{name.partition('.')[0]}.json").write_text(json.dumps(geometry))
    return sinogram


@pytest.mark.parametrize("geometry", [FAN, PARALLEL], ids=["fan", "parallel"])
@pytest.mark.parametrize("name", ["scan.npy", "scan.nii.gz"])
def test_a_sinogram_is_read_with_its_image(tmp_path, geometry, name):
    sinogram = write(tmp_path, geometry, name)
    (study,) = io.discover(tmp_path, kind="sinogram")
    assert (study.id, study.format, [path.name for path in study.paths]) == ("scan", "sinogram", [name, "scan.json"])
    (record,) = study.read()
    assert (record.modality, record.units, record.spacing_mm) == ("CT", "1/mm", (PIXEL, PIXEL))
    np.testing.assert_array_equal(record.extras["sinogram"][..., 0], sinogram)
    truth = shepp_logan(15.0, 0.02).image((64, 64), (PIXEL, PIXEL))
    inside = np.hypot(*np.meshgrid(*[np.arange(64) - 31.5] * 2)) < 20
    error = np.abs(record.image - truth)[inside]
    assert error.mean() < 0.05 * 0.02
    for other in (truth[::-1], truth[:, ::-1], truth.swapaxes(0, 1)):  # turned in any way it would not fit
        assert np.abs(record.image - other)[inside].mean() > 2 * error.mean()
    operator = ct_geometry.operator(str(record.extras["ct_geometry"]))
    assert operator.shape == (64, 64)
    assert len(operator.angles) == len(sinogram)


def test_an_image_with_other_json_beside_it_stays_an_image(tmp_path):
    """BIDS has a JSON beside every image."""
    np.save(tmp_path / "a.npy", np.eye(4))
    (tmp_path / "a.json").write_text('{"Modality": "MR"}')
    np.save(tmp_path / "b.npy", np.eye(4))
    (tmp_path / "b.json").write_text("no json")
    assert [study.format for study in io.discover(tmp_path)] == ["array", "array"]
    write(tmp_path, PARALLEL)
    assert [study.id for study in io.discover(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(("change", "says"), [
    ({"beam": "cone"}, "beam: unknown 'cone'; choose from parallel, fan"),
    ({"detector_mm": None}, "detector_mm: None is no number"), ({"detector_mm": 0}, "detector_mm: 0; give a size in mm"),
    ({"detector_mm": "wide"}, "detector_mm: wide is no number"),
    ({"detector_count": 96.5}, "detector_count: 96.5; give a whole"),
    ({"detector_count": 95}, r"has the shape \(120, 96\) where its geometry has \(120, 95\)"),
    ({"angles_deg": [0, 1]}, r"where its geometry has \(2, 96\)"), ({"angles_deg": []}, "angles_deg: give up to"),
    ({"angles_deg": {"first": 0, "last": 9}}, "angles_deg: has first, last; give first, last, count"),
    ({"angles_deg": {"first": 0, "last": 9, "count": 1e9}}, "count: 1e\\+09; give a whole number from 1 to"),
    ({"image_shape": [64]}, "image_shape: \\[64\\]; give two numbers"),
    ({"pixel_mm": [1, 2, 3]}, r"pixel_mm: \[1, 2, 3\] is no number"), ({"source_axis_mm": 10}, "must lie outside the image"),
    ({"detectr_offset_mm": 1}, "detectr_offset_mm: unknown key of a fan beam"),
])
def test_a_geometry_that_can_not_be_is_one_line(tmp_path, change, says):
    write(tmp_path, FAN)
    (tmp_path / "scan.json").write_text(json.dumps(FAN | change))
    with pytest.raises(UserError, match=rf"scan\.(json|npy): .*{says}") as caught:
        only(tmp_path / "scan.npy")
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path):
    write(tmp_path, FAN)
    (tmp_path / "scan.json").write_text(json.dumps({key: value for key, value in FAN.items() if key != "source_axis_mm"}))
    with pytest.raises(UserError, match=r"scan\.json: source_axis_mm: is missing; a fan beam needs beam, angles_deg"):
        only(tmp_path)
    write(tmp_path, PARALLEL, change=lambda sinogram: np.stack([sinogram] * 2))
    with pytest.raises(UserError, match=r"has the shape \(2, 90, 96\); give \(views, detectors\)"):
        only(tmp_path)
    write(tmp_path, PARALLEL | {"image_shape": [64, 9999]})
    with pytest.raises(UserError, match=r"image_shape: \(64, 9999\) is too large"):
        only(tmp_path)
    write(tmp_path, PARALLEL, change=lambda sinogram: np.where(sinogram > 0.1, np.nan, sinogram))
    with pytest.raises(UserError, match="NaN or infinite"):
        only(tmp_path)


def matthews(one: np.ndarray, other: np.ndarray) -> float:
    """Matthews' correlation coefficient of two binary maps."""
    return float(np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1])


def test_measured_scans_lie_as_their_reference_segmentations(test_data):
    """A full scan of the Helsinki Tomography Challenge 2022: FBP and Otsu's threshold against the makers' segmentation."""
    folder = test_data / "patients" / "htc2022"
    record = only(folder / "htc2022_ta_full.mat")
    assert (record.image.shape, record.units) == ((512, 512, 1), "1/mm")
    assert record.extras["sinogram"].shape == (721, 560, 1)
    found = record.image[..., 0] > threshold_otsu(record.image[..., 0])
    truth = scipy.io.loadmat(folder / "htc2022_ta_full_recon_fbp_seg.mat")["reconFullFbpSeg"] > 0
    assert matthews(found, truth) > 0.95
    for turned in (found[::-1], found[:, ::-1], found.T, np.rot90(found), np.rot90(found, 2), np.rot90(found, 3)):
        assert matthews(turned, truth) < 0.95
    assert len(io.discover(folder, kind="sinogram")) == 19  # the segmentations are of another kind


def test_other_matlab_files_are_one_line(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"other": np.eye(3)})
    with pytest.raises(UserError, match=r"a\.mat: has no struct CtData"):
        only(tmp_path / "a.mat")
    scipy.io.savemat(tmp_path / "b.mat", {"CtDataFull": {"sinogram": np.eye(3), "parameters": {"angles": [0.0]}}})
    with pytest.raises(UserError, match=r"b\.mat: lacks numDetectorsPost, pixelSizePost"):
        only(tmp_path / "b.mat")
    (tmp_path / "c.mat").write_bytes((tmp_path / "b.mat").read_bytes()[:200])
    with pytest.raises(UserError, match=r"c\.mat: damaged, or no MATLAB file"):
        only(tmp_path / "c.mat")


def test_what_was_measured_and_its_units_travel_through_cache_and_shards(tmp_path):
    for number in range(4):
        (tmp_path / "in" / f"p{number}").mkdir(parents=True)
        write(tmp_path / "in" / f"p{number}", PARALLEL, name=f"scan{number}.npy")
    read = io.read(tmp_path / "in", kind="sinogram")
    unpacked = Files(str(tmp_path / "in"), cache=str(tmp_path / "cache"), kind="sinogram").load()
    builder = builder_class(ROOT / "datasets" / "files.py")
    shard_writer.build(builder(source=str(tmp_path / "in"), kind="sinogram"), tmp_path / "out")
    built = Files(str(tmp_path / "out"), cache=str(tmp_path / "cache2")).load()
    assert len(read) == len(unpacked) == len(built) == 4
    for record in [*unpacked, *built]:
        assert (record.units, record.modality, record.spacing_mm) == ("1/mm", "CT", (PIXEL, PIXEL))
        assert str(record.extras["ct_geometry"]) == str(read[0].extras["ct_geometry"])
        np.testing.assert_array_equal(np.asarray(record.image), read[0].image)
        np.testing.assert_array_equal(np.asarray(record.extras["sinogram"]), read[0].extras["sinogram"])
    in_place = Shards(str(tmp_path / "out")).load()[0]
    assert (in_place.units, str(in_place.extras["ct_geometry"])) == ("1/mm", str(read[0].extras["ct_geometry"]))
    np.testing.assert_array_equal(np.asarray(in_place.extras["sinogram"]), read[0].extras["sinogram"])
