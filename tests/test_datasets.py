"""The TFDS builders in datasets/: what they write is what the readers read, by subject, and TFDS reads it too."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medjax.data import io
from medjax.data.sources.files import Files
from medjax.data.sources.kspace import Kspace
from medjax.data.sources.phantoms import Phantoms
from medjax.data.split import split
from medjax.data.storage import shard_writer
from medjax.data.storage.blocks import blocks
from medjax.data.storage.builder import builder_class
from medjax.types import Record, UserError
from tests.commands import ROOT
from tests.names import readable


def made(name: str, **arguments):
    return builder_class(ROOT / "datasets" / f"{name}.py")(**arguments)


def prepare(tmp_path: Path, name: str, names: Iterable[str] = (), **arguments) -> list[Record]:
    """The data set, built and loaded as a config with its path does; `names` stand for their hashes, if given."""
    shard_writer.build(made(name, **arguments), tmp_path / "out")
    records = Files(path=str(tmp_path / "out"), cache=str(tmp_path / "cache")).load()
    return readable(tmp_path / "out", records, names) if names else records


def parts_of(records: list[Record]) -> dict[str, set[str]]:
    return {name: {r.record.subject for r in regions} for name, regions in split(records).items()}


def assert_same(one: Record, other: Record) -> None:
    np.testing.assert_array_equal(np.asarray(one.image), np.asarray(other.image))
    assert one.image.dtype == other.image.dtype
    assert (one.id, one.subject, one.modality) == (other.id, other.subject, other.modality)
    assert (one.slope, one.intercept, one.spacing_mm) == (other.slope, other.intercept, other.spacing_mm)
    if one.affine is None or other.affine is None:
        assert one.affine is other.affine
    else:
        np.testing.assert_array_equal(one.affine, other.affine)


# Blocks


@pytest.mark.parametrize(("shape", "size", "overlap"), [
    ((9, 20, 16), (4, 8, 8), 0), ((9, 20, 16), (4, 0, 99), 2), ((30, 7), (8, 8), 3)])
def test_blocks_cover_every_voxel_and_know_where_they_are(shape, size, overlap):
    image = np.arange(np.prod(shape), dtype=np.int32).reshape(*shape, 1)
    affine = np.random.default_rng(0).normal(size=(4, 4)) if len(shape) == 3 else None
    extras = {"label": image + 1, "class": np.array(3), "foreground": np.argwhere(image[..., 0] % 3 == 0)}
    record = Record(image, "a", "s", affine=affine, extras=extras)
    found = list(blocks(record, size, overlap))
    assert len({block.id for block in found}) == len(found) > 1
    seen = np.concatenate([block.image.ravel() for block in found])
    assert set(seen.tolist()) == set(range(image.size))
    full = tuple(min(s or n, n) for s, n in zip(size, shape, strict=True))
    for block in found:
        assert block.image.shape[:-1] == full
        assert (block.subject, int(block.extras["class"])) == ("s", 3)
        np.testing.assert_array_equal(block.extras["label"], block.image + 1)
        np.testing.assert_array_equal(block.extras["foreground"], np.argwhere(block.image[..., 0] % 3 == 0))
        corner = np.unravel_index(block.image.ravel()[0], shape)
        if affine is not None:
            np.testing.assert_allclose(block.affine @ [0, 0, 0, 1], affine @ [*corner, 1])
    if overlap:  # any two voxels that lie no further apart than the overlap are in one block together
        for axis, n in enumerate(shape):
            along = [np.unique(np.argwhere(np.isin(image, b.image))[:, axis]) for b in found]
            for start in range(n - min(overlap, full[axis]) + 1):
                assert any(set(range(start, start + min(overlap, full[axis]))) <= set(a.tolist()) for a in along)


def test_an_image_smaller_than_a_block_is_left_as_it_is():
    record = Record(np.zeros((4, 5, 6, 1), np.uint8), "a", "s")
    assert list(blocks(record, (8, 8, 8))) == [record]


@pytest.mark.parametrize(("size", "overlap", "says"), [((4, 4), 0, "has 2 sizes"), ((4, 4, 4), 4, "less than 4")])
def test_blocks_that_can_not_be(size, overlap, says):
    with pytest.raises(UserError, match=says):
        list(blocks(Record(np.zeros((9, 9, 9, 1)), "a", "s"), size, overlap))


# Phantoms


def test_what_is_prepared_is_what_the_source_gives(tmp_path):
    options = {"kind": "brain", "shape": (8, 16, 16), "count": 7, "seed": 3}
    records = prepare(tmp_path, "phantoms", **options)
    source = {record.id: record for record in Phantoms(**options).load()}
    assert sorted(r.id for r in records) == sorted(source)
    for record in records:
        assert_same(record, source[record.id])
        np.testing.assert_array_equal(np.asarray(record.extras["mask"]), source[record.id].extras["mask"])
    parts = parts_of(records)
    assert sorted(map(len, parts.values())) == [1, 1, 5]
    assert not any(a & b for a, b in itertools.combinations(parts.values(), 2))


def test_tfds_reads_it_and_can_prepare_it_alone(tmp_path):
    builder = made("phantoms", shape=(16, 16), count=5, data_dir=tmp_path / "tfds")
    builder.download_and_prepare()
    noted = shard_writer.build(made("phantoms", shape=(16, 16), count=5), tmp_path / "out")
    ours = tfds.builder_from_directory(tmp_path / "out")
    for name, row in noted["splits"].items():
        assert len(ours.as_data_source(name)) == row["examples"] == ours.info.splits[name].num_examples
        for a, b in zip(ours.as_data_source(name), builder.as_data_source(name), strict=True):
            assert a["id"] == b["id"]
            np.testing.assert_array_equal(a["image"], b["image"])


def test_training_images_are_cut_and_the_others_stay_whole(tmp_path):
    records = prepare(tmp_path, "phantoms", shape=(8, 16, 16), count=5, patch=(4, 8, 8), overlap=0)
    source = {record.id: record.image for record in Phantoms("chest", (8, 16, 16), 5).load()}
    for name, regions in split(records).items():
        shapes = {r.record.image.shape for r in regions}
        assert shapes == {(4, 8, 8, 1) if name == "train" else (8, 16, 16, 1)}
    for record in records:
        name, _, corner = record.id.partition(":at")
        start = [int(c) for c in corner.split(",")] if corner else [0, 0, 0]
        box = tuple(slice(c, c + s) for c, s in zip(start, record.image.shape[:-1], strict=True))
        np.testing.assert_array_equal(np.asarray(record.image), source[name][box])


# Folders of images


def write_nifti(path: Path, seed: int, shape=(10, 9, 8), dtype=np.int16) -> None:
    random = np.random.default_rng(seed)
    affine = np.array([[-1.0, 0.1, 0, 5], [0.1, 1.0, 0, 6], [0, 0, 2.0, 7], [0, 0, 0, 1]])
    file = nibabel.Nifti1Image(random.integers(0, 200, shape).astype(dtype), affine)
    file.header.set_slope_inter(0.1, -3.7)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.to_filename(path)


def test_a_folder_of_nifti_keeps_units_geometry_and_who_it_is(tmp_path):
    for number in range(4):
        for session in "ab":
            write_nifti(tmp_path / "in" / f"sub-{number}" / f"{session}.nii.gz", 2 * number + (session == "b"))
    read = {record.id: record for record in io.read(tmp_path / "in")}
    names = {name for record in read.values() for name in (record.id, record.subject)}
    records = prepare(tmp_path, "files", names, source=str(tmp_path / "in"))
    assert sorted(r.id for r in records) == sorted(read)
    for record in records:
        assert_same(record, read[record.id])
    parts = parts_of(records)
    assert parts["train"] | parts["val"] | parts["test"] == {f"sub-{n}" for n in range(4)}
    assert not any(a & b for a, b in itertools.combinations(parts.values(), 2))


def test_fewer_than_three_subjects_are_divided_where_they_are_read(tmp_path):
    write_nifti(tmp_path / "in" / "one.nii.gz", 0, shape=(10, 9, 40))
    with pytest.raises(UserError, match="fewer than three subjects"):
        prepare(tmp_path, "files", source=str(tmp_path / "in"), patch=(4, 4, 4))
    records = prepare(tmp_path, "files", ["one"], source=str(tmp_path / "in"))
    regions = split(records)
    assert all(regions.values())
    assert {r.record.id for part in regions.values() for r in part} == {"one"}


def test_what_does_not_fit_together_is_said(tmp_path):
    for number in range(3):
        write_nifti(tmp_path / "in" / f"{number}.nii.gz", number, dtype=np.uint8 if number < 2 else np.int16)
    with pytest.raises(UserError, match="2: its image is int16, the first image's uint8; store all as --dtype=int16"):
        prepare(tmp_path, "files", source=str(tmp_path / "in"))
    records = prepare(tmp_path, "files", source=str(tmp_path / "in"), dtype="int16")
    assert {r.image.dtype for r in records} == {np.dtype(np.int16)}
    write_nifti(tmp_path / "in" / "3.nii.gz", 3, shape=(10, 9, 1))
    with pytest.raises(UserError, match=r"3: its image has the shape .* build them apart"):
        shard_writer.build(made("files", source=str(tmp_path / "in"), dtype="int16"), tmp_path / "other")


# Mayo's pairs


def write_series(folder: Path, patient: str, values: np.ndarray) -> None:
    folder.mkdir(parents=True)
    series, frame = generate_uid(), generate_uid()
    for number, pixels in enumerate(values):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        file.PatientID, file.Modality, file.SeriesInstanceUID, file.FrameOfReferenceUID = patient, "CT", series, frame
        file.Rows, file.Columns = pixels.shape
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.PixelRepresentation = 15, 1
        file.RescaleSlope, file.RescaleIntercept = 1, -1024
        file.PixelSpacing, file.ImageOrientationPatient = [0.7, 0.7], [1, 0, 0, 0, 1, 0]
        file.ImagePositionPatient = [0, 0, 3.0 * number]
        file.PixelData = pixels.astype(np.int16).tobytes()
        pydicom.dcmwrite(folder / f"1-{number + 1:03d}.dcm", file, enforce_file_format=True)


def test_full_and_low_dose_are_the_channels_of_one_volume(tmp_path, caplog):
    random = np.random.default_rng(0)
    truth = {}
    for patient in ("C002", "L067", "N005", "L100"):
        study = tmp_path / "in" / patient / "12-23-2021-NA-NA-62464"
        pair = random.integers(0, 2000, (2, 4, 12, 10))
        write_series(study / "1.000000-Full Dose Images-61234", patient, pair[0])
        (study / "3.000000-Full Dose Projection-77").mkdir()
        if patient != "L100":
            write_series(study / "1.000000-Low Dose Images-39882", patient, pair[1])
            truth[patient] = pair
    records = prepare(tmp_path, "mayo_ldct", truth, source=str(tmp_path / "in"))
    assert "1 patients have no pair" in caplog.text
    assert "L100" not in caplog.text
    assert sorted(r.subject for r in records) == sorted(truth)
    for record in records:
        assert (record.modality, record.contrasts) == ("CT", ("full", "low"))  # which the task names its source by
        assert (record.slope, record.intercept) == (1.0, -1024.0)
        assert np.allclose(record.spacing_mm, (3.0, 0.7, 0.7))
        for channel, values in enumerate(truth[record.subject]):
            # Canonical axes go up, to anterior and to the right; these slices go up, to posterior and to the left.
            np.testing.assert_array_equal(np.asarray(record.image)[:, ::-1, ::-1, channel], values)


def test_a_pair_of_two_grids_is_refused(tmp_path):
    for patient, slices in (("C1", 4), ("C2", 4), ("C3", 5)):
        write_series(tmp_path / "in" / patient / "full dose images", patient, np.ones((4, 6, 6)))
        write_series(tmp_path / "in" / patient / "low dose images", patient, np.ones((slices, 6, 6)))
    with pytest.raises(UserError, match="C3/low dose images: is not on the grid of the full dose"):
        prepare(tmp_path, "mayo_ldct", source=str(tmp_path / "in"))
    with pytest.raises(UserError, match="no folder named quarter"):
        made("mayo_ldct", source=str(tmp_path / "in"), low="quarter*").items  # noqa: B018


# X-rays, k-space, MedMNIST


@pytest.fixture
def xrays(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "in" / "images").mkdir(parents=True)
    lines = ["filename,patientid,finding"]
    for number in range(10):
        pixels = random.integers(0, 255, (20, 30 + number)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / "images" / f"x{number}.png")
        lines.append(f"x{number}.png,p{number // 2},{('clear', 'effusion')[number % 2]}")
    (tmp_path / "in" / "index.csv").write_text("\n".join(lines))
    return tmp_path / "in"


def test_x_rays_have_their_finding_and_are_split_by_patient(tmp_path, xrays):
    names = [f"{letter}{number}" for letter in "xp" for number in range(10)]
    records = prepare(tmp_path, "xray", names, source=str(xrays), size=0)
    for record in records:
        number = int(record.id[1:])
        assert (record.subject, int(record.extras["class"])) == (f"p{number // 2}", number % 2)
        stored = np.asarray(Image.open(xrays / "images" / f"x{number}.png"))
        np.testing.assert_array_equal(np.asarray(record.image)[..., 0], stored)
    assert not any(a & b for a, b in itertools.combinations(parts_of(records).values(), 2))
    info = tfds.builder_from_directory(tmp_path / "out").info
    assert info.features["class"].names == ["clear", "effusion"]


def test_an_x_ray_that_is_not_there_is_named(tmp_path, xrays):
    (xrays / "images" / "x4.png").unlink()
    with pytest.raises(UserError, match=r"x4.png: can't be read"):
        prepare(tmp_path, "xray", source=str(xrays))


def test_kspace_is_split_by_patient_and_cut_along_slices(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(6):
        with h5py.File(tmp_path / "in" / f"file{number}.h5", "w") as file:
            file["kspace"] = random.normal(size=(3, 2, 12, 20)).astype(np.float32).view(np.complex64)
            file.attrs["patient_id"] = f"patient{number // 2}"
    source = {record.id: record for record in Kspace(str(tmp_path / "in")).load()}
    names = {name for record in source.values() for name in (record.id, record.subject)}
    records = prepare(tmp_path, "fastmri", names, source=str(tmp_path / "in"), patch=(1, 0, 0))
    parts = split(records)
    assert {name: {r.record.subject for r in regions} for name, regions in parts.items()} == parts_of(list(source.values()))
    assert len(parts["train"]) == 2 * 3
    for record in records:
        name, _, corner = record.id.partition(":at")
        start = int(corner.split(",")[0]) if corner else 0
        for key, value in {"kspace": source[name].extras["kspace"], "image": source[name].image}.items():
            found = np.asarray(record.image if key == "image" else record.extras[key])
            np.testing.assert_array_equal(found, value[start:start + len(found)])
    with pytest.raises(UserError, match="cut along slices only"):
        made("fastmri", source=str(tmp_path / "in"), patch=(1, 8, 8))


@pytest.mark.parametrize(("shape", "labels"), [((28, 28), 1), ((28, 28, 3), 1), ((12, 12, 12), 1), ((28, 28), 4)])
def test_medmnist_keeps_the_parts_of_its_makers(tmp_path, shape, labels):
    random = np.random.default_rng(0)
    counts = {"train": 12, "val": 4, "test": 5}
    arrays = {}
    for part, count in counts.items():
        arrays[f"{part}_images"] = random.integers(0, 255, (count, *shape)).astype(np.uint8)
        arrays[f"{part}_labels"] = random.integers(0, 2 if labels > 1 else 3, (count, labels))
    np.savez_compressed(tmp_path / "somemnist.npz", **arrays)
    records = prepare(tmp_path, "medmnist", source=str(tmp_path / "somemnist.npz"))
    regions = split(records)
    assert {name: len(part) for name, part in regions.items()} == counts
    noted = json.loads((tmp_path / "out" / "manifest.json").read_text())["splits"]
    assert [row["subjects"] for row in noted.values()] == list(counts.values())
    for part, found in regions.items():
        for record in (region.record for region in found):
            number = int(record.id.rpartition("-")[2])
            image = arrays[f"{part}_images"][number]
            np.testing.assert_array_equal(np.asarray(record.image), image if shape[-1] == 3 else image[..., None])
            np.testing.assert_array_equal(np.asarray(record.extras["class"]), np.squeeze(arrays[f"{part}_labels"][number]))


# Damage


def test_a_damaged_data_set_is_one_line(tmp_path):
    folder = tmp_path / "out"
    shard_writer.build(made("phantoms", shape=(64, 64), count=4), folder)
    shard = sorted(folder.glob("*train*"))[0]
    sound = shard.read_bytes()

    def says(text: str) -> None:
        with pytest.raises(UserError, match=text) as caught:
            Files(path=str(folder), cache=str(tmp_path / "cache")).load()
        assert "\n" not in str(caught.value)

    shard.write_bytes(sound[:1000] + bytes([sound[1000] ^ 255]) + sound[1001:])
    says("hash mismatch")
    with pytest.raises(UserError, match=f"{shard.name}: fails its checksum"):
        shard_writer.verify(folder)
    shard.write_bytes(sound[:1000])
    says(f"{shard.name}: has 1000 bytes of {len(sound)}")
    shard.unlink()
    says(f"{shard.name}: no such file")
    assert [p for p in (tmp_path / "cache").iterdir() if p.name.startswith(".partial")] == []
    shard_writer.build(made("phantoms", shape=(64, 64), count=4), folder)
    shard_writer.verify(folder)
    assert len(Files(path=str(folder), cache=str(tmp_path / "cache")).load()) == 4
    (folder / "features.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match=r"features\.json: fails its checksum"):
        shard_writer.verify(folder)
