"""Several processes unpack the same files into one empty cache, again and again; in some rounds one of them is killed.

    python benchmarks/cold_cache.py --rounds=20 --kills=10 --json=benchmarks/results/cold_cache.json

Counted are processes that died of it, studies that were read more than once, entries that are not one per study, images
that are not those of the files, and what a run after a kill finds or leaves behind.
"""

import json
import multiprocessing
import os
import platform
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from absl import app, flags

from medjax.data.io import Study, discover
from medjax.data.storage import cache
from medjax.types import Record

PROCESSES = flags.DEFINE_integer("processes", 4, "How many share the cache.")
FILES = flags.DEFINE_integer("files", 150, "How many studies there are.")
ROUNDS = flags.DEFINE_integer("rounds", 20, "How often, with an empty cache each time.")
KILLS = flags.DEFINE_integer("kills", 10, "Rounds in which one process is killed at a random moment.")
SEED = flags.DEFINE_integer("seed", 0, "Of the files and the moments.")
JSON = flags.DEFINE_string("json", "", "Where to write the result.")

SHAPE = (24, 24, 12)
PATIENCE = 120


@dataclass
class Counted:
    """A study that counts how often it was read."""

    study: Study
    reads: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.study, name)

    def read(self) -> list[Record]:
        self.reads += 1
        return self.study.read()


def serve(pipe: Connection, folder: Path) -> None:
    """Unpacks into the caches that are sent, and returns how many studies it read and what the images add up to."""
    while True:
        root = pipe.recv()
        studies = [Counted(study) for study in discover(folder)]
        try:
            records = cache.unpack(studies, root)
            pipe.send((sum(study.reads for study in studies), [int(np.asarray(r.image).sum()) for r in records]))
        except Exception as error:
            pipe.send((type(error).__name__, str(error)))


class Worker:
    """A process that unpacks."""

    def __init__(self, folder: Path):
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, folder), daemon=True)
        self.process.start()
        theirs.close()

    def reply(self) -> tuple[Any, Any]:
        """What it counted; ("died", …) if it has ended, or hangs."""
        try:
            return self.pipe.recv() if self.pipe.poll(PATIENCE) else ("died", "no reply")
        except EOFError:
            return "died", "no reply"


def draw(folder: Path, count: int, seed: int) -> list[int]:
    """Files, and what the voxels of each add up to."""
    numbers = np.random.default_rng(seed)
    sums = []
    for number in range(count):
        values = numbers.integers(0, 1000, SHAPE).astype(np.int16)
        nibabel.Nifti1Image(values, np.eye(4)).to_filename(folder / f"s{number:04d}.nii.gz")
        sums.append(int(values.sum()))
    return sums


def entries(root: Path) -> int:
    """How many studies a cache holds; -1 where there is anything else."""
    names = [path.name for path in root.iterdir() if path.name != cache.LOCKS]
    return -1 if any(name.startswith(".") for name in names) else len(names)


def play(workers: list[Worker], root: Path, victim: int | None, wait: float) -> list[tuple[Any, Any]]:
    """A round: all begin at once, `victim` is killed after `wait` seconds. The replies of the others."""
    for worker in workers:
        worker.pipe.send(root)
    if victim is not None:
        time.sleep(wait)
        os.kill(workers[victim].process.pid, signal.SIGKILL)
        workers[victim].process.join()
    return [worker.reply() for number, worker in enumerate(workers) if number != victim]


def main() -> dict[str, Any]:
    moments = random.Random(SEED.value)
    found = {"died": 0, "wrong images": 0, "rounds with not one entry per study": 0, "rounds with a study read twice": 0}
    killed = {"kills": KILLS.value, "died with it": 0, "wrong images": 0, "leftovers after the next run": 0}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "in")
        folder.mkdir()
        expected = draw(folder, FILES.value, SEED.value)
        workers = [Worker(folder) for _ in range(PROCESSES.value)]
        play(workers, Path(place, "warm"), None, 0)  # imports aside
        begin = time.monotonic()
        for number in range(ROUNDS.value):
            root = Path(place, f"cache{number}")
            replies = play(workers, root, None, 0)
            reads = [count for count, _ in replies if isinstance(count, int)]
            found["died"] += len(replies) - len(reads)
            found["wrong images"] += sum(sums != expected for count, sums in replies if isinstance(count, int))
            found["rounds with not one entry per study"] += entries(root) != FILES.value
            found["rounds with a study read twice"] += sum(reads) != FILES.value
        seconds = (time.monotonic() - begin) / max(ROUNDS.value, 1)
        for number in range(KILLS.value):
            root, victim = Path(place, f"killed{number}"), moments.randrange(PROCESSES.value)
            replies = play(workers, root, victim, moments.uniform(0, seconds))
            workers[victim] = Worker(folder)
            replies += play(workers, root, None, 0)  # the next run finds what is whole, and makes the rest
            killed["died with it"] += sum(not isinstance(count, int) for count, _ in replies)
            killed["wrong images"] += sum(sums != expected for count, sums in replies if isinstance(count, int))
            killed["leftovers after the next run"] += entries(root) != FILES.value
        for worker in workers:
            worker.process.kill()
    return {"processes": PROCESSES.value, "studies": FILES.value, "rounds": ROUNDS.value, **found, "killed": killed,
            "python": platform.python_version(), "system": platform.system()}


def run(_: list[str]) -> None:
    result = json.dumps(main(), indent=1)
    print(result)
    if JSON.value:
        Path(JSON.value).write_text(result + "\n", encoding="utf-8")
    sys.exit(0)


if __name__ == "__main__":
    app.run(run)
