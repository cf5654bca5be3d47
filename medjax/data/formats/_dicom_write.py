"""Images back into DICOM: a new, derived series with the source's patient, study, geometry and rescale."""

import copy
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from medjax.data.formats.dicom import TO_RAS, Plane, affine_of, padding, planes_of, stacks_of
from medjax.data.geometry import Orientation, resized
from medjax.data.values import quantized
from medjax.types import UserError

MARK = " medjax"
SERIES_NUMBERS = 1000  # a derived series is numbered so much above its source
STALE = ("SmallestImagePixelValue", "LargestImagePixelValue", "IconImageSequence", "DigitalSignaturesSequence",
         "MACParametersSequence", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
         "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
         "BluePaletteColorLookupTableData")


@dataclass
class Draft:
    """A file to be: the source's dataset and the new pixels of its frames, `(H, W, C)` each."""

    dataset: Dataset
    frames: dict[int, np.ndarray] = field(default_factory=dict)


def write(target: Path, images: Sequence[np.ndarray], paths: Sequence[Path]) -> None:
    """`images` (physical units, one per record that `dicom.read(paths)` gives) as a derived series.

    One source file becomes the file `target`, several become files of the same names in the folder `target`. Stored
    values are rounded and clipped to the source's bits, padding is put back. An image of another size keeps the field
    of view: spacing, places and, where the count of slices changes, the files' names and the slice thickness change.
    Raises UserError for what can't be written so (segmentations, modality tables, multi-frame files of another size).
    """
    stacks = stacks_of(planes_of(path) for path in paths)
    drafts: dict[str, Draft] = {}
    for stack, image in zip(stacks, images, strict=True):
        volume = image[None] if len(stack) == 1 else Orientation.of(affine_of(stack)).outside(image)
        if volume.shape[:3] == _size(stack):
            _same_size(drafts, stack, volume)
        else:
            _other_size(drafts, stack, volume)
    series = generate_uid()
    for draft in drafts.values():
        _set_pixels(draft)
        _derive(draft.dataset, series)
    if len(paths) == 1 and len(drafts) == 1:
        _save(target, next(iter(drafts.values())).dataset)
    else:
        _save_all(target, {name: draft.dataset for name, draft in drafts.items()})


def _size(stack: Sequence[Plane]) -> tuple[int, ...]:
    return (len(stack), *stack[0].pixels.shape[:2])


def _same_size(drafts: dict[str, Draft], stack: Sequence[Plane], volume: np.ndarray) -> None:
    for plane, image in zip(stack, volume, strict=True):
        stored = _stored(plane, image)
        pad = padding(plane)
        if pad is not None:
            stored = np.where(pad[..., None], plane.pixels, stored)
        name = Path(plane.source.filename).name
        drafts.setdefault(name, Draft(copy.deepcopy(plane.source))).frames[plane.frame] = stored


def _other_size(drafts: dict[str, Draft], stack: Sequence[Plane], volume: np.ndarray) -> None:
    """Slices of another count or size: each takes the header of the source slice nearest to it."""
    if any(int(plane.source.get("NumberOfFrames") or 1) > 1 for plane in stack):
        raise UserError(stack[0].source.filename, "a multi-frame file can't be written in another size")
    for number, image in enumerate(volume):
        plane = stack[min(int((number + 0.5) * len(stack) / len(volume)), len(stack) - 1)]
        dataset = copy.deepcopy(plane.source)
        _place(dataset, stack, plane, volume.shape[:3], number)
        name = Path(plane.source.filename).name
        if len(volume) != len(stack):
            name = f"{number + 1:04d}.dcm"
            _renumber(dataset, number, len(stack) / len(volume))
        drafts[name] = Draft(dataset, {0: _stored(plane, image)})


def _place(dataset: Dataset, stack: Sequence[Plane], plane: Plane, shape: tuple[int, ...], number: int) -> None:
    """Spacing and place of slice `number` of a volume of `shape` over the stack's field of view."""
    if not plane.spacing or plane.position is None:
        return
    scale = np.array(_size(stack)) / shape
    dataset.PixelSpacing = _decimals(plane.spacing * scale[1:])
    row, column = (scale[1:] - 1) / 2 * plane.spacing
    corner = plane.position + row * plane.directions[1] + column * plane.directions[0]
    if len(stack) > 1 and shape[0] != len(stack):
        corner = (resized(affine_of(stack), _size(stack), shape) @ [number, 0, 0, 1])[:3] * TO_RAS
    dataset.ImagePositionPatient = _decimals(corner)


def _renumber(dataset: Dataset, number: int, thicker: float) -> None:
    dataset.InstanceNumber = number + 1
    for tag in ("SliceThickness", "SpacingBetweenSlices"):
        if dataset.get(tag):
            setattr(dataset, tag, _decimals([float(dataset.get(tag)) * thicker])[0])
    if "SliceLocation" in dataset:
        del dataset.SliceLocation


def _decimals(values: Iterable[float]) -> list[str]:
    """Numbers as DICOM decimal strings, at most 16 characters."""
    return [f"{float(v):.9g}" for v in values]


def _stored(plane: Plane, image: np.ndarray) -> np.ndarray:
    """Physical units `(H, W, C)` as stored values of the source's bits; colours as 8-bit RGB."""
    source = plane.source
    if source.get("BitsAllocated") not in (8, 16, 32) or "PixelData" not in source or "ModalityLUTSequence" in source:
        raise UserError(source.filename, "its kind of pixels can't be written back; give a CT, MR or picture object")
    if _coloured(source):
        return quantized(np.broadcast_to(image, (*image.shape[:2], 3)), 1.0, 0.0, np.dtype(np.uint8))
    signed, bits = bool(source.PixelRepresentation), source.BitsStored
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    stored = quantized(image, plane.slope, plane.intercept, np.dtype(np.int64))
    return np.clip(stored, low, high).astype(f"{'i' if signed else 'u'}{source.BitsAllocated // 8}")


def _coloured(dataset: Dataset) -> bool:
    return dataset.SamplesPerPixel > 1 or dataset.PhotometricInterpretation == "PALETTE COLOR"


def _set_pixels(draft: Draft) -> None:
    """Puts the frames into the dataset, uncompressed."""
    dataset = draft.dataset
    pixels = np.stack([draft.frames[number] for number in sorted(draft.frames)])
    if _coloured(dataset):
        dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PlanarConfiguration = "RGB", 3, 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    for tag in STALE:
        if tag in dataset:
            delattr(dataset, tag)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset.Rows, dataset.Columns = pixels.shape[1:3]
    dataset.add_new("PixelData", "OB" if pixels.itemsize == 1 else "OW", data + b"\0" * (len(data) % 2))


def _derive(dataset: Dataset, series: str) -> None:
    """Makes a dataset with new pixels an object of its own, that says what it was made from."""
    if "SOPClassUID" not in dataset:
        dataset.SOPClassUID = dataset.file_meta.get("MediaStorageSOPClassUID") or SecondaryCaptureImageStorage
    if "SOPInstanceUID" in dataset:
        reference = Dataset()
        reference.ReferencedSOPClassUID = dataset.SOPClassUID
        reference.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SourceImageSequence = DicomSequence([reference])
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID = series
    dataset.SeriesNumber = int(dataset.get("SeriesNumber") or 0) + SERIES_NUMBERS
    dataset.SeriesDescription = str(dataset.get("SeriesDescription") or "")[:64 - len(MARK)] + MARK
    dataset.ImageType = ["DERIVED", *(list(dataset.get("ImageType") or []) or ["", "SECONDARY"])[1:]]
    dataset.DerivationDescription = "Restored by a network (medjax)"
    now = datetime.now()
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")


def _save(target: Path, dataset: Dataset) -> None:
    partial = target.with_name(f".partial-{target.name}")
    try:
        dataset.save_as(partial, enforce_file_format=True)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _save_all(target: Path, files: dict[str, Dataset]) -> None:
    """All files of a series, or none: written into a folder of another name that is renamed."""
    if target.exists():
        raise UserError(target, "is there already; name a new folder for the series")
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    try:
        for name, dataset in files.items():
            dataset.save_as(partial / name, enforce_file_format=True)
        partial.chmod(0o755)
        os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
