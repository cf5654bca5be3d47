"""Small DICOM files: slices that say by their values which they are, mosaics, real files that libraries bring."""

import gzip
import io
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from medjax.data.formats import dicom
from medjax.types import Derivation

NIBABEL = Path(nibabel.__file__).parent / "nicom" / "tests" / "data"
PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"
STUDY, SERIES, FRAME = (generate_uid(entropy_srcs=[name]) for name in ("study", "series", "frame"))
SIZE = (6, 8)
DCIODVFY = shutil.which("dciodvfy")
needs_dciodvfy = pytest.mark.skipif(not DCIODVFY, reason="dciodvfy is not installed (Debian: apt-get install dicom3tools)")
WHO = Derivation("Noise reduced", "denoise/unet", "1.4", "0a1b2c")


def image(pixels: np.ndarray, z: float | None = 0.0, **tags) -> FileDataset:
    """An MR image of 16 bits at height `z` (mm), 2 x 3 mm a pixel; `tags` replace or (None) remove what it says."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)
    said = {"SOPClassUID": MRImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "MR",
            "PatientID": "P1", "PatientName": "", "PatientBirthDate": "", "PatientSex": "", "StudyInstanceUID": STUDY,
            "SeriesInstanceUID": SERIES, "FrameOfReferenceUID": FRAME, "StudyDate": "", "StudyTime": "", "StudyID": "",
            "AccessionNumber": "", "ReferringPhysicianName": "", "SeriesNumber": 3, "InstanceNumber": 1,
            "SeriesDescription": "T1", "ImageType": ["ORIGINAL", "PRIMARY", "M"], "SliceThickness": 1.0,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [2.0, 3.0], "Rows": pixels.shape[0],
            "Columns": pixels.shape[1], "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0}
    if z is not None:
        said["ImagePositionPatient"] = [-10.0, -20.0, z]
    for keyword, value in {**said, **tags}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    return dataset


def slices(folder: Path, heights: Sequence[float], value: int = 0, **tags) -> list[Path]:
    """A file for each height whose pixels are all `value` + its number, under names that tell nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, z in enumerate(heights):
        said = {"InstanceNumber": value + number + 1, **tags}
        dataset = image(np.full(SIZE, value + number, np.uint16), z, **said)
        files.append(folder / f"{dataset.SOPInstanceUID[-12:]}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def changed(source: Path, target: Path, **tags) -> Path:
    """A copy of a file with other attributes (None removes one)."""
    dataset = pydicom.dcmread(source)
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(target)
    return target


def siemens_mosaic(folder: Path, b_value: int = 0) -> Path:
    """NiBabel's diffusion mosaic of 48 slices, b 0 or 1000; its pixels, zeros there, are noise of up to 1000 + b here."""
    dataset = pydicom.dcmread(io.BytesIO(gzip.decompress((NIBABEL / f"siemens_dwi_{b_value}.dcm.gz").read_bytes())))
    shape = (dataset.Rows, dataset.Columns)
    dataset.PixelData = np.random.default_rng(b_value).integers(0, 1000 + b_value, shape).astype(np.uint16).tobytes()
    dataset.save_as(folder / f"mosaic_{b_value}.dcm")
    return folder / f"mosaic_{b_value}.dcm"


def enhanced(folder: Path, frames: int = 6) -> Path:
    """The first frames of NiBabel's enhanced MR (Philips), which has all geometry in functional groups; pixels are noise."""
    dataset = pydicom.dcmread(io.BytesIO(gzip.decompress((NIBABEL / "philips_mprage.dcm.gz").read_bytes())))
    dataset.NumberOfFrames = frames
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:frames]
    shape = (frames, dataset.Rows, dataset.Columns)
    dataset.PixelData = np.random.default_rng(0).integers(0, 1000, shape).astype(np.uint16).tobytes()
    dataset.save_as(folder / "enhanced.dcm")
    return folder / "enhanced.dcm"


def united_mosaic(folder: Path, volume: np.ndarray, columns: int, name: str = "grid.dcm", gap: float = 4.0, **tags) -> Path:
    """A mosaic as United Imaging writes it: `volume` `(slices, N, N)` in `columns` tiles a row, with the slices' places."""
    count, side = volume.shape[:2]
    rows = -(-count // columns)
    canvas = np.zeros((rows * side, columns * side), np.uint16)
    for number, one in enumerate(volume):
        row, column = divmod(number, columns)
        canvas[row * side:(row + 1) * side, column * side:(column + 1) * side] = one
    dataset = image(canvas, **{"ImageType": ["ORIGINAL", "PRIMARY", "DWI", "VFRAME"], **tags})
    block = dataset.private_block(0x0065, "Image Private Header", create=True)
    places = [Dataset() for _ in range(count)]
    for number, place in enumerate(places):
        place.ImagePositionPatient = [-10.0, -20.0, number * gap]
    block.add_new(0x50, "DS", str(count))
    block.add_new(0x51, "SQ", places)
    dataset.save_as(folder / name, enforce_file_format=True)
    return folder / name


def doppler(path: Path) -> np.ndarray:
    """A grey ultrasound image with 2 % red pixels."""
    grey = np.random.default_rng(0).integers(20, 200, (50, 50)).astype(np.uint8)
    rgb = np.stack([grey] * 3, -1)
    rgb[10:15, 10:20] = [220, 30, 20]
    dataset = pydicom.dcmread(PYDICOM / "examples_palette.dcm")
    for keyword in [element.keyword for element in dataset if "Palette" in element.keyword]:
        delattr(dataset, keyword)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PlanarConfiguration = 50, 50, 3, 0
    dataset.PhotometricInterpretation, dataset.PixelData = "RGB", rgb.tobytes()
    dataset.save_as(path)
    return rgb


def rewritten(source: Path, target: Path, scale: int = 1) -> list[pydicom.Dataset]:
    """A file or folder read, enlarged in the plane of its slices, written as `target` and read by pydicom."""
    (group, _), = dicom.group(sorted(source.iterdir()) if source.is_dir() else [source])
    count = len(group) if len(group) > 1 else int(pydicom.dcmread(source).get("NumberOfFrames") or 1)
    images = []
    for record in dicom.read(group, "a", "s"):
        image_ = record.image * record.slope + record.intercept
        through = image_.shape.index(count) if image_.ndim == 4 and count in image_.shape[:3] else None
        for axis in range(image_.ndim - 1):
            image_ = image_ if axis == through else np.repeat(image_, scale, axis)
        images.append(image_)
    dicom.write(target, images, group, WHO)
    return [pydicom.dcmread(path) for path in (sorted(target.iterdir()) if target.is_dir() else [target])]


def complaints(path: Path) -> set[str]:
    """The errors that dciodvfy finds in a file."""
    done = subprocess.run([DCIODVFY, str(path)], capture_output=True, text=True, errors="replace", check=False)
    return {re.sub(r"\s+", " ", line) for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}
