"""Low-dose CT of patients at a quarter of the dose: RED-CNN beside FBP and classical denoisers, at a clinical window.

    python benchmarks/recon_lowdose.py --data=SCANS --output=benchmarks/results/recon_lowdose.json

Learns on a series of heads and is tested on three slices of another patient's abdomen, from another scanner. These come
from a sharp kernel, with 36 HU of noise in the liver, and are first given a soft one, as soft tissue is read: 16 HU. The
heads have next to no noise; they get that of full dose. Then both get what is missing at a quarter of the dose. The
photons of full dose are those that leave 16 HU in the liver (5.7 HU in 20 cm of water).
Classical methods get the best of several strengths, seen on the abdomen itself, which is in their favour.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical import denoise
from medjax.classical._declared import NoiseModel
from medjax.data.io import discover
from medjax.measures import image_quality
from medjax.models.redcnn import REDCNN
from medjax.objectives.supervised import Supervised
from medjax.ops.window import WINDOWS, window
from medjax.tasks._restoration import Restoration
from medjax.tasks.ct_lowdose import CtLowDose
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_step
from medjax.types import Batch, Example, Key, NetworkInput

DATA_RANGE = (-1000.0, 1000.0)
NOISE_HU, CROP = 5.7, 64
STRENGTHS = (0.5, 1.0, 2.0, 3.0, 4.0)  # of the noise level that is found in the image


@dataclass(frozen=True)
class Pairs(Restoration):
    """Crops of low-dose images to crops of the scans."""

    def example(self, key: Key, batch: Batch) -> Example:
        return self.example_of(batch, NetworkInput(batch["low"]), batch["image"], jnp.ones_like(batch["image"], bool))


def slices(folder: Path) -> tuple[np.ndarray, float]:
    """A DICOM series as `(n, 512, 512, 1)` in unit range, padding as air; the pixels' size in mm."""
    record = discover(folder)[0].read()[0]
    hu = np.maximum(np.asarray(record.image, np.float32) * record.slope + record.intercept, DATA_RANGE[0])
    low, high = DATA_RANGE
    return (hu - low) / (high - low), record.spacing_mm[-1]


def soft(images: np.ndarray) -> np.ndarray:
    """The images as from a softer kernel: the radial Hann window over frequencies up to Nyquist."""
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in images.shape[1:3]), indexing="ij"))
    passed = (0.5 + 0.5 * np.cos(2 * np.pi * np.minimum(frequency, 0.5)))[..., None]
    return np.fft.ifft2(np.fft.fft2(images, axes=(1, 2)) * passed, axes=(1, 2)).real.astype(np.float32)


def simulate(images: np.ndarray, pixel_mm: float, first: int, dose: float, measured: bool) -> np.ndarray:
    """The images at a dose, one at a time; `measured` ones have the noise of full dose already."""
    task = CtLowDose(DATA_RANGE, 2, dose=(dose, dose), noise_hu=NOISE_HU, measured=measured)
    low, high = DATA_RANGE
    run = jax.jit(lambda batch: task.example(jax.random.key(0), batch).input.image)
    made = []
    for i, image in enumerate(images):
        batch = {"image": (image * (high - low) + low)[None], "slope": np.ones(1, np.float32),
                 "count": np.ones(1, np.float32), "intercept": np.zeros(1, np.float32), "id": np.uint32([first + i]),
                 "spacing_mm": np.full((1, 2), pixel_mm, np.float32)}
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
                found.append([np.rot90(image[cut], turn) for image in (low, full)])
        yield {"low": np.stack([a for a, _ in found]), "image": np.stack([b for _, b in found]),
               "id": np.zeros(batch, np.uint32)}


def scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """PSNR over the whole range and, with SSIM, through the soft-tissue window, inside the body."""
    low, high = DATA_RANGE
    body = truth > 0.4
    a, b = (window(jnp.asarray(x) * (high - low) + low, *WINDOWS["soft tissue"]) for x in (found, truth))
    return {"psnr": float(image_quality.psnr(jnp.asarray(found), jnp.asarray(truth), 1.0, body).mean()),
            "psnr_soft_tissue": float(image_quality.psnr(a, b, 1.0, body).mean()),
            "ssim_soft_tissue": float(image_quality.ssim(a, b, 1.0).mean())}


def classical(denoiser: Callable[[np.ndarray, NoiseModel, float], np.ndarray], given: np.ndarray,
              truth: np.ndarray) -> dict[str, float]:
    """The scores of the strength with the best PSNR through the window."""
    def run(strength: float) -> dict[str, float]:
        found = np.stack([denoiser(x, NoiseModel("gaussian"), strength) for x in given])
        return scores(found, truth) | {"strength": strength}

    return max(map(run, STRENGTHS), key=lambda row: row["psnr_soft_tissue"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/recon_lowdose.json"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    heads, _ = slices(args.data / "dicom" / "ct_ge_head")
    abdomen, abdomen_mm = slices(args.data / "dicom" / "ct_regular_3slice")
    abdomen = soft(abdomen)
    # Pixels of the size of the abdomen's: the head, seen as larger, meets noise of the same grain and strength.
    train_full = simulate(heads, abdomen_mm, 0, 1.0, measured=False)
    train_low = simulate(train_full, abdomen_mm, 100, 0.25, measured=True)
    test_low = simulate(abdomen, abdomen_mm, 1000, 0.25, measured=True)
    middle = (slice(None), slice(96, 416), slice(96, 416))
    truth, given = abdomen[middle], test_low[middle]
    rows = {"fbp": scores(given, truth)} | {name: classical(denoiser, given, truth) for name, denoiser in
                                            (("nlm", denoise.nlm), ("tv", denoise.tv), ("wavelet", denoise.wavelet))}
    print(json.dumps(rows), flush=True)

    task = Pairs(DATA_RANGE, 2)
    learner = Supervised(task, REDCNN(2, 1, (1, 1), width=args.width, depth=5, kernel=3), "l2")
    rules = {"model": optimizer(args.steps, name="adam", lr=1e-3, warmup=20)}
    batches = crops(train_low, train_full, args.batch)
    first = next(batches)
    state = jax.jit(lambda batch: init_state(task, learner, rules, 0.0, batch, jax.random.key(0)))(first)
    step = jax.jit(make_step(task, learner, rules, 0.0), donate_argnums=0)
    began, cpu = time.time(), time.process_time()
    for number in range(args.steps):
        state, logs = step(state, next(batches))
        if number % 200 == 0:
            print(number, float(logs["model/loss"]), f"{time.time() - began:.0f} s", flush=True)
    seconds, cpu = time.time() - began, time.process_time() - cpu
    keys = jax.random.split(jax.random.key(0), 1)
    predict = jax.jit(lambda x: learner.predict(state.params, state.variables, NetworkInput(x), keys).image)
    rows["redcnn"] = scores(np.concatenate([np.asarray(predict(x[None])) for x in given]), truth)
    out = {"dose": 0.25, "noise_hu": NOISE_HU, "train_slices": len(train_low), "test_slices": len(abdomen), "rows": rows,
           "steps": args.steps, "seconds": seconds, "cpu_seconds": cpu, "jax": jax.__version__, "cores": os.cpu_count()}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(rows["redcnn"]))


if __name__ == "__main__":
    main()
