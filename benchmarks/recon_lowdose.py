"""Low-dose CT of patients at a quarter of the dose: RED-CNN beside FBP and classical denoisers, at a clinical window.

    python benchmarks/recon_lowdose.py --data=../shared/data --output=benchmarks/results/recon_lowdose.json

Learns on a series of heads and is judged on three slices of another patient's abdomen, from another scanner. The noise
is what is missing between the scans as they are and a quarter of their dose; full dose is set to 4 HU in 20 cm of water.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from medjax import metrics
from medjax.data.io import discover
from medjax.models.redcnn import REDCNN
from medjax.objectives.supervised import Supervised
from medjax.ops.window import WINDOWS, window
from medjax.tasks.ct_lowdose import CtLowDose
from medjax.tasks.restoration import Restoration
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_step
from medjax.types import Batch, Example, Key

DATA_RANGE = (-1000.0, 1000.0)
NOISE_HU, CROP = 4.0, 64


@dataclass(frozen=True)
class Pairs(Restoration):
    """Crops of low-dose images to crops of the scans."""

    def example(self, key: Key, batch: Batch) -> Example:
        return Example(batch["low"], batch["image"], jnp.ones_like(batch["image"], bool))


def slices(folder: Path) -> tuple[np.ndarray, float]:
    """A DICOM series as `(n, 512, 512, 1)` in unit range, padding as air; the pixels' size in mm."""
    record = discover(folder)[0].read()[0]
    hu = np.maximum(np.asarray(record.image, np.float32) * record.slope + record.intercept, DATA_RANGE[0])
    low, high = DATA_RANGE
    return (hu - low) / (high - low), record.spacing_mm[-1]


def simulate(images: np.ndarray, pixel_mm: float, first: int) -> np.ndarray:
    """The images at a quarter of the dose, one at a time."""
    task = CtLowDose(DATA_RANGE, 2, noise_hu=NOISE_HU, pixel_mm=pixel_mm)
    low, high = DATA_RANGE
    run = jax.jit(lambda batch: task.example(jax.random.key(0), batch).input)
    made = []
    for i, image in enumerate(images):
        batch = {"image": (image * (high - low) + low)[None], "slope": np.ones(1, np.float32),
                 "count": np.ones(1, np.float32), "intercept": np.zeros(1, np.float32), "id": np.uint32([first + i])}
        made.append(np.asarray(run(batch)))
    return np.concatenate(made)


def crops(low: np.ndarray, full: np.ndarray, batch: int):
    """Random crops with some body in them, turned by right angles."""
    random = np.random.default_rng(0)
    while True:
        found = []
        while len(found) < batch:
            i, (r, c), turn = random.integers(len(full)), random.integers(0, full.shape[1] - CROP + 1, 2), random.integers(4)
            cut = i, slice(r, r + CROP), slice(c, c + CROP)
            if (full[cut] > 0.4).mean() > 0.3:
                found.append([np.rot90(image[cut]) if turn else image[cut] for image in (low, full)])
        yield {"low": np.stack([a for a, _ in found]), "image": np.stack([b for _, b in found])}


def scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """PSNR over the whole range and, with SSIM, through the soft-tissue window, inside the body."""
    low, high = DATA_RANGE
    body = truth > 0.4
    a, b = (window(jnp.asarray(x) * (high - low) + low, *WINDOWS["soft tissue"]) for x in (found, truth))
    return {"psnr": float(metrics.psnr(jnp.asarray(found), jnp.asarray(truth), 1.0, body).mean()),
            "psnr_soft_tissue": float(metrics.psnr(a, b, 1.0, body).mean()),
            "ssim_soft_tissue": float(metrics.ssim(a, b, 1.0).mean())}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/recon_lowdose.json"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--width", type=int, default=24)
    args = parser.parse_args()
    heads, _ = slices(args.data / "dicom" / "ct_ge_head")
    abdomen, abdomen_mm = slices(args.data / "dicom" / "ct_regular_3slice")
    heads = heads[::4]
    # Pixels of the size of the abdomen's: the head, seen as larger, meets noise of the same grain and strength.
    train_low, test_low = simulate(heads, abdomen_mm, 0), simulate(abdomen, abdomen_mm, 1000)
    middle = (slice(None), slice(96, 416), slice(96, 416))
    truth, given = abdomen[middle], test_low[middle]
    rows = {"fbp": scores(given, truth)}
    baselines = CtLowDose(DATA_RANGE, 2).baselines()
    rows |= {name: scores(np.stack([fn(x) for x in given]), truth) for name, fn in baselines.items()}
    print(rows, flush=True)

    task = Pairs(DATA_RANGE, 2)
    learner = Supervised(task, REDCNN(2, 1, (1, 1), width=args.width, depth=4, kernel=3), "l2")
    rules = {"model": optimizer(args.steps, name="adam", lr=1e-3, warmup=20)}
    batches = crops(train_low, heads, 8)
    first = next(batches)
    state = jax.jit(lambda batch: init_state(task, learner, rules, 0.0, batch, jax.random.key(0)))(first)
    step = jax.jit(make_step(task, learner, rules, 0.0), donate_argnums=0)
    began, cpu = time.time(), time.process_time()
    for number in range(args.steps):
        state, logs = step(state, next(batches))
        if number % 25 == 0:
            print(number, float(logs["model/loss"]), f"{time.time() - began:.0f} s", flush=True)
    seconds, cpu = time.time() - began, time.process_time() - cpu
    predict = jax.jit(lambda x: learner.predict(state.params, state.variables, Example(x, None)))
    rows["redcnn"] = scores(np.concatenate([np.asarray(predict(x[None])) for x in given]), truth)
    out = {"dose": 0.25, "noise_hu": NOISE_HU, "train_slices": len(heads), "test_slices": len(abdomen), "rows": rows,
           "steps": args.steps, "seconds": seconds, "cpu_seconds": cpu, "jax": jax.__version__, "cores": os.cpu_count()}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(rows["redcnn"]))


if __name__ == "__main__":
    main()
