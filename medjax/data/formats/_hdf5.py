"""HDF5 files, opened so that nothing outside them is read, no more memory is taken than they can fill, and none hangs."""

import json
import math
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, cast

import h5py

from medjax.data.values import DEFLATE, one_line, possible
from medjax.types import UserError

DAMAGE = (OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, MemoryError, AttributeError)
PROBE = Path(__file__).with_name("_hdf5_probe.py")
START = 120.0  # seconds that the process may take to begin
PATIENCE = 30.0  # seconds for a text
SLOWEST = 5 << 20  # bytes a second that lists are read with at least


@dataclass(frozen=True)
class Request:
    """Attributes and texts of a file that are wanted, and lists of variable length that will be read, by their names."""

    path: Path
    attributes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


def ask(requests: Sequence[Request]) -> list[dict[str, str] | UserError]:
    """What each request finds, by name, or what is wrong with its file.

    Values of variable length, such as texts, lie in a heap that HDF5 follows without a check: damaged ones keep it busy for
    ever. So they are read by a process of its own, which is ended then.
    """
    answers: list[dict[str, str] | UserError] = []
    while len(answers) < len(requests):
        with subprocess.Popen([sys.executable, "-P", str(PROBE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True) as process:
            _line(process, START)  # it says that it is there
            for request in requests[len(answers):]:
                answers.append(_answer(process, request))
                if process.poll() is not None:
                    break  # a new one goes on with the next file
            process.kill()
    return answers


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, for reading. What HDF5 says is wrong, here or inside of the `with`, becomes a UserError."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DAMAGE as error:
        raise UserError(path, f"damaged, or no HDF5 file: {one_line(error)}") from error


def holds(path: Path, name: str) -> bool:
    """Whether the file has a data set or group `name`; False for what can't be opened."""
    try:
        with h5py.File(path, "r") as file:
            return name in file
    except DAMAGE:
        return False


def dataset(path: Path, group: h5py.Group, name: str) -> h5py.Dataset:
    """A data set that lies in the file itself. Raises UserError where it doesn't, or claims what the file can't hold."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], h5py.Dataset):
        raise UserError(path, f"has no data set {name}, only {', '.join(group) or 'nothing'} (links to others don't count)")
    found = group[name]
    if found.is_virtual or found.external:
        raise UserError(path, f"has the values of {name} in other files; give one that holds them")
    claimed = math.prod(found.shape) * found.dtype.itemsize
    possible(path, claimed, found.id.get_storage_size(), DEFLATE if found.id.get_create_plist().get_nfilters() else 1)
    possible(path, found.id.get_storage_size(), path.stat().st_size)
    return found


def _answer(process: subprocess.Popen[str], request: Request) -> dict[str, str] | UserError:
    """The answer to one request; where there is none, the process has been ended."""
    line = ""
    with suppress(OSError):  # the file is gone, or the process
        size = request.path.stat().st_size
        patience = PATIENCE + (size / SLOWEST if request.lists else 0)
        pipe = cast(IO[str], process.stdin)
        pipe.write(json.dumps({**asdict(request), "path": str(request.path), "size": size,
                                "seconds": math.ceil(patience) + 1}) + "\n")
        pipe.flush()
        line = _line(process, patience)
    if not line:
        process.kill()
        process.wait()
        return UserError(request.path, "damaged: HDF5 comes to no end with it, or to a sudden one")
    said = json.loads(line)
    return said["found"] if "found" in said else UserError(request.path, f"damaged, or no HDF5 file: {said['problem']}")


def _line(process: subprocess.Popen[str], seconds: float) -> str:
    """What the process says next, "" where it says nothing."""
    pipe = cast(IO[str], process.stdout)
    return pipe.readline() if select.select([pipe], [], [], seconds)[0] else ""
