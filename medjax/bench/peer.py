"""A peer in a process of its own, with its own Python: two runtimes in one process would fight over the cores."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from medjax.types import UserError

CHILD = Path(__file__).with_name("peers") / "child.py"
INSTALLED = Path(__file__).parents[2] / ".peers" / "bin" / "python"
"""What `make peers` makes."""


class Peer:
    """`module` of the folder `peers`, served by `python` (see `find_python`). It works only while a call waits for it.

    Raises UserError where the interpreter or a package that the module needs is missing.
    """

    def __init__(self, module: str, python: str = ""):
        self._python = find_python(python)
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        self._process = subprocess.Popen([self._python, str(CHILD), module], stdin=subprocess.PIPE, text=True,
                                         stdout=subprocess.PIPE, env=environment)
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._replies = self._process.stdin, self._process.stdout
        try:
            self.versions: dict[str, str] = self._read()
        except UserError:
            self.close()
            raise

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, **arguments: object) -> Any:
        """What the peer's `method` returns, a JSON value. Raises UserError where it fails."""
        try:
            self._requests.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
            self._requests.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._read()

    def close(self) -> None:
        """Ends the process."""
        with suppress(BrokenPipeError):
            self._requests.close()
        self._replies.close()
        self._process.wait()

    def _read(self) -> Any:
        line = self._replies.readline()
        if not line:
            raise self._ended()
        reply = json.loads(line)
        if "missing" in reply:
            raise UserError("--peer", f"{self._python} has no {reply['missing']}; run `make peers`, or name a Python that "
                            "has it with --peer_python or MEDJAX_PEER_PYTHON")
        if "error" in reply:
            raise UserError("--peer", reply["error"])
        return reply["result"]

    def _ended(self) -> UserError:
        return UserError("--peer", f"{self._python} ended early with code {self._process.wait()}")


def find_python(given: str = "") -> str:
    """`given`, else MEDJAX_PEER_PYTHON, else that of `make peers`, else this one. Raises UserError if it is no program."""
    python = given or os.environ.get("MEDJAX_PEER_PYTHON") or str(INSTALLED if INSTALLED.exists() else sys.executable)
    found = shutil.which(python)
    if found is None:
        where = "--peer_python" if given else "MEDJAX_PEER_PYTHON"
        raise UserError(where, f"{python} is no program; name the Python that has the peer installed")
    return os.path.abspath(found)  # whoever runs it may be in another folder
