"""Images back into DICOM: a new, derived series with the source's patient, study, geometry and rescale."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from medjax.data.formats._dicom_derive import FRAME_TYPES, derive, new_series
from medjax.data.formats._dicom_header import damage_told, group_of, has_values, text
from medjax.data.formats._dicom_pixels import FLOATS, claim_of
from medjax.data.formats._dicom_planes import Plane, planes_of
from medjax.data.formats._dicom_resize import place_slice, resize
from medjax.data.formats._dicom_save import save, save_all
from medjax.data.formats._dicom_stacks import affine_of, is_uneven, stacks_of
from medjax.data.geometry import Orientation
from medjax.data.values import luminance, quantized
from medjax.types import UNSAID, Derivation, UserError

STALE = ("SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries", "LargestPixelValueInSeries",
         "IconImageSequence", "DigitalSignaturesSequence", "MACParametersSequence", "PaletteColorLookupTableUID",
         "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
         *(f"{kind[0]}{colour}PaletteColorLookupTable{kind[1]}" for colour in ("Red", "Green", "Blue")
           for kind in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))))


@dataclass
class Draft:
    """A file to be: the header (the source's, at first), and for each frame the plane it is made from and new pixels."""

    dataset: Dataset
    planes: dict[int, Plane] = field(default_factory=dict)
    frames: dict[int, np.ndarray] = field(default_factory=dict)


def write(target: Path, images: Sequence[np.ndarray], paths: Sequence[Path],
          derivation: Derivation = UNSAID) -> None:
    """`images` (physical units, one per record that `dicom.read(paths)` gives) as a derived series.

    One source file becomes the file `target`, several become files of the same names in the folder `target` (numbered
    where the names repeat, or the count of slices changes). Stored values are rounded and clipped to the source's bits,
    padding is put back, and no other value becomes padding. An image of another size keeps the field of view: spacing
    and places change, with the count of slices also their thickness. A grey result keeps the colours that a coloured
    source has (Doppler, marks): its luminance is replaced. `derivation` says in the header what made the images.
    Raises UserError for what can't be written so (segmentations, modality tables, mosaics of another size, another
    count of slices in a multi-frame file, more channels than the source has).
    """
    stacks = stacks_of([plane for path in paths for plane in planes_of(path)])
    drafts: dict[tuple, Draft] = {}
    resized = False
    for number, (stack, image) in enumerate(zip(stacks, images, strict=True)):
        volume = image[None] if len(stack) == 1 else Orientation.of(affine_of(stack)).outside(image)
        resized |= volume.shape[:3] != _size(stack)
        if len(volume) == len(stack):
            _in_place(drafts, stack, volume)
        else:
            _other_count(drafts, number, stack, volume)
    names = _names(list(drafts), paths)
    series = new_series(stacks[0][0].source, target)
    if len(paths) == 1 and len(drafts) == 1:
        save(target, _finished(next(iter(drafts.values())), series, derivation, resized))
    else:
        one_by_one = ((name, _finished(drafts.pop(key), series, derivation, resized))  # they are large
                      for name, key in zip(names, list(drafts), strict=True))
        save_all(target, one_by_one)


def _finished(draft: Draft, series: str, derivation: Derivation, resized: bool) -> Dataset:
    with damage_told(next(iter(draft.planes.values())).path, "its header can't be written"):
        _set_pixels(draft)
        derive(draft.dataset, series, draft.planes, derivation, resized)
    return draft.dataset


def _size(stack: Sequence[Plane]) -> tuple[int, ...]:
    return (len(stack), *stack[0].pixels.shape[:2])


def _in_place(drafts: dict[tuple, Draft], stack: Sequence[Plane], volume: np.ndarray) -> None:
    """As many slices as the source has: each goes into the file and frame of its own."""
    scale = np.array(_size(stack)[1:]) / volume.shape[1:3]
    for plane, image in zip(stack, volume, strict=True):
        draft = drafts.get((plane.path,))
        if draft is None:
            draft = drafts[plane.path,] = Draft(plane.source)  # read for this write alone, so no copy
            if (scale != 1).any():
                resize(plane, draft.dataset, scale)
        if draft.frames and next(iter(draft.frames.values())).shape[:2] != image.shape[:2]:
            raise UserError(plane.path, "its frames can't be written in different sizes")
        draft.planes[plane.frame], draft.frames[plane.frame] = plane, _stored(plane, image)


def _other_count(drafts: dict[tuple, Draft], number: int, stack: Sequence[Plane], volume: np.ndarray) -> None:
    """Slices of another count: each is a file of its own, with the header of the source slice nearest to it."""
    if any(int(plane.source.get("NumberOfFrames") or 1) > 1 or plane.mosaic is not None for plane in stack):
        raise UserError(stack[0].path, f"a multi-frame file can't be written with another count of slices: {len(volume)}, "
                                       f"not {len(stack)}")
    if is_uneven(stack):
        raise UserError(stack[0].path.parent, f"its slices are unevenly spaced, so {len(volume)} slices in place of "
                                              f"{len(stack)} have no places; resample it to even gaps first")
    scale = np.array(_size(stack)) / volume.shape[:3]
    for index, image in enumerate(volume):
        plane = stack[min(int((index + 0.5) * scale[0]), len(stack) - 1)]
        with damage_told(plane.path, "its header is damaged"):
            draft = Draft(copy.deepcopy(plane.source), {0: plane}, {0: _stored(plane, image)})
        if (scale[1:] != 1).any():
            resize(plane, draft.dataset, scale[1:])
        place_slice(draft.dataset, stack, volume.shape[:3], index)
        draft.dataset.InstanceNumber = len(drafts) + 1
        drafts[plane.path, number, index] = draft


def _names(keys: Sequence[tuple], paths: Sequence[Path]) -> list[str]:
    """A file name for each draft, none of them twice: the source's where each source file becomes one."""
    names = [key[0].name for key in keys]
    if len(set(names)) == len(names) == len(paths):
        return names
    return [f"{number + 1:04d}.dcm" for number in range(len(names))]


def _stored(plane: Plane, image: np.ndarray) -> np.ndarray:
    """Physical units `(H, W, C)` as stored values of the source's bits; colours as RGB."""
    source = plane.source
    claim = claim_of(plane.path, source)
    if claim.bits not in (8, 16, 32) or "ModalityLUTSequence" in source or any(keyword in source for keyword in FLOATS):
        raise UserError(plane.path, "its kind of pixels can't be written back; give a CT, MR or picture object")
    channels = image.shape[-1]
    if channels != 1 and not (claim.coloured and channels == 3):
        raise UserError(plane.path, f"has {3 if claim.coloured else 1} channels, the result has {channels}; such a result "
                                    "can't be written as DICOM images")
    if claim.coloured:
        return _coloured(plane, image, np.dtype(np.uint16 if claim.bits == 16 and claim.samples > 1 else np.uint8))
    signed, bits = bool(source.get("PixelRepresentation")), int(source.get("BitsStored") or claim.bits)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    stored = np.clip(quantized(image, plane.slope, plane.intercept, np.dtype(np.int64)), low, high)
    padded, padding = plane.padded, plane.padding
    if padding is not None and padded is not None and padded.shape == stored.shape[:2]:
        stored = np.where(padded[..., None], plane.pixels, _off_padding(stored, padding, high))
    elif padded is not None and padding is not None:
        stored = _off_padding(stored, padding, high)
    return stored.astype(f"{'i' if signed else 'u'}{claim.bits // 8}")


def _off_padding(stored: np.ndarray, padding: tuple[int, int], high: int) -> np.ndarray:
    """Values in the range of the padding moved to the nearest value beside it: they are image."""
    beside = padding[1] + 1 if padding[1] < high else padding[0] - 1
    return np.where((stored >= padding[0]) & (stored <= padding[1]), beside, stored)


def _coloured(plane: Plane, image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """RGB `(H, W, 3)`: a grey image takes the differences of the source's colours from their luminance."""
    image = np.asarray(image, np.float64)
    if image.shape[-1] == 1:
        image = np.repeat(image, 3, -1)
        colours = plane.colours if plane.colours is not None else plane.pixels
        if colours.shape[-1] == 3:
            image += _resampled(colours - luminance(colours.astype(np.float64)), (image.shape[0], image.shape[1]))
    return quantized(image, 1.0, 0.0, dtype)


def _resampled(chroma: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """`(H, W, 3)` bilinearly at another size."""
    if chroma.shape[:2] == shape:
        return chroma
    channels = [Image.fromarray(chroma[..., i].astype(np.float32)).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
                for i in range(3)]
    return np.stack([np.asarray(channel, np.float64) for channel in channels], -1)


def _set_pixels(draft: Draft) -> None:
    """Puts the frames into the dataset, uncompressed."""
    dataset = draft.dataset
    plane = next(iter(draft.planes.values()))
    frames = [draft.frames[number] for number in sorted(draft.frames)]
    pixels = np.stack(frames) if plane.mosaic is None else plane.mosaic.joined(frames)[None]
    for tag in STALE:
        if tag in dataset:
            delattr(dataset, tag)
    _without_palette(dataset, len(pixels))
    if pixels.shape[-1] == 3:
        bits = 8 * pixels.itemsize
        dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PlanarConfiguration = "RGB", 3, 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    order: Literal["<", ">"] = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset.Rows, dataset.Columns = pixels.shape[1:3]
    dataset.add_new("PixelData", "OB" if pixels.itemsize == 1 else "OW", data + b"\0" * (len(data) % 2))


def _without_palette(dataset: Dataset, frames: int) -> None:
    """No palette any more, so a grey image is no longer presented in colours."""
    if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        presented = "TRUE_COLOR"
    elif text(dataset, "PhotometricInterpretation").startswith("MONOCHROME"):
        presented = "MONOCHROME"
    else:
        return
    groups = [group_of(dataset, frame, sequence, "PixelPresentation") for frame in range(frames) for sequence in FRAME_TYPES]
    for group in [dataset, *groups]:
        if has_values(group, "PixelPresentation"):
            group.PixelPresentation = presented
