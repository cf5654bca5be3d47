"""Reads texts and lists of HDF5 files in a process of its own, as damaged ones keep HDF5 busy for ever, or end the process.

It is run by `medjax.data.formats._hdf5`: it says that it is ready, then answers each line of its input, a JSON request, with
one of its output.
"""

import json
import signal
import sys
from typing import Any

import h5py

from medjax.data.formats._probe_limit import limit

ROOM = 512 << 20  # bytes of memory beside a few times the size of the file


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The attributes and texts that are asked for, by name, where they are there; `lists` are read and thrown away."""
    with h5py.File(request["path"], "r") as file:
        found = {name: text(file.attrs[name]) for name in request["attributes"] if name in file.attrs}
        found |= {name: text(file[name][()]) for name in request["texts"] if name in file}
        for name in request["lists"]:
            if name in file:
                file[name][()]
    return found


def text(value: Any) -> str:
    """The value of a text, whatever way it is stored."""
    value = value.ravel()[0] if getattr(value, "ndim", 0) else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.alarm(request["seconds"])  # ends the process, should no one be left who would
        try:
            limit(ROOM + 8 * request["size"])
            said = json.dumps({"found": answer(request)})
        except Exception as error:
            said = json.dumps({"problem": " ".join(str(error).split()) or type(error).__name__})
        signal.alarm(0)
        print(said, flush=True)


if __name__ == "__main__":
    main()
