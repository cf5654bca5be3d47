"""MBIRJAX's side of cone_vs_mbirjax.py: runs in a Python that has mbirjax, not medjax.

    python cone_peer.py FOLDER forward|back|fdk CALLS

Reads FOLDER/given.npz, calls once and then CALLS times, writes the result as FOLDER/mbirjax_OPERATION.npy, and prints
seconds, those of the processor, and the most memory of the process as JSON.
"""

import json
import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"  # as its import advises on a CPU
warnings.simplefilter("ignore")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import mbirjax  # noqa: E402
import numpy as np  # noqa: E402


def main(folder: Path, operation: str, calls: int) -> None:
    given = dict(np.load(folder / "given.npz"))
    size, views = len(given["volume"]), len(given["angles"])
    model = mbirjax.ConeBeamModel(
        (views, *given["exact"].shape[1:]), jnp.asarray(given["angles"]), source_detector_dist=float(given["detector_mm"]),
        source_iso_dist=float(given["source_mm"]))
    model.set_params(no_warning=True, verbose=0, delta_det_channel=float(given["pitch_mm"]), use_ror_mask=False,
                     delta_det_row=float(given["pitch_mm"]), recon_shape=(size,) * 3, delta_voxel=1.0)
    run = {"forward": model.forward_project, "back": model.back_project, "fdk": model.fdk_recon}[operation]
    x = jnp.asarray(np.transpose(given["volume"], (1, 2, 0)) if operation == "forward"
                    else given["noise" if operation == "back" else "exact"])
    found = jax.block_until_ready(run(x))
    marks = [(time.perf_counter(), time.process_time())]
    for _ in range(calls):
        jax.block_until_ready(run(x))
        marks.append((time.perf_counter(), time.process_time()))
    result = np.asarray(found)
    np.save(folder / f"mbirjax_{operation}.npy", result if operation == "forward" else np.transpose(result, (2, 0, 1)))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1024
    seconds, cpu_seconds = np.diff(np.array(marks), axis=0).T.tolist()
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak,
                      "versions": {"mbirjax": version("mbirjax"), "mbirjax's jax": jax.__version__}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
