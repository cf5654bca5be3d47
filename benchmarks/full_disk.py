"""Trains on disks that are too small, each of which fills at another moment, and resumes once there is room.

    python -m benchmarks.full_disk --moments=20 --json=benchmarks/results/full_disk.json

A disk is a tmpfs, so the command needs root, or `unshare --map-root-user --mount` before it. The run is on files of its own;
its folder and the cache that the files are unpacked into are on the disk. The sizes of the disks are spread over what the
whole run writes. Counted are runs that did not end in one line, with exit code 2, or took more than 10 seconds from
the last byte written to their end; and runs whose end, after the disk has grown, is not that of an undisturbed one.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from tqdm import tqdm

from benchmarks import small_run

MOMENTS = flags.DEFINE_integer("moments", 20, "How many sizes of the disk.")
STEPS = flags.DEFINE_integer("steps", 100, "Length of the run.")
FILES = flags.DEFINE_integer("files", 8, "Files to train on.")
JSON = flags.DEFINE_string("json", "", "Where to write the result.")

SECONDS = 10  # from a full disk to the end of the process
PATIENCE = 300
LARGE = 1 << 28  # bytes; more than the run writes
SHAPE = (64, 64, 8)


@contextlib.contextmanager
def disk(place: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes at `place`."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def used(place: Path) -> int:
    """Bytes written to the disk."""
    state = os.statvfs(place)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def train(place: Path, keys: list[str]) -> tuple[int, float, list[str], int]:
    """Exit code (None for a hang), seconds from the last change of the disk, lines of the error, most bytes in use."""
    os.environ["XDG_CACHE_HOME"] = str(place / "cache")
    [process] = small_run.start(place / "run", STEPS.value, keys, beside=place.parent)
    begin = changed = time.monotonic()
    most = before = 0
    while process.poll() is None and time.monotonic() - begin < PATIENCE:
        time.sleep(0.02)
        now = used(place)
        most = max(most, now)
        if now != before and now > 0:
            before, changed = now, time.monotonic()
    took = time.monotonic() - changed
    if process.poll() is None:
        process.kill()
    process.wait()
    said = (place.parent / "err0").read_text(encoding="utf-8")
    lines = [line for line in said.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]  # no bars
    return process.returncode, took, lines, most


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    found: Counter[str] = Counter()
    remarks: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        keys, place = small_run.draw_files(Path(folder, "files"), FILES.value, SHAPE), Path(folder, "disk")
        with disk(place, LARGE):
            train(place, keys)  # fills the compilation cache
            for path in place.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            code, _, said, most = train(place, keys)
            if code:
                raise RuntimeError(f"exit code {code}: {said}")
            reference = small_run.end(place / "run", STEPS.value)
        for moment in tqdm(range(MOMENTS.value), "full disk", unit="disk"):
            size = max(1 << 12, most * (moment + 1) // (MOMENTS.value + 1))
            with disk(place, size):
                outcome = one(place, keys, reference)
            slowest = max(slowest, outcome.pop("seconds"))
            remarks[outcome.pop("said")] += 1
            found.update(name for name, bad in outcome.items() if bad)
    names = ("no error", "another exit code", "several lines", "too slow", "not resumed", "another end")
    summary: dict[str, Any] = {"disks": MOMENTS.value, "bytes of a whole run": most, **{name: found[name] for name in names},
                               "slowest, seconds": round(slowest, 2), "said": dict(remarks.most_common()),
                               "jax": jax.__version__}
    print(json.dumps(summary, indent=1))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    sys.exit(int(bool(found)))


def one(place: Path, keys: list[str], reference: dict[str, str]) -> dict[str, Any]:
    """What goes wrong on the disk at `place`, and after it has grown."""
    code, took, said, _ = train(place, keys)
    errors = [line for line in said if not line.startswith("warning:")]
    outcome: dict[str, Any] = {"no error": code == 0, "another exit code": code not in (0, 2),
                               "several lines": len(errors) > 1, "too slow": took > SECONDS, "seconds": took,
                               "said": " / ".join(errors).replace(str(place), "DISK")[:300]}
    subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(place)], check=True)
    code, _, said, _ = train(place, keys)
    same = code == 0 and small_run.end(place / "run", STEPS.value) == reference
    if code:
        outcome["said"] += f" / then {code}: " + " / ".join(said)[:300]
    return outcome | {"not resumed": code != 0, "another end": code == 0 and not same}


if __name__ == "__main__":
    app.run(main)
