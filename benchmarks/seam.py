"""What a 3-D denoiser loses where a volume goes through it in windows, on people who took no part in training.

    python -m benchmarks.seam --config.data.path=FOLDER

Networks are trained that differ in their normalisation: none; that of the batch, whose statistics are those of training;
that of groups, whose statistics are those of each window. A seam is the PSNR of the whole volume's result less that of the
result in windows, both against the truth; `near` is the same over the voxels within two of a window's border. Windows are
those of `medjax.apply`, and of the same size, overlap and padding MONAI's, with its Gaussian blending (`make peers`).
Written is `benchmarks/results/seam.json`; `python -m benchmarks.scores --tables` then writes the table of
benchmarks/README.md. Runs that are in `--runs` already are not trained again.
"""

import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks.processes import commit, run, write
from benchmarks.scores import RUNS, SEAM, command_of, config_of, values_of
from medjax.bench.peer import Peer
from medjax.bench.tiled import hand_over, made_by
from medjax.data.pipeline import whole_batch
from medjax.infer.predict import VOXELS, make_predict, tile_of
from medjax.infer.tiling import Arrays, tiled
from medjax.measures.statistics import by_patient, interval
from medjax.train.run import Run, load_splits, restore_best
from medjax.types import Example, Prediction

JSON = flags.DEFINE_string("json", "", "Where the results go, another place than benchmarks/results.")
PYTHON = flags.DEFINE_string("peer_python", "", "The Python that has MONAI; that of `make peers` if none is given.")

NORMS = ("none", "batch", "group")
SIZES = (VOXELS, VOXELS // 16)  # of windows, in voxels at most: the first as `apply` has it
NEAR = 2  # voxels from a window's border


def measure(runs: Path, more: Sequence[str]) -> dict[str, Any]:
    """Trains what is not there yet, with further flags, and compares windows with whole volumes for every test patient."""
    found: dict[str, Any] = {"command": command_of(SEAM.stem), "config": values_of(config_of(SEAM.stem)),
                             "commit": commit(), "jax": jax.__version__, "norms": {}}
    for norm in NORMS:
        workdir = runs / norm
        if not (workdir / "eval" / "metrics.json").exists():
            words = [*shlex.split(command_of(SEAM.stem))[1:], f"--config.model.norm={norm}", *more]
            run(*words, f"--workdir={workdir}")
        with Peer("monai_windows", PYTHON.value) as monai:
            found["norms"][norm] = compare(workdir, monai)
            found["versions"] = monai.versions
    return found


def compare(workdir: Path, monai: Peer) -> dict[str, Any]:
    """PSNR of the run's test volumes whole, and seams by size of window: means over patients with 95 % intervals."""
    run, state = restore_best(workdir)
    params, variables = ({} if found is None else found["model"] for found in state.for_use())
    network, ndim = {"params": params, **variables}, run.task.input_ndim
    whole = make_predict(run, state, voxels=sys.maxsize)
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    regions, cases = load_splits(run.config, workdir)["test"], []
    for region in regions:
        example = run.task.example(jax.random.key(0), whole_batch(region.record, ndim))
        given = np.asarray(example.input.image[0])
        low, high = run.task.data_range
        noisy = replace(region.record, image=given * (high - low) + low, slope=1.0, intercept=0.0)
        full = np.asarray(whole(noisy).image)
        values["whole"]["input"].append(_psnr(run, example, given))
        values["whole"]["model"].append(_psnr(run, example, full))
        cases.append((example, given, noisy, full))
    for size in SIZES:
        predict, handed = make_predict(run, state, voxels=size), ()
        for example, given, noisy, full in cases:
            window = tile_of(full.shape[:-1], size)
            if window != handed:
                hand_over(monai, run.config.model, (1,) * ndim, window, network, given)
                handed = window
            near = borders(full.shape[:-1], window)
            for name, image in (("medjax", np.asarray(predict(noisy).image)), ("monai", made_by(monai, given))):
                for where, mask in (("seam", None), ("near", near)):
                    lost = _psnr(run, example, full, mask) - _psnr(run, example, image, mask)
                    values["x".join(map(str, window))][f"{name}_{where}"].append(lost)
    patients = [region.record.subject for region in regions]
    means = {name: {what: _mean(numbers, patients) for what, numbers in own.items()} for name, own in values.items()}
    return {"patients": len(set(patients)), "psnr": means.pop("whole"), "windows": means}


def _mean(numbers: Sequence[float], patients: Sequence[str]) -> dict[str, float]:
    each = by_patient(numbers, patients)
    low, high = interval(each)
    return {"mean": float(each.mean()), "low": low, "high": high, "most": float(each.max())}


def borders(space: Sequence[int], window: Sequence[int]) -> np.ndarray:
    """Which voxels `(*space, 1)` lie within `NEAR` of a window's border inside the image."""
    inner = tuple(slice(NEAR, -NEAR) if size > part else slice(None) for size, part in zip(space, window, strict=True))
    frame = np.ones((*window, 1), np.float32)
    frame[inner] = 0

    def framed(_: Arrays) -> Arrays:
        return {"image": frame}

    found = tiled(framed, {"image": np.zeros((*space, 1), np.float32)}, window)["image"] > 0
    inside = np.zeros(found.shape, bool)
    inside[inner] = True
    return found & inside


def _psnr(run: Run, example: Example, image: np.ndarray, where: np.ndarray | None = None) -> float:
    """Of an image in unit range, over all that counts or only `where`."""
    seen = example if where is None else replace(example, mask=example.mask & where)
    return float(run.task.measure(Prediction(image[None]), seen)["psnr"][0])


def main(words: list[str]) -> None:
    write(measure, RUNS.value, words[1:], Path(JSON.value or SEAM))


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
