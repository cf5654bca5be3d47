"""What DICOM headers say. Every fault of a file is one line that names the file and the attribute."""

import io
import logging as python_logging
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info, read_partial
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medjax.data.values import one_line
from medjax.types import UserError

GROUPING = ("SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription",
            "PatientID", "ContributingEquipmentSequence", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber",
            "ImagePositionPatient", "ImageOrientationPatient", "NumberOfFrames", "Rows", "Columns")
GROUPING_TAGS = [Tag(keyword) for keyword in GROUPING]
MAX_INFLATED = 1 << 29  # bytes of a deflated file
MAX_READS, BYTES_A_READ = 1_500_000, 64  # a file is parsed in so many pieces, and one more for each so many bytes
MAX_TIMES, FREE_BYTES = 8, 1 << 24  # a file is read so many times, besides so many bytes
PREAMBLE, MARKER, GROUP_LENGTH = 128, b"DICM", 12
HEAD = 1024  # bytes that hold the transfer syntax
# What matters is checked here, in one line; pydicom's remarks, and the tracebacks of its decoders, are not for users.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
python_logging.getLogger("pydicom").setLevel(python_logging.CRITICAL)


class _Bounded:
    """A file for pydicom, read in a bounded number of pieces and a bounded number of times.

    A sequence whose end is lost goes on into the pixels: were they zeros, each 8 bytes of them would become an object.
    Of every value whose end is lost pydicom looks for it up to the end of the file.
    """

    def __init__(self, file: BinaryIO, name: str, size: int):
        self._file, self.seek, self.tell, self.close, self.name = file, file.seek, file.tell, file.close, name
        self._pieces, self._bytes = MAX_READS + size // BYTES_A_READ, MAX_TIMES * size + FREE_BYTES

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._pieces -= 1
        self._bytes -= len(data)
        if self._pieces < 0 or self._bytes < 0:
            raise ValueError("a sequence has no end")
        return data


@contextmanager
def damage_told(path: Path, problem: str) -> Iterator[None]:
    """Whatever pydicom meets in a damaged file (it raises many kinds of errors) as a UserError of one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except InvalidDicomError as error:
        raise UserError(path, "no DICOM file: it has neither its marker nor a header without one") from error
    except Exception as error:
        raise UserError(path, f"{problem}: {one_line(error)[:200]}") from error


def load(path: Path) -> FileDataset:
    """The whole dataset of a file, with a transfer syntax. Raises UserError."""
    with damage_told(path, "no DICOM file, or damaged"), path.open("rb") as file:
        bounded, bare = _bounded(path, file)
        dataset = pydicom.dcmread(bounded, force=bare)
        if bare and "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = UID(_syntax_found(dataset))
        dataset.filename = str(path)
        return dataset


def load_header(path: Path) -> Dataset:
    """What says which series a file belongs to, and no more: reading stops before pixels and functional groups."""
    with damage_told(path, "no DICOM file, or damaged"), path.open("rb") as file:
        bounded, bare = _bounded(path, file)
        return read_partial(cast(BinaryIO, bounded), _behind_grouping, force=bare, specific_tags=[*GROUPING_TAGS])


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's marker, or is a bare dataset: one whose header can be parsed and names an object."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UserError(path, f"can't be read: {error.strerror}") from error
    if head[PREAMBLE:PREAMBLE + len(MARKER)] == MARKER:
        return True
    if not _is_bare(head):
        return False
    try:
        header = load_header(path)
        return bool(text(header, "SOPClassUID") or whole(path, header, "Rows"))
    except UserError:
        return False


def text(dataset: Dataset, keyword: str) -> str:
    """An attribute as text of one line; "" where it is absent or can't be decoded."""
    try:
        found = dataset.get(keyword)
    except Exception:  # decoding raises what it meets
        return ""
    if found is None:
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in str(found)).split())


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of an attribute as text; () where it is absent or can't be decoded."""
    try:
        found = dataset.get(keyword)
    except Exception:
        return ()
    if found is None or found == "":
        return ()
    return tuple(str(value) for value in found) if isinstance(found, MultiValue) else (str(found),)


def has_values(dataset: Dataset, keyword: str) -> bool:
    """Whether an attribute is there and not empty."""
    return bool(texts(dataset, keyword))


def whole(path: Path, dataset: Dataset, keyword: str, least: int | None = None) -> int | None:
    """A whole number, None where absent or empty. Raises UserError for what is none, or is below `least`."""
    values = numbers(path, dataset, keyword, 1)
    if values is None:
        return None
    if values[0] != np.rint(values[0]) or (least is not None and values[0] < least):
        raise UserError(path, f"{keyword} is {values[0]:g}; it must be a whole number"
                              + ("" if least is None else f" of at least {least}"))
    return int(values[0])


def numbers(path: Path, dataset: Dataset, keyword: str, count: int | None) -> np.ndarray | None:
    """`count` finite numbers (any count for None), None where absent or empty. Raises UserError."""
    with damage_told(path, f"{keyword} is damaged"):
        found = dataset.get(keyword)
    if found is None or found == "" or (hasattr(found, "__len__") and len(found) == 0):
        return None
    try:
        values = np.atleast_1d(np.array(found, float))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(path, f"{keyword} is {_shown(found)}; it must be {_counted(count)}") from error
    if values.ndim != 1 or (count is not None and len(values) != count) or not np.isfinite(values).all():
        raise UserError(path, f"{keyword} is {_shown(found)}; it must be {_counted(count)}")
    return values


def group_of(dataset: Dataset, frame: int, sequence: str, keyword: str) -> Dataset:
    """Where a frame's attribute is: in its own functional group, in the shared one, or in the dataset itself."""
    for name, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        groups = dataset.get(name) or []
        for group in groups[index:index + 1]:
            found = group.get(sequence)
            if found and found[0].get(keyword) is not None:
                return found[0]
    return dataset


def _counted(count: int | None) -> str:
    return "numbers" if count is None else "a number" if count == 1 else f"{count} numbers"


def _shown(value: object) -> str:
    return " ".join(repr(value).split())[:60]


def _behind_grouping(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag > GROUPING_TAGS[-1]


def _is_bare(head: bytes) -> bool:
    """Whether a file without preamble starts with an attribute of group 0002 or 0008 that has a plausible length."""
    if len(head) < 8 or head[PREAMBLE:PREAMBLE + len(MARKER)] == MARKER:
        return False
    for order in "<>":
        group, element, length = struct.unpack(order + "HHI", head[:8])
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        if group in (2, 8) and element < 0x100 and (explicit or length < 1 << 16):
            return True
    return False


def _syntax_found(dataset: FileDataset) -> str:
    implicit, little = dataset.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _bounded(path: Path, file: BinaryIO) -> tuple[_Bounded, bool]:
    """The file for pydicom, inflated where it is deflated, and whether it is a bare dataset. Raises UserError."""
    head = file.read(HEAD)
    file.seek(0)
    if DeflatedExplicitVRLittleEndian.encode() in head:
        inflated = _inflated(path, file)
        return _Bounded(io.BytesIO(inflated), str(path), len(inflated)), False
    return _Bounded(file, str(path), os.fstat(file.fileno()).st_size), _is_bare(head)


def _inflated(path: Path, file: BinaryIO) -> bytes:
    """A deflated file as one of plain explicit values. Raises UserError where it would fill the memory."""
    meta = file.read(PREAMBLE + len(MARKER) + GROUP_LENGTH + read_file_meta_info(path).FileMetaInformationGroupLength)
    deflated, plain = DeflatedExplicitVRLittleEndian.encode(), ExplicitVRLittleEndian.encode()
    parts, size = [meta.replace(deflated, plain.ljust(len(deflated), b"\0"))], 0
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    waiting = file.read(1 << 16)
    while waiting and not inflate.eof:
        parts.append(inflate.decompress(waiting, 1 << 20))
        size += len(parts[-1])
        waiting = inflate.unconsumed_tail or file.read(1 << 16)
        if size > MAX_INFLATED:
            raise UserError(path, f"inflates to more than {MAX_INFLATED >> 20} MiB; write it uncompressed")
    if not inflate.eof:
        raise UserError(path, "its deflated data is cut off; copy it again")
    return b"".join(parts)
