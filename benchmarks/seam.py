"""What a 3-D denoiser loses where a volume goes through it in tiles, on people who took no part in training.

    python -m benchmarks.seam --config.data.path=FOLDER

Two networks are trained, without normalisation and with one over the image, whose statistics differ from tile to tile. A
seam is the PSNR of the whole volume's result less that of the result in tiles, both against the truth; `near` is the same
over the voxels within two of a tile's border. Written is `benchmarks/results/seam.json`; `python -m benchmarks.scores
--tables` then writes the table of benchmarks/README.md. Runs that are in `--runs` already are not trained again.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks.scores import ROOT, RUNS, SEAM, command_of, config_of, values_of
from medjax.data.pipeline import whole_batch
from medjax.files import write_atomically
from medjax.infer.predict import VOXELS, make_predict, make_program, tile_of
from medjax.infer.tiling import Arrays, tiled
from medjax.measures.statistics import by_patient, interval
from medjax.train.run import Run, load_splits, restore_best
from medjax.types import Example, Prediction

JSON = flags.DEFINE_string("json", "", "Where the results go, another place than benchmarks/results.")

NORMS = ("none", "group")
SIZES = (VOXELS, VOXELS // 4, VOXELS // 16)  # of tiles, in voxels at most: the first as `apply` has it
NEAR = 2  # voxels from a tile's border


def measure(runs: Path, more: Sequence[str]) -> dict[str, Any]:
    """Trains what is not there yet, with further flags, and compares tiles with whole volumes for every test patient."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, text=True, capture_output=True)
    found: dict[str, Any] = {"command": command_of(SEAM.stem), "config": values_of(config_of(SEAM.stem)),
                             "commit": commit.stdout.strip(), "jax": jax.__version__, "norms": {}}
    for norm in NORMS:
        workdir = runs / norm
        if not (workdir / "eval" / "metrics.json").exists():
            words = [*shlex.split(command_of(SEAM.stem))[1:], f"--config.model.norm={norm}", *more]
            subprocess.run([sys.executable, *words, f"--workdir={workdir}"], cwd=ROOT, check=True)
        found["norms"][norm] = compare(workdir)
    return found


def compare(workdir: Path) -> dict[str, Any]:
    """PSNR of the run's test volumes whole, and seams by size of tile: means over patients with 95 % intervals."""
    run, state = restore_best(workdir)
    whole, ndim = jax.jit(make_program(run, state)), run.task.input_ndim
    in_tiles = {size: make_predict(run, state, size) for size in SIZES}
    regions = load_splits(run.config, workdir)["test"]
    values: dict[tuple[str, str], list[float]] = {}
    for region in regions:
        example = run.task.example(jax.random.key(0), whole_batch(region.record, ndim))
        low, high = run.task.data_range
        image = np.asarray(example.input.image[0]) * (high - low) + low
        noisy = replace(region.record, image=image, slope=1.0, intercept=0.0)
        full = jax.device_get(whole(whole_batch(noisy, ndim), None).image[0])
        own = _psnr(run, example, full)
        values.setdefault(("whole", "psnr"), []).append(own)
        for size, predict in in_tiles.items():
            tile, image = tile_of(full.shape[:-1], size), np.asarray(predict(noisy).image)
            near = borders(full.shape[:-1], tile)
            name = "x".join(map(str, tile))
            values.setdefault((name, "seam"), []).append(own - _psnr(run, example, image))
            values.setdefault((name, "near"), []).append(_psnr(run, example, full, near) - _psnr(run, example, image, near))
    patients = [region.record.subject for region in regions]
    found: dict[str, Any] = {"patients": len(set(patients))}
    for (name, what), numbers in values.items():
        each = by_patient(numbers, patients)
        low, high = interval(each)
        found.setdefault(name, {})[what] = {"mean": float(each.mean()), "low": low, "high": high, "most": float(each.max())}
    return found


def borders(space: Sequence[int], tile: Sequence[int]) -> np.ndarray:
    """Which voxels `(*space, 1)` lie within `NEAR` of a tile's border inside the image."""
    inner = tuple(slice(NEAR, -NEAR) if size > part else slice(None) for size, part in zip(space, tile, strict=True))
    frame = np.ones((*tile, 1), np.float32)
    frame[inner] = 0

    def framed(_: Arrays) -> Arrays:
        return {"image": frame}

    found = tiled(framed, {"image": np.zeros((*space, 1), np.float32)}, tile)["image"] > 0
    inside = np.zeros(found.shape, bool)
    inside[inner] = True
    return found & inside


def _psnr(run: Run, example: Example, image: np.ndarray, where: np.ndarray | None = None) -> float:
    """Of an image in unit range, over all that counts or only `where`."""
    seen = example if where is None else replace(example, mask=example.mask & where)
    return float(run.task.measure(Prediction(image[None]), seen)["psnr"][0])


def main(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(RUNS.value or scratch).resolve(), words[1:])
    target = Path(JSON.value or SEAM)
    write_atomically(target, json.dumps(found, indent=1) + "\n")
    print(f"written: {target}; next: python -m benchmarks.scores --tables")


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
