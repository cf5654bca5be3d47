"""What was uploaded: its kind by its contents, and archives unpacked within bounds."""

import gzip
import io
import zipfile
import zlib
from http import HTTPStatus
from pathlib import Path

from medjax.data.formats import dicom
from medjax.data.values import one_line
from medjax.serve.limits import MIB, Limits, RefusedError
from medjax.types import UserError

NIFTI, NIFTI_GZ, DICOM, ZIP, SERIES = "nii", "nii.gz", "dcm", "zip", "series"
"""Kinds of uploads: the suffix of their file, or the name of a folder of DICOM files."""
HEAD = 352  # bytes that tell the kind
ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")
ENTRY = 600  # bytes for each file in the directory of a zip
LONGEST, DEEPEST = 255, 16  # bytes of a name, folders above a file
WANTED = "give a NIfTI file (.nii, .nii.gz), a DICOM file, or a zip of DICOM files"


def kind_of(head: bytes) -> str:
    """The kind of an upload by its first `HEAD` bytes. Raises RefusedError."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ZIP
    if head.startswith(b"\x1f\x8b"):
        return NIFTI_GZ
    if head[128:132] == b"DICM":
        return DICOM
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return NIFTI
    raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the upload is of no known kind; {WANTED}")


def prepared(upload: Path, kind: str, limits: Limits) -> Path:
    """The file or folder that a run is applied to; the upload of an archive is removed. Raises UserError."""
    if kind == NIFTI_GZ:
        _check_inflated(upload, limits)
    if kind == ZIP:
        folder = upload.with_name(SERIES)
        _unpack(upload, folder, limits)
        upload.unlink()
        return folder
    return upload


def _allowed(size: int, limits: Limits) -> int:
    """To how many bytes an archive of `size` may unpack."""
    return min(limits.unpacked, max(limits.unsuspected, limits.ratio * size))


def _too_large(path: Path, most: int) -> UserError:
    return UserError(path, f"unpacks to more than {most >> 20} MiB, which is above the server's limits of size or ratio")


def _check_inflated(path: Path, limits: Limits) -> None:
    """Raises UserError where a gzip file would fill the memory, or is not what its checksum says."""
    most, size = _allowed(path.stat().st_size, limits), 0
    try:
        with gzip.open(path) as file:
            while part := file.read(MIB):
                size += len(part)
                if size > most:
                    raise _too_large(path, most)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(path, f"is damaged: {one_line(error)}; copy it again from its source") from error


class _Bounded(io.FileIO):
    """A file of which nothing is read in pieces above `most` bytes: the directory of a zip may claim any size."""

    def __init__(self, path: Path, most: int):
        super().__init__(path)
        self._path, self._most, self._size = path, most, path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(0, self._size - self.tell())
        if size > self._most:
            raise UserError(self._path, "its directory is larger than that of so many files as the server takes")
        return super().read(size)


def _unpack(path: Path, folder: Path, limits: Limits) -> None:
    """The DICOM files of a zip in a new folder. Raises UserError, before a byte too many is written."""
    most = _allowed(path.stat().st_size, limits)
    try:
        with _Bounded(path, max(MIB, ENTRY * limits.files)) as file, zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(path, members, limits.files, most)
            for member in members:
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("xb") as into:
                    while part := source.read(MIB):
                        most -= len(part)
                        if most < 0:
                            raise UserError(path, "holds more than its directory says")
                        into.write(part)
                _check_member(path, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise UserError(path, f"is damaged: {one_line(error)[:200]}") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(path, "has one name for a file and a folder") from error
    if not any(file.is_file() for file in folder.rglob("*")):
        raise UserError(path, f"holds no DICOM file; {WANTED}")


def _check(path: Path, members: list[zipfile.ZipInfo], files: int, most: int) -> None:
    """Raises UserError for what the directory of a zip says that is not taken."""
    if len(members) > files:
        raise UserError(path, f"holds {len(members)} files; the server takes {files}")
    if sum(member.file_size for member in members) > most:
        raise _too_large(path, most)
    if any(member.flag_bits & 1 for member in members):
        raise UserError(path, "is encrypted; give one without a password")
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise UserError(path, "is packed by another method than deflate; pack it again")
    if not all(_is_safe(member.filename) for member in members):
        raise UserError(path, "has names that lead out of their folder or that are no names of files; pack it again")
    if len({member.filename for member in members}) < len(members):
        raise UserError(path, "holds two files of one name")


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    return (len(parts) <= DEEPEST and not any(part in ("", ".", "..") or len(part.encode()) > LONGEST for part in parts)
            and name.isprintable() and "\\" not in name and ":" not in parts[0])


def _check_member(path: Path, file: Path) -> None:
    """Removes a file that is no DICOM. Raises UserError for an archive inside the archive."""
    with file.open("rb") as opened:
        head = opened.read(HEAD)
    if head.startswith(ARCHIVES):
        raise UserError(path, "holds another archive; give one that is packed once")
    if not dicom.accepts(file) or file.stat().st_size == 0:
        file.unlink()
