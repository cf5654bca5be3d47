"""Decodes DICOM pixels in a process of its own, as damaged streams make GDCM end the process, or keep it busy for ever.

It is run by `medjax.data.formats._dicom_gdcm`: it answers each line of its input, a JSON request, with a line of JSON and,
where that names a shape, the pixels.
"""

import json
import resource
import signal
import sys

import numpy as np
from pydicom.pixels import pixel_array

from medjax.data.formats._probe_limit import limit

ROOM = 256 << 20  # bytes of memory beside a few times the pixels


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        signal.alarm(request["seconds"])
        pixels = np.empty(0)
        try:
            limit(ROOM + 8 * request["size"])
            pixels = np.ascontiguousarray(pixel_array(request["path"], decoding_plugin="gdcm"))
            said = {"shape": pixels.shape, "dtype": pixels.dtype.str}
        except Exception as error:
            said = {"problem": " ".join(str(error).split()) or type(error).__name__}
        signal.alarm(0)
        sys.stdout.buffer.write(json.dumps(said).encode() + b"\n" + pixels.tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
