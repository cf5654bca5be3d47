"""What the benchmarks that train runs share: commands in processes of their own, and the file that a result goes to."""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medjax.files import write_atomically

ROOT = Path(__file__).parents[1]


def run(*words: str) -> None:
    """A command of Python in the repository's folder. Raises CalledProcessError where it fails."""
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def commit() -> str:
    """The short name of the commit that is checked out."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, cwd=ROOT, check=True, text=True, capture_output=True).stdout.strip()


def cpu_seconds() -> float:
    """Processor time of all processes that have ended: what else the machine did in the meantime does not change it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write(measure: Callable[[Path, list[str]], Mapping[str, Any]], runs: str, more: list[str], target: Path) -> None:
    """Writes what `measure` finds of runs in the folder `runs`, or in a temporary one, trained with `more` flags."""
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(runs or scratch).resolve(), more)
    write_atomically(target, json.dumps(found, indent=1) + "\n")
    print(f"written: {target}; next: python -m benchmarks.scores --tables")
