"""NRRD (`.nrrd`, and `.nhdr` with its data in a file beside it): volumes, slices, series, colours, oblique."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medjax.data.formats import _itk
from medjax.data.formats._removal import Removal
from medjax.data.values import DEFLATE, one_line, possible
from medjax.files import write_atomically
from medjax.types import Derivation, Record, UserError

SUFFIXES = (".nrrd", ".nhdr")
KIND = "image"
READER = "NrrdImageIO"
BYTES = {1: ("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"),
         2: ("short", "short int", "signed short", "signed short int", "int16", "int16_t",
             "ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
         4: ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"),
         8: ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t",
             "ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double")}
ITEMSIZE = {name: size for size, names in BYTES.items() for name in names}
PACKED = {"raw": 1, "gz": DEFLATE, "gzip": DEFLATE, "txt": 4, "text": 4, "ascii": 4, "hex": 1}  # bytes of values in one
MM = {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3, "nm": 1e-6}

FROM_LPS_TIME = {"right-anterior-superior-time": (-1, -1), "rast": (-1, -1), "left-anterior-superior-time": (1, -1),
                 "last": (1, -1)}


@dataclass(frozen=True)
class Header:
    """What stands in a file before its values: the fields, in lower case, and how many bytes they take."""

    fields: dict[str, str]
    size: int

    @classmethod
    def of(cls, path: Path) -> "Header":
        """Raises UserError for what is no NRRD header."""
        head = _itk.head(path)
        if not head.startswith(b"NRRD000"):
            raise UserError(path, "is no NRRD file: it begins with something else than NRRD000")
        return cls.parse(head)

    @classmethod
    def parse(cls, head: bytes) -> "Header":
        """The header that a file begins with."""
        blank = re.search(rb"\n\r?\n", head)
        fields = {}
        for line in head[:blank.start() if blank else len(head)].decode("utf-8", "replace").split("\n")[1:]:
            key, colon, value = line.partition(": ")
            if colon and not line.startswith("#"):
                fields[key.strip().lower()] = value.strip()
        return cls(fields, blank.end() if blank else len(head))

    @property
    def data_file(self) -> str:
        """The name of the file that has the values, "" where they follow the header."""
        return self.fields.get("data file") or self.fields.get("datafile") or ""

    @property
    def compressed(self) -> bool:
        return self.fields.get("encoding", "").lower() in ("gz", "gzip")


def accepts(path: Path) -> bool:
    """Every file with one of the suffixes."""
    return True


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each header is a study, with the file of its values if that is another."""
    return [(_itk.files(file, lambda path: _parts(path, Header.of(path))), "") for file in files]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """A volume, the frames of a series, or a 2-D image, sizes in mm.

    A 4-D file is a series; so are more than four values a voxel, fewer are channels, four of 8 bits RGB with alpha.
    Without `space` a volume counts as left-posterior-superior, as ITK has it. Raises UserError.
    """
    return _itk.records(paths[0], _load(paths[0]), name, subject)


def write(target: Path, images: Sequence[np.ndarray], paths: Sequence[Path], derivation: Derivation) -> None:
    """Images with the source's dtype, geometry and key/value pairs, gzipped if it is."""
    _save(target, _itk.result(target, _load(paths[0]), images), Header.of(paths[0]).compressed)


def write_labels(target: Path, labels: Sequence[np.ndarray], names: Sequence[str], paths: Sequence[Path],
                 derivation: Derivation) -> None:
    """Label maps `(*space)` uint8, gzipped, the names as JSON in the key "labels"."""
    _save(target, _itk.labelled(target, _load(paths[0]), labels, names), compressed=True)


def write_bare(target: Path, path: Path, removal: Removal | None = None) -> None:
    """The file with its values and geometry, and without further fields and comments. Raises UserError.

    Voxels of a `removal` get its value, in every frame.
    """
    _save(target, replace(_itk.without(_load(path), removal), notes={}), Header.of(path).compressed)


def _load(path: Path) -> _itk.Scan:
    header = Header.of(path)
    _check(path, header)
    scan = _itk.load(path, READER, _mm(path, header))
    if scan.ndim == 4:  # of 4-D files ITK takes the numbers as they are
        turn = FROM_LPS_TIME.get(header.fields.get("space", "").lower(), (1, 1))
        scan = replace(scan, affine=np.diag([*turn, 1, 1]) @ scan.affine)
    return scan


def _check(path: Path, header: Header) -> None:
    """Raises UserError where the sizes are none, or more than the file can hold."""
    fields = header.fields
    try:
        sizes = [int(size) for size in fields["sizes"].split()]
        itemsize = ITEMSIZE[fields["type"].lower()]
        ratio = PACKED[fields["encoding"].lower()]
        if min(sizes) < 1 or len(sizes) != int(fields["dimension"]):
            raise ValueError(f"sizes {fields['sizes']} of dimension {fields['dimension']}")
    except KeyError as error:
        known = "encoding is raw, gzip, ascii or hex, type a number"
        raise UserError(path, f"its header lacks or has an unknown {one_line(error)}; {known}") from error
    except ValueError as error:
        raise UserError(path, f"its header is damaged: {one_line(error)}") from error
    stored = _itk.stored_bytes(_parts(path, header), header.size)
    possible(path, math.prod(sizes) * itemsize, stored, ratio)


def _parts(path: Path, header: Header) -> list[Path]:
    """The header and the file of its values, which lies beside it. Raises UserError for values in several files."""
    return _itk.with_values(path, header.data_file) if header.data_file else [path]


def _mm(path: Path, header: Header) -> float:
    """The unit of length in mm. Raises UserError for axes of different units."""
    units = {unit for unit in header.fields.get("space units", "").replace('"', " ").split() if unit in MM}
    if len(units) > 1:
        raise UserError(path, f"has axes in {' and '.join(sorted(units))}; give all in mm")
    return MM[units.pop()] if units else 1.0


def _save(target: Path, scan: _itk.Scan, compressed: bool) -> None:
    """Writes `.nrrd`, or `.nhdr` with the values in a file of that name beside it."""
    whole = _itk.encoded(target, scan, READER, ".nrrd", compressed)
    if target.suffix.lower() == ".nrrd":
        write_atomically(target, whole)
        return
    data, size = target.with_suffix(".raw.gz" if compressed else ".raw"), Header.parse(whole).size
    write_atomically(data, whole[size:])
    write_atomically(target, whole[:size - 1] + f"data file: {data.name}\n".encode())
