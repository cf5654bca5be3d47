"""Reads damaged variants of files, each with a limit of time and memory, and counts what comes of it.

    python -m benchmarks.fuzz --json=benchmarks/results/fuzz.json
    python -m benchmarks.fuzz --folder=SCANS,MORE_SCANS --variants=200

Without `--folder` the files are drawn (`benchmarks/fuzz_files.py`), one of every format. A variant is "read", refused in one
line ("UserError"), ends in a "traceback" (a warning counts as one), "hang"s, takes too much "memory", or ends the process
("crash"). Too much is more than four times what the file claims to hold, and more than 1 GiB.
"""

import json
import multiprocessing
import os
import platform
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging
from tqdm import tqdm

from benchmarks.fuzz_files import draw, variants
from medjax.data.formats import _hdf5
from medjax.data.io import Study, discover, formats, read
from medjax.types import UserError

FOLDER = flags.DEFINE_list("folder", [], "Folders of files to damage; drawn files if none is given.")
VARIANTS = flags.DEFINE_integer("variants", 200, "Of each file.")
SEED = flags.DEFINE_integer("seed", 0, "Of the damage.")
SECONDS = flags.DEFINE_integer("seconds", 60, "After which a read hangs.")
LARGEST = flags.DEFINE_integer("largest", 1 << 22, "Bytes of a file; larger ones are left out.")
KEEP = flags.DEFINE_string("keep", "", "Folder for the variants that hang, take too much memory or end the process.")
JSON = flags.DEFINE_string("json", "", "Where to write the result.")

OUTCOMES = ("read", "UserError", "traceback", "hang", "memory", "crash")
FREE = 1 << 30  # bytes that any read may take
TIMES = 4  # what a read may take of what its file holds
ROOM = 12 << 30  # bytes of address space beyond which a process gets no more
HDF5_PATIENCE = 3.0  # seconds after which HDF5 is ended, so that the many files that it never ends with don't take hours
LIBRARIES = ("numpy", "nibabel", "pillow", "h5py", "scipy", "SimpleITK", "pydicom", "av")


def status(key: str) -> int:
    """Bytes of this process's memory, as the system counts them."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


def attempt(path: Path, kind: str) -> tuple[str, str]:
    """The outcome of reading a file, and what says more of it."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as peak:
        peak.write("5")  # forgets the highest memory so far
    before, claimed, outcome, more = status("VmRSS"), 0, "read", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            records = read(path, kind)
        arrays = [array for record in records for array in (record.image, *record.extras.values())]
        claimed = sum(np.asarray(array).nbytes for array in arrays)
    except UserError as error:
        outcome, more = ("UserError", "") if "\n" not in str(error) else ("traceback", f"several lines: {error}")
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "medjax/data" in frame.filename]
        where = f"{frames[-1].filename.rpartition('medjax/')[2]}:{frames[-1].lineno}" if frames else "?"
        outcome, more = "traceback", f"{type(error).__name__} at {where}: {str(error)[:100]}"
    taken = status("VmHWM") - before
    if taken > max(FREE, TIMES * claimed):
        return "memory", f"{taken >> 20} MiB for {claimed >> 20} MiB"
    return outcome, more


def serve(pipe: Connection) -> None:
    """Reads what is sent, until the pipe ends."""
    logging.set_verbosity(logging.FATAL)
    _hdf5.PATIENCE = HDF5_PATIENCE
    limit = status("VmSize") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(os.devnull, "w", encoding="ascii") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # what libraries write beside
    while True:
        path, kind = pipe.recv()
        pipe.send(attempt(path, kind))


@dataclass
class Reader:
    """A process that reads, replaced when it hangs or ends."""

    process: Any = None
    pipe: Any = None

    def outcome(self, path: Path, kind: str) -> tuple[str, str]:
        """What comes of reading a file."""
        if self.process is None:
            self.pipe, theirs = multiprocessing.Pipe()
            self.process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()
        self.pipe.send((path, kind))
        try:
            if self.pipe.poll(SECONDS.value):
                return self.pipe.recv()
            outcome = "hang", f"after {SECONDS.value} s"
        except EOFError:
            self.process.join()
            outcome = "crash", f"exit code {self.process.exitcode}"
        self.close()
        return outcome

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
        self.process = None


def studies(folder: Path) -> list[tuple[Study, str]]:
    """The files in a folder that are read alone, or with others of their name, and their kinds."""
    found = []
    for kind in sorted({module.KIND for module in formats().values()}):
        try:
            found += [(study, kind) for study in discover(folder, kind=kind)]
        except UserError as error:
            print(error)
    return [(study, kind) for study, kind in found if len(study.paths) <= 2]


def damaged(study: Study, kind: str, reader: Reader, place: Path) -> Counter[tuple[str, str]]:
    """The outcomes of the variants of a study; of one in two files, each is damaged in half of them."""
    counts: Counter[tuple[str, str]] = Counter()
    share = VARIANTS.value // len(study.paths)
    for path in study.paths:
        copies = [place / other.name for other in study.paths]
        for other, copy in zip(study.paths, copies, strict=True):
            shutil.copyfile(other, copy)
        for data in variants(path, share, SEED.value):
            (place / path.name).write_bytes(data)
            outcome = reader.outcome(copies[0], kind)
            counts[outcome] += 1
            if KEEP.value and outcome[0] in ("hang", "memory", "crash"):
                kept = Path(KEEP.value, f"{outcome[0]}-{counts[outcome]}")
                kept.mkdir(parents=True, exist_ok=True)
                for copy in copies:
                    shutil.copy(copy, kept)
        for copy in copies:
            copy.unlink()
    return counts


def run(folders: list[Path], place: Path) -> dict[str, Any]:
    reader, table, remarks = Reader(), {}, Counter()
    found = [one for folder in folders for one in studies(folder)]
    small = [one for one in found if max(path.stat().st_size for path in one[0].paths) <= LARGEST.value]
    for study, kind in tqdm(small, "fuzz", unit="file"):
        if reader.outcome(study.paths[0], kind)[0] != "read":
            remarks[f"{study.format}: not read as it is: {study.paths[0].name if not FOLDER.value else study.suffix}"] += 1
        counts = damaged(study, kind, reader, place)
        row = table.setdefault(f"{study.format} {study.suffix}".strip(), dict.fromkeys(("files", *OUTCOMES), 0))
        row["files"] += 1
        for (outcome, more), count in counts.items():
            row[outcome] += count
            if more:
                remarks[f"{study.format}: {outcome}: {more}"] += count
    reader.close()
    total = {outcome: sum(row[outcome] for row in table.values()) for outcome in OUTCOMES}
    return {"variants of each file": VARIANTS.value, "seed": SEED.value, "total": total,
            "kinds": dict(sorted(table.items())), "remarks": dict(remarks.most_common()),
            "python": platform.python_version(), "versions": {name: version(name) for name in LIBRARIES}}


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        drawn, place = Path(scratch, "drawn"), Path(scratch, "damaged")
        drawn.mkdir()
        place.mkdir()
        if not FOLDER.value:
            draw(drawn)
        result = json.dumps(run([Path(folder) for folder in FOLDER.value] or [drawn], place), indent=1)
    print(result)
    if JSON.value:
        Path(JSON.value).write_text(result + "\n", encoding="utf-8")
    sys.exit(0)


if __name__ == "__main__":
    app.run(main)
