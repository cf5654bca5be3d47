"""A peer in a process of its own, with its own Python: two runtimes in one process would fight over the cores."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from medjax.types import UserError

CHILD = Path(__file__).with_name("peers") / "child.py"


class Peer:
    """`module` of the folder `peers`, served by `python`. It works only while a call waits for its answer.

    Raises UserError where the interpreter or a package that the module needs is missing.
    """

    def __init__(self, module: str, python: str = ""):
        self._python = python or os.environ.get("MEDJAX_PEER_PYTHON", sys.executable)
        if shutil.which(self._python) is None:
            raise UserError("--peer_python", f"{self._python} is no program; name the Python that has the peer installed")
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        self._process = subprocess.Popen([self._python, str(CHILD), module], stdin=subprocess.PIPE, text=True,
                                         stdout=subprocess.PIPE, env=environment)
        try:
            self.versions: dict[str, str] = self._read()
        except UserError:
            self.close()
            raise

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, **arguments: Any) -> Any:
        """What the peer's `method` returns."""
        self._process.stdin.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _read(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise UserError("--peer", f"{self._python} ended early with code {self._process.wait()}")
        reply = json.loads(line)
        if "missing" in reply:
            raise UserError("--peer", f"{self._python} has no {reply['missing']}; pip install -r benchmarks/peers.txt, "
                            "or name a Python that has it with --peer_python or MEDJAX_PEER_PYTHON")
        if "error" in reply:
            raise UserError("--peer", reply["error"])
        return reply["result"]
