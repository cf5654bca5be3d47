"""DICOM files on the disk, whole or not at all."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from medjax.data.values import one_line
from medjax.types import UserError


def save(target: Path, dataset: Dataset) -> None:
    """One file, written under another name and renamed."""
    partial = target.with_name(f".partial-{target.name}")
    try:
        _write(partial, dataset)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def save_all(target: Path, files: Iterable[tuple[str, Dataset]]) -> None:
    """All files of a series, or none: written into a folder of another name that is renamed."""
    if target.exists():
        raise UserError(target, "is there already; name a new folder for the series")
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    try:
        for name, dataset in files:
            _write(partial / name, dataset)
        partial.chmod(0o755)
        os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(path: Path, dataset: Dataset) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.save_as(path, enforce_file_format=True)
    except Exception as error:  # pydicom raises what it meets in a header that is damaged where nothing else looked
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; pydicom's own have no number
            raise
        where = getattr(dataset, "filename", None) or path.name
        raise UserError(where, f"its header can't be written: {one_line(error)[:200]}") from error
