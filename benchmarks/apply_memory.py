"""The most memory that `apply` takes on a large series, over what the files of input and output hold.

    python -m benchmarks.apply_memory --json=benchmarks/results/apply_memory.json

A 2-D and a 3-D network of a few channels, trained for two steps, on int16 volumes of 512 x 512 x 400 as NIfTI, compressed
and not, and as a DICOM series. The size of the network's own activations does not depend on the volume.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import nibabel
import numpy as np
from absl import app, flags

from tests.dicom_files import image

SHAPE = flags.DEFINE_list("shape", ["512", "512", "400"], "Voxels: rows, columns, slices.")
JSON = flags.DEFINE_string("json", "", "Where to write the result.")

ROOT = Path(__file__).parents[1]
ROOM = 1 << 30  # bytes beyond input and output
TRAIN = ["--config=configs/quickstart.py", "--config.steps=2", "--config.batch_size=2", "--config.model.width=8",
         "--config.data.workers=0", "--config.references=('none',)", "--config.eval_samples=1",
         "--config.data.range=(0.0,4096.0)"]
NETWORKS = {"2-D": ["--config.data.patch=(32,32)"], "3-D": ["--config.data.ndim=3", "--config.data.patch=(16,16,16)"]}


def draw(folder: Path, shape: tuple[int, ...]) -> list[Path]:
    """A head-sized ellipsoid with noise, as the inputs to be tried."""
    numbers = np.random.default_rng(0)
    rows, columns, count = shape
    volume = np.empty(shape, np.int16)
    y, x = (np.linspace(-1, 1, size)[:, None] for size in (rows, columns))
    for k, z in enumerate(np.linspace(-1, 1, count)):
        inside = y**2 + x.T**2 + z**2 < 0.8
        volume[..., k] = inside * numbers.normal(1500, 200, (rows, columns)).clip(1, 4000)
    paths = [folder / "flat.nii", folder / "packed.nii.gz", folder / "series"]
    for path in paths[:2]:
        nibabel.Nifti1Image(volume, np.diag([0.5, 0.5, 0.8, 1.0])).to_filename(path)
    paths[2].mkdir()
    for k in range(count):
        image(volume[..., k].view(np.uint16), 0.8 * k, InstanceNumber=k + 1).save_as(
            paths[2] / f"{k:04d}.dcm", enforce_file_format=True)
    return paths


def most_memory(command: list[str]) -> tuple[int, float]:
    """Bytes at most, and seconds, that a command takes. Raises RuntimeError where it fails."""
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(said.decode()[-2000:])
    return usage.ru_maxrss << 10, time.monotonic() - begin


def main(_: list[str]) -> None:
    shape = tuple(int(size) for size in SHAPE.value)
    holds = int(np.prod(shape)) * np.dtype(np.int16).itemsize
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        paths = draw(folder, shape)
        for name, keys in NETWORKS.items():
            most_memory(["train.py", *TRAIN, *keys, f"--workdir={folder / name}"])
            for path in paths:
                output = folder / f"{name}-{path.name}"
                most, seconds = most_memory(["-m", "medjax.apply", f"--workdir={folder / name}", f"--input={path}",
                                             f"--output={output}", "--accept=modality,units,spacing,values"])
                rows[f"{name}, {path.name}"] = {"MiB at most": most >> 20, "seconds": round(seconds, 1),
                                                "within": most <= 2 * holds + ROOM}
    summary = {"shape": shape, "MiB of the input": holds >> 20, "MiB allowed": (2 * holds + ROOM) >> 20, "runs": rows,
               "jax": jax.__version__}
    print(json.dumps(summary, indent=1))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(row["within"] for row in rows.values()) else 1)


if __name__ == "__main__":
    app.run(main)
