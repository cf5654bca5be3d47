"""What DICOM pixels hold beside the image: burned-in text, overlays in unused bits, bytes after the end, comments."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)
from scipy import ndimage

from medjax.data.formats._dicom_group import CAPTURES
from medjax.data.formats._dicom_header import damage_told, text, whole
from medjax.data.formats._dicom_mosaic import is_mosaic
from medjax.data.formats._dicom_pixels import FLOATS, Claim, claim_of, has_pixels, stored_of
from medjax.data.formats._dicom_planes import plane_of
from medjax.data.formats._dicom_streams import without_comments, without_trailer
from medjax.data.formats._removal import Removal
from medjax.data.values import quantized
from medjax.types import UserError

STREAMS = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
BORDER = 0.2  # of the image at each side, where text is looked for
BRIGHT = 0.6  # of the range, above the darkest: text is
GLYPH = {"height": (5, 40), "width": (1, 40)}  # pixels
FILLED = (0.12, 0.95)  # of its box
LINE = 5  # glyphs on one line
STEP = 3  # heights of a glyph to the next

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Blank:
    """Which pixels are set to zero: in `boxes` (x, y, width, height from the upper left), `outside` ultrasound regions.

    `removal` is of voxels that get another value, by their place.
    """

    boxes: tuple[Box, ...] = ()
    outside: bool = False
    removal: Removal | None = None


NO_BLANK = Blank()


def tidy(path: Path, dataset: FileDataset, blank: Blank) -> None:
    """Leaves of the pixels the image alone, zero where it is to be blank. Raises UserError.

    Where pixels are changed, compressed ones are written uncompressed, those of YBR as RGB.
    """
    if not has_pixels(dataset):
        return
    claim = claim_of(path, dataset)
    hidden = _has_embedded_overlay(dataset)
    where = _blank_pixels(path, dataset, blank, (claim.rows, claim.columns)) if claim.bits > 1 else None
    removed = _removed(path, dataset, claim, blank.removal) if blank.removal is not None else {}
    syntax = dataset.file_meta.TransferSyntaxUID
    if hidden and syntax.is_encapsulated:
        raise UserError(path, "left out: has an overlay in the unused bits of compressed pixels; write it uncompressed")
    if (where is not None and where.any()) or removed:
        _store(path, dataset, where, removed)
    elif syntax.is_encapsulated:
        with damage_told(path, "its compressed pixels are damaged"):
            table = [dataset.get(f"ExtendedOffsetTable{part}") for part in ("", "Lengths")]
            frames = list(generate_frames(dataset.PixelData, number_of_frames=claim.frames,
                                          extended_offsets=(table[0], table[1]) if all(table) else None))[:claim.frames]
            if len(frames) < claim.frames:
                raise UserError(path, f"holds {len(frames)} of {claim.frames} frames; copy it again")
            if syntax in STREAMS:
                frames = [without_comments(frame) for frame in frames]
            elif syntax == RLELossless:
                frames = [without_trailer(frame, claim.rows * claim.columns) for frame in frames]
            else:
                raise UserError(path, f"left out: {syntax.name} may hold comments that can't be removed")
            dataset["PixelData"].value = encapsulate(frames, has_bot=sum(map(len, frames)) < 1 << 31)
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _cut(path, dataset)
        if hidden:
            _mask(path, dataset)


def _cut(path: Path, dataset: FileDataset) -> None:
    """Cuts off what follows the last pixel."""
    claim = claim_of(path, dataset)
    size = claim.size + (claim.bits == 1 and claim.frames * claim.rows * claim.columns * claim.samples % 8 > 0)
    for keyword in ("PixelData", *FLOATS):
        if keyword in dataset:
            if len(dataset[keyword].value) < size:
                raise UserError(path, f"holds {len(dataset[keyword].value)} bytes of pixels, less than the {size} that its "
                                      "header says; copy it again")
            dataset[keyword].value = dataset[keyword].value[:size] + b"\0" * (size % 2)


def _has_embedded_overlay(dataset: Dataset) -> bool:
    groups = {tag.group for tag in list(dataset.keys()) if tag.group >> 8 == 0x60}
    return any((group, 0x3000) not in dataset for group in groups)


def _mask(path: Path, dataset: FileDataset) -> None:
    """Clears the bits that the image doesn't use; of signed values they take the sign."""
    claim, stored = claim_of(path, dataset), whole(path, dataset, "BitsStored", 1)
    if stored is None or claim.bits not in (8, 16, 32) or stored >= claim.bits:
        return
    order = ">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    kind = "i" if dataset.get("PixelRepresentation") else "u"
    values = np.frombuffer(dataset.PixelData, f"{order}{kind}{claim.bits // 8}")
    high = whole(path, dataset, "HighBit", 0)
    up = claim.bits - 1 - (stored - 1 if high is None else high)
    kept = ((values << up) >> (claim.bits - stored)) << (claim.bits - stored - up)
    dataset["PixelData"].value = kept.astype(values.dtype).tobytes()


def _blank_pixels(path: Path, dataset: Dataset, blank: Blank, shape: tuple[int, int]) -> np.ndarray | None:
    """Where `(H, W)` pixels become zero; None for nowhere."""
    modality = text(dataset, "Modality")
    if modality in ("SEG", "RTDOSE") or not (blank.boxes or (blank.outside and modality in ("US", "IVUS"))):
        return None
    where = np.zeros(shape, bool)
    for x, y, width, height in blank.boxes:
        where[y:y + height, x:x + width] = True
    if blank.outside and modality in ("US", "IVUS"):
        inside = _regions(path, dataset, shape)
        where |= False if inside is None else ~inside
    return where


def _regions(path: Path, dataset: Dataset, shape: tuple[int, int]) -> np.ndarray | None:
    """The pixels `(H, W)` in the regions of an ultrasound image, None where it says of none."""
    regions = dataset.get("SequenceOfUltrasoundRegions") or []
    inside = np.zeros(shape, bool)
    for region in regions:
        left, top, right, bottom = (whole(path, region, f"RegionLocation{corner}", 0) or 0
                                    for corner in ("MinX0", "MinY0", "MaxX1", "MaxY1"))
        inside[top:bottom + 1, left:right + 1] = True
    return inside if inside.any() else None


def _removed(path: Path, dataset: FileDataset, claim: Claim, removal: Removal) -> dict[int, tuple[np.ndarray, float]]:
    """By frame, where there are some: the pixels `(H, W)` that are removed, and the stored value that they get.

    Raises UserError for a file whose frames have no place of their own.
    """
    if is_mosaic(dataset) or "ModalityLUTSequence" in dataset or claim.coloured:
        raise UserError(path, "left out: a mosaic, a table of values or colours, of which no place can be removed")
    found = {}
    for index in range(claim.frames):
        plane = plane_of(path, dataset, np.empty(0), index)
        if plane.position is None or plane.directions is None or not plane.spacing:
            raise UserError(path, "left out: has no place in space, by which something could be removed")
        mask = removal.mask(plane.affine, (1, claim.rows, claim.columns))[0]
        if mask.any():
            found[index] = mask, (removal.fill - plane.intercept) / plane.slope
    return found


def _store(path: Path, dataset: FileDataset, where: np.ndarray | None,
           removed: Mapping[int, tuple[np.ndarray, float]]) -> None:
    pixels = stored_of(path, dataset).copy()
    if where is not None:
        pixels[:, where] = 0
    bits, signed = whole(path, dataset, "BitsStored", 1), pixels.dtype.kind == "i"
    for index, (mask, fill) in removed.items():
        if bits is not None and pixels.dtype.kind in "iu":
            fill = np.clip(fill, -(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed) - 1)
        pixels[index][mask] = quantized(np.array(fill), 1.0, 0.0, pixels.dtype)
    keyword = next(keyword for keyword in ("PixelData", *FLOATS) if keyword in dataset)
    if pixels.shape[-1] == 3:
        dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    if keyword == "PixelData":
        dataset.BitsAllocated = 8 * pixels.dtype.itemsize
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    big = dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    element = dataset[keyword]
    element.value, element.is_undefined_length = data + b"\0" * (len(data) % 2), False
    if keyword == "PixelData":
        element.VR = "OW" if dataset.BitsAllocated > 8 else "OB"


def burned_in(path: Path, dataset: FileDataset, blank: Blank) -> tuple[str, ...]:
    """Why an image may have text in its pixels, in words; () for no sign of it. A sign is no proof, nor is its absence."""
    if not has_pixels(dataset):
        return ()
    modality, sop = text(dataset, "Modality"), text(dataset, "SOPClassUID")
    signs = []
    if text(dataset, "BurnedInAnnotation").upper() == "YES":
        signs.append("says that it has burned-in text")
    if sop in CAPTURES:
        signs.append("is a secondary capture")
    claim = claim_of(path, dataset)
    if any(x >= claim.columns or y >= claim.rows for x, y, _, _ in blank.boxes):
        signs.append("ends before a box that is to be blank")
    if claim.bits > 1:
        try:
            pixels = stored_of(path, dataset)
        except UserError:
            return (*signs, "has pixels that can't be decoded, so they were not looked at")
        shape = pixels.shape[1:3]
        where = _blank_pixels(path, dataset, blank, shape)
        shown = _still(pixels if where is None else np.where(where[None, ..., None], 0, pixels))
        regions = _regions(path, dataset, shape) if modality in ("US", "IVUS") else None
        if modality in ("US", "IVUS") and regions is None:
            signs.append("is ultrasound without regions")
        elif regions is not None and len(np.unique(shown[~regions])) > 1:
            signs.append("has pixels outside of the ultrasound regions")
        if has_text(shown):
            signs.append("has what looks like text near a border")
    return tuple(signs)


def _still(pixels: np.ndarray) -> np.ndarray:
    """What is the same in up to five of the frames `(H, W)`, the lowest value elsewhere; of colours the brightest."""
    chosen = pixels[np.unique(np.linspace(0, len(pixels) - 1, 5).astype(int))].max(-1)
    return np.where(chosen.min(0) == chosen.max(0), chosen[0], chosen.min())


def has_text(image: np.ndarray) -> bool:
    """Whether `image` `(H, W)` has near a border a line of at least five bright shapes of the size of characters."""
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return False
    bright = image >= low + BRIGHT * (high - low)
    labels, _ = ndimage.label(bright, np.ones((3, 3)))
    height, width = image.shape
    glyphs = []
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        rows, columns = place[0].stop - place[0].start, place[1].stop - place[1].start
        if not (GLYPH["height"][0] <= rows <= GLYPH["height"][1] and GLYPH["width"][0] <= columns <= GLYPH["width"][1]):
            continue
        y, x = (place[0].start + place[0].stop) / 2 / height, (place[1].start + place[1].stop) / 2 / width
        filled = (labels[place] == number).mean()
        if min(y, x, 1 - y, 1 - x) <= BORDER and (FILLED[0] <= filled <= FILLED[1] or columns <= 3):
            glyphs.append((place[1].start, place[1].stop, place[0].stop, rows))
    glyphs.sort()
    return any(_on_line(number, glyphs) >= LINE for number in range(len(glyphs)))


def _on_line(first: int, glyphs: list[tuple[int, int, int, int]]) -> int:
    """How many glyphs (left, right, bottom, height), which are sorted, stand on the line that one of them begins."""
    _, right, bottom, height = glyphs[first]
    count = 1
    for left, end, other_bottom, other_height in glyphs[first + 1:]:
        if left - right > STEP * height:
            break
        if left >= right and abs(other_bottom - bottom) <= 2 and 0.6 * height <= other_height <= height / 0.6:
            count, right = count + 1, end
    return count
