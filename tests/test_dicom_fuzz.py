"""Damaged DICOM files: each is read, or refused in one line; `tests.mutations` makes as many variants as one likes."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from medjax.data.formats import dicom
from medjax.types import UserError
from tests.dicom_files import PYDICOM, siemens_mosaic, slices, united_mosaic
from tests.mutations import variants

SMALL = 300_000  # bytes; larger files differ in their pixels alone, which takes time


def tried(paths: list[Path]) -> str:
    """What came of reading files, and of writing what was read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # none reaches the user
            for group, _ in dicom.group(paths):
                records = dicom.read(group, "name", "subject")
                for record in records:
                    assert np.isfinite([record.slope, record.intercept, *record.spacing_mm]).all()
                    assert record.affine is None or np.isfinite(record.affine).all()
                target = paths[0].parent / "back"
                dicom.write(target, [r.image * r.slope + r.intercept for r in records], group)
                if target.is_file():
                    target.unlink()
                else:
                    target.rename(paths[0].parent / f"back_{group[0].name}")
    except UserError as error:
        return "refused" if "\n" not in str(error) else repr(error)
    return "read"


def test_damaged_files_are_read_or_refused_in_one_line(test_data, tmp_path):
    files = [test_data / "dicom" / "mr_t1w_head" / "N2D_0241.dcm", test_data / "badinput" / "DICOMDIR"]
    files += [*(test_data / "dicom" / "single").iterdir(), *(test_data / "badinput").glob("*.dcm")]
    files += [PYDICOM / "JPEG2000.dcm", united_mosaic(tmp_path, np.ones((12, 8, 8), np.uint16), 4)]
    outcomes = []
    for number, file in enumerate(sorted(file for file in files if file.stat().st_size < SMALL)):
        for data in variants(file.read_bytes(), 3, seed=number):
            path = tmp_path / file.name
            path.write_bytes(data)
            outcomes.append(tried([path]))
    assert outcomes.count("read") > 10  # the variants are not so damaged that nothing is tried
    assert outcomes.count("refused") > 10
    assert set(outcomes) == {"read", "refused"}


def test_a_damaged_slice_among_sound_ones(tmp_path):
    files = slices(tmp_path / "in", range(5))
    sound = files[2].read_bytes()
    outcomes = set()
    for number, data in enumerate(variants(sound, 30, seed=1)):
        files[2].write_bytes(data)
        (tmp_path / str(number)).mkdir()
        copies = [tmp_path / str(number) / file.name for file in files]
        for source, copy in zip(files, copies, strict=True):
            copy.write_bytes(source.read_bytes())
        outcomes.add(tried(copies))
    assert outcomes == {"read", "refused"}


@pytest.mark.slow
def test_damaged_mosaics(tmp_path):
    path = siemens_mosaic(tmp_path)
    for data in variants(path.read_bytes(), 30):
        path.write_bytes(data)
        assert tried([path]) in ("read", "refused")
