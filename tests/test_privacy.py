"""Who patients are stands in their DICOM files and nowhere else: planted through training, evaluation, use and a crash."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.commands import SMALL, command
from tests.dicom_files import image

PLANTED = ("PLANTEDNAME", "PLANTEDID", "PLANTEDSTUDY", "PLANTEDFOLDER", "PLANTEDFILE", "19470203", "PLANTEDCOMMENT")
NAMED = "PLANTEDSERIES"  # of a series, free text: for the screen alone
SIZE = (32, 32)


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    """Three series of four slices."""
    folder = tmp_path_factory.mktemp("clinic") / "in"
    random = np.random.default_rng(0)
    for patient in range(3):
        place = folder / f"PLANTEDFOLDER{patient}"
        place.mkdir(parents=True)
        for z in range(4):
            pixels = random.integers(0, 400, SIZE).astype(np.uint16)
            pixels[4:-4, 4:-4] += 300
            made = image(pixels, float(z), InstanceNumber=z + 1, PatientName=f"PLANTEDNAME^{patient}",
                         PatientID=f"PLANTEDID{patient}", PatientBirthDate="19470203", StudyDescription="PLANTEDSTUDY",
                         ImageComments="PLANTEDCOMMENT", SeriesDescription=NAMED, PixelSpacing=[1.0, 1.0],
                         SeriesInstanceUID=f"1.2.3.{patient + 1}")
            made.save_as(place / f"PLANTEDFILE{z}.dcm", enforce_file_format=True)
    return folder


def found_in(*folders: Path) -> list[str]:
    """The planted texts in contents and names of files, results that were written for a patient left out."""
    found = []
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".dcm":
            continue
        content = path.read_bytes()
        found += [f"{path}: {text}" for text in (*PLANTED, NAMED) if text.encode() in content or text in path.name]
    return found


@pytest.mark.slow
def test_nobody_is_named_by_what_is_written(series, tmp_path, monkeypatch):
    cache, runs, out = (tmp_path / name for name in ("cache", "runs", "out"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    train = ("train.py", *SMALL, f"--config.data.path={series}", "--config.steps=2",
             "--config.eval_every=2")
    code, said, err = command(*train, f"--workdir={runs / 'whole'}")
    assert code == 0, err
    assert not [text for text in PLANTED if text in said + err]
    assert f"series read: {NAMED} (3 images)" in said
    process = command(*train, "--config.steps=4000", f"--workdir={runs / 'killed'}", wait=False)
    curves, end = runs / "killed" / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None and not (curves.exists() and curves.stat().st_size):
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    code, said, err = command("-m", "medjax.apply", f"--workdir={runs / 'whole'}", f"--input={series}", f"--output={out}")
    assert code == 0, err
    assert not [text for text in PLANTED if text in said + err]
    assert found_in(cache, runs, out) == []
    assert (cache / "medjax").stat().st_mode & 0o077 == 0
    # What is written for a patient is the patient's.
    derived = sorted(out.rglob("*.dcm"))
    assert len(derived) == 12
    assert pydicom.dcmread(derived[0]).PatientID == "PLANTEDID0"
