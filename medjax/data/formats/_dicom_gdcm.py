"""DICOM pixels that GDCM alone decodes. Damaged streams make it end the process, so it runs in one of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, cast

import numpy as np

PROBE = Path(__file__).with_name("_dicom_gdcm_probe.py")
PATIENCE = 30  # seconds for a file, and
SLOWEST = 1 << 20  # one more for so many bytes of its pixels

_running: dict[int, subprocess.Popen[bytes]] = {}  # by the process that asks: forked ones don't share


def decoded(path: Path, size: int) -> np.ndarray:
    """The pixels of a file, as `pydicom.pixels.pixel_array` gives them; its header claims `size` bytes of them.

    Raises ValueError where they can't be decoded.
    """
    process = _running.get(os.getpid())
    if process is None or process.poll() is not None:
        process = _running[os.getpid()] = subprocess.Popen([sys.executable, "-P", str(PROBE)], stdin=subprocess.PIPE,
                                                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    request = {"path": str(path.absolute()), "size": size, "seconds": PATIENCE + size // SLOWEST}
    questions, answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
    questions.write(json.dumps(request).encode() + b"\n")
    questions.flush()
    line = answers.readline()
    if not line:
        process.wait()
        raise ValueError("GDCM comes to no end with them, or to a sudden one")
    said = json.loads(line)
    if "problem" in said:
        raise ValueError(said["problem"])
    pixels = np.empty(said["shape"], said["dtype"])
    pixels.reshape(-1).view(np.uint8)[...] = np.frombuffer(answers.read(pixels.nbytes), np.uint8)
    return pixels
