"""MetaImage (`.mha`, and `.mhd` with its data in a file beside it): volumes, slices, series, colours, oblique."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medjax.data.formats import _itk
from medjax.data.formats._removal import Removal
from medjax.data.values import DEFLATE, one_line, possible
from medjax.files import write_atomically
from medjax.types import Derivation, Record, UserError

SUFFIXES = (".mha", ".mhd")
KIND = "image"
READER = "MetaImageIO"
LINE_BYTES = 1 << 14
SCALE = "ElementToIntensityFunction"
LAST = "ElementDataFile"
LOCAL = ("LOCAL", "Local", "local")
ITEMSIZE = {"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
            "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8}
TEXT_PACKED = 4  # bytes of values that a byte of text holds at most
MM = {"um": 1e-3, "mm": 1.0, "cm": 10.0}


@dataclass(frozen=True)
class Header:
    """What stands in a file before its values: the fields, and how many bytes they take."""

    fields: dict[str, str]
    size: int

    @classmethod
    def of(cls, path: Path) -> "Header":
        """Raises UserError for what is no MetaImage header."""
        header = cls.parse(_itk.head(path))
        if LAST not in header.fields:
            raise UserError(path, f"is no MetaImage file: its header has no {LAST}")
        return header

    @classmethod
    def parse(cls, head: bytes) -> "Header":
        """The header that a file begins with, as far as it goes."""
        fields: dict[str, str] = {}
        size = 0
        while LAST not in fields:
            line, end, _ = head[size:size + LINE_BYTES].partition(b"\n")
            key, equals, value = line.decode("utf-8", "replace").partition("=")
            if not end or not equals:
                break
            fields[key.strip()] = value.strip()
            size += len(line) + 1
        return cls(fields, size)

    def says(self, key: str) -> bool:
        """Whether a field is true."""
        return self.fields.get(key, "").lower() in ("true", "t", "1")


def accepts(path: Path) -> bool:
    """Every file with one of the suffixes."""
    return True


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each header is a study, with the file of its values if that is another."""
    return [(_itk.files(file, lambda path: _parts(path, Header.of(path))), "") for file in files]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """A volume, the frames of a 4-D file or of more than four values a voxel, or a 2-D image, sizes in mm.

    Up to four values a voxel are channels, four of 8 bits RGB with alpha. Raises UserError.
    """
    return _itk.records(paths[0], _load(paths[0]), name, subject)


def write(target: Path, images: Sequence[np.ndarray], paths: Sequence[Path], derivation: Derivation) -> None:
    """Images with the source's dtype, geometry and further fields, compressed if it is."""
    _save(target, _itk.result(target, _load(paths[0]), images), Header.of(paths[0]).says("CompressedData"))


def write_labels(target: Path, labels: Sequence[np.ndarray], names: Sequence[str], paths: Sequence[Path],
                 derivation: Derivation) -> None:
    """Label maps `(*space)` uint8, compressed, the names as JSON in the field "labels"."""
    _save(target, _itk.labelled(target, _load(paths[0]), labels, names), compressed=True)


def write_bare(target: Path, path: Path, removal: Removal | None = None) -> None:
    """The file with its values and geometry, and without further fields and comments. Raises UserError.

    Voxels of a `removal` get its value, in every frame.
    """
    _save(target, replace(_itk.without(_load(path), removal), notes={}), Header.of(path).says("CompressedData"))


def _load(path: Path) -> _itk.Scan:
    header = Header.of(path)
    _check(path, header)
    return _itk.load(path, READER, MM.get(header.fields.get("DistanceUnits", "mm"), 1.0))


def _check(path: Path, header: Header) -> None:
    """Raises UserError for sizes that are none or more than the file can hold, and for values that aren't as they lie."""
    fields = header.fields
    try:
        sizes = [int(size) for size in fields["DimSize"].split()]
        channels = int(fields.get("ElementNumberOfChannels", 1))
        claimed = math.prod(sizes) * channels * ITEMSIZE[fields["ElementType"].removesuffix("_ARRAY")]
        if min(*sizes, channels) < 1 or len(sizes) != int(fields["NDims"]):
            raise ValueError(f"DimSize {fields['DimSize']} of {fields['NDims']} dimensions")
        scale = [float(fields.get(f"{SCALE}{key}", usual)) for key, usual in (("Slope", 1), ("Offset", 0))]
    except KeyError as error:
        raise UserError(path, f"its header lacks or has an unknown {one_line(error)}") from error
    except (ValueError, TypeError) as error:
        raise UserError(path, f"its header is damaged: {one_line(error)}") from error
    if scale != [1.0, 0.0]:
        raise UserError(path, f"has an {SCALE} ({scale[0]:g}, {scale[1]:g}), which is not read; store the values themselves")
    stored = _itk.stored_bytes(_parts(path, header), header.size)
    text = fields.get("BinaryData", "true").lower() in ("false", "f", "0")
    possible(path, claimed, stored, TEXT_PACKED if text else DEFLATE if header.says("CompressedData") else 1)


def _parts(path: Path, header: Header) -> list[Path]:
    """The header and the file of its values, which lies beside it. Raises UserError for values in several files."""
    name = header.fields[LAST]
    return [path] if name in LOCAL else _itk.with_values(path, name)


def _save(target: Path, scan: _itk.Scan, compressed: bool) -> None:
    """Writes `.mha`, or `.mhd` with the values in a file of that name beside it."""
    whole = _itk.encoded(target, scan, READER, ".mha", compressed)
    if target.suffix.lower() == ".mha":
        write_atomically(target, whole)
        return
    data, size = target.with_suffix(".zraw" if compressed else ".raw"), Header.parse(whole).size
    write_atomically(data, whole[size:])
    write_atomically(target, whole[:size].rpartition(LAST.encode())[0] + f"{LAST} = {data.name}\n".encode())
