"""Sparse-view CT of foam: a U-Net after FBP and MoDL, in the setting of scico's ct_unet and ct_modl foam2 examples.

    python benchmarks/recon_foam.py --output=benchmarks/results/recon_foam.json

Discs of two materials in a disc, 256^2, 45 views, 190 detectors of sqrt(2) pixels, 100 images to learn from, 16 to test on.
The phantoms are drawn by the rules of xdesign's `sprinkle`, with scico's numbers and by another generator: their PSNR
is 10.6 dB above their SNR, scico's 10.4 dB.

What scico publishes in the notebooks of its examples is PSNR on 16 images, clipped to 0 … 1: 20.10 dB (SNR 9.69 dB) for
the U-Net after 200 epochs of 498 images, 21.29 dB (SNR 10.88 dB) for MoDL after 170 epochs of 100 images. These are 6200
and 1020 steps of 16 whole images, 245 and 480 s on eight GPUs.

Here the U-Net learns on crops. Its normalisation is over the batch, whose statistics suit crops and whole images alike.
MoDL starts from the U-Net's weights, a copy for each of its iterations.
"""

import argparse
import json
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical import iterative
from medjax.models.modl import MoDL
from medjax.models.unet import UNet
from medjax.objectives.supervised import Supervised
from medjax.physics import ct
from medjax.tasks._reconstruction import Reconstruction
from medjax.tasks._restoration import Restoration
from medjax.tasks.ct_recon import Scan
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_step
from medjax.types import Array, Batch, Example, Key, NetworkInput, State

SIZE, VIEWS, CROP = 256, 45, 128
LEVELS = (0.05, 0.5, 1.0)  # the disc, and the two materials in it: 1, 10 and 20, normalised


def foam(random: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """A disc of diameter 1 with up to twice 300 discs in it, `(size, size, 1)`.

    As xdesign sprinkles them: each has a radius of 0.075, or what its place leaves with a gap of 1e-3, but at least 0.0025;
    the first material fills at most half of the disc, and 500 places in vain end a round.
    """
    image = np.zeros((size, size), np.float32)
    paint(image, (0.0, 0.0), 0.5, LEVELS[0])
    centres, radii = np.full((1, 2), 9.0), np.zeros(1)
    for level, density in zip(LEVELS[1:], (0.5, 1.0), strict=True):
        added = tries = 0
        while added < 300 and tries < 500 and np.square(radii).sum() < density * 0.25:
            angle, along = random.uniform(0, 2 * np.pi), (0.5 - 0.075) * math.sqrt(random.uniform())
            centre = along * np.array([math.cos(angle), math.sin(angle)])
            radius = min(0.075, (np.hypot(*(centres - centre).T) - radii).min() - 1e-3)
            tries += 1
            if radius >= 0.0025:
                centres, radii = np.vstack([centres, centre]), np.append(radii, radius)
                paint(image, centre, radius, level)
                added, tries = added + 1, 0
    return image[..., None]


def paint(image: np.ndarray, centre: tuple[float, float], radius: float, level: float) -> None:
    """A disc over what is there, its edge as wide as a pixel."""
    size = len(image)
    row, column = ((c + 0.5) * size - 0.5 for c in centre)
    reach = radius * size + 2
    rows = slice(max(0, int(row - reach)), int(row + reach) + 2)
    columns = slice(max(0, int(column - reach)), int(column + reach) + 2)
    y, x = np.mgrid[:size, :size][:, rows, columns]
    cover = np.clip(radius * size - np.hypot(y - row, x - column) + 0.5, 0, 1)
    image[rows, columns] += cover.astype(np.float32) * (level - image[rows, columns])


@dataclass(frozen=True)
class Pairs(Restoration):
    """Crops of FBP images to crops of the truth."""

    def example(self, key: Key, batch: Batch) -> Example:
        return self.example_of(batch, NetworkInput(batch["fbp"]), batch["image"], jnp.ones_like(batch["image"], bool))


@dataclass(frozen=True)
class Foam(Reconstruction):
    """Whole images from their sinograms."""

    scan: Scan = None

    def example(self, key: Key, batch: Batch) -> Example:
        given = self.measured(self.scan, self.scan(batch["image"]))
        return self.example_of(batch, given, batch["image"], jnp.ones_like(batch["image"], bool))


def learn(task, model, batches, steps: int, lr: float, start=None) -> tuple[Supervised, State, float, float]:
    """Objective, state, seconds of training without the compilation, and CPU seconds; `start` changes the first state."""
    objective = Supervised(task, model, "l2")
    rules = {"model": optimizer(steps, name="adam", lr=lr, warmup=10)}
    first = next(batches)
    state = jax.jit(lambda batch: init_state(task, objective, rules, 0.0, batch, jax.random.key(0)))(first)
    if start is not None:
        state = start(state)
    step = jax.jit(make_step(task, objective, rules, 0.0), donate_argnums=0).lower(state, first).compile()
    began, cpu = time.time(), time.process_time()
    for number in range(steps):
        state, logs = step(state, next(batches))
        if number % 20 == 0 or number == steps - 1:
            print(f"step {number}: {float(logs['model/loss']):.5f}, {time.time() - began:.0f} s", flush=True)
    jax.block_until_ready(state)
    return objective, state, time.time() - began, time.process_time() - cpu


def predicted(objective: Supervised, state: State, given: NetworkInput) -> Array:
    return objective.predict(*state.for_use(), given, jax.random.split(jax.random.key(0), len(given.image))).image


def crops(images: np.ndarray, fbp: np.ndarray, batch: int):
    random = np.random.default_rng(1)
    while True:
        found = []
        for _ in range(batch):
            i, (r, c), turn = random.integers(len(images)), random.integers(0, SIZE - CROP + 1, 2), random.integers(4)
            cut = slice(r, r + CROP), slice(c, c + CROP)
            found.append([np.rot90(image[i][cut], turn) for image in (images, fbp)])
        yield {"image": np.stack([a for a, _ in found]), "fbp": np.stack([b for _, b in found]), "id": ids(batch)}


def whole(images: np.ndarray, batch: int):
    random = np.random.default_rng(2)
    while True:
        yield {"image": images[random.integers(len(images), size=batch)], "id": ids(batch)}


def ids(batch: int) -> np.ndarray:
    """Nothing about a sample is random."""
    return np.zeros(batch, np.uint32)


def scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """As scico's `metric.snr` and `metric.psnr`, over all images at once, values clipped to 0 … 1."""
    error = np.square(np.clip(found, 0, 1) - truth).mean()
    return {"snr": float(10 * np.log10(truth.var() / error)), "psnr": float(-10 * np.log10(error))}


def by_one(fn, images: np.ndarray) -> np.ndarray:
    run = jax.jit(fn)
    return np.concatenate([np.asarray(run(jnp.asarray(image[None]))) for image in images])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", default="benchmarks/results/recon_foam.json")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--modl_steps", type=int, default=120)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()

    random = np.random.default_rng(0)
    images = np.stack([foam(random) for _ in range(116)])
    train, test = images[:100], images[100:]
    geometry = ct.Parallel((SIZE, SIZE), 1.0, np.linspace(0, np.pi, VIEWS), int(SIZE * 1.05 / math.sqrt(2)), math.sqrt(2))
    scan = Scan(geometry, math.sqrt(SIZE * VIEWS / math.sqrt(2)))
    data_range, given = (0.0, 1.0), (2, 1, (1, 1))
    fbp = by_one(lambda x: scan.init(scan(x)), images)
    rows = {"fbp": scores(fbp[100:], test)}
    rows["tv"] = scores(by_one(lambda x: iterative.tv(scan, scan(x), 1e-3, 1000), test[:4]), test[:4]) | {"images": 4}
    print(rows, flush=True)

    unet = UNet(*given, width=args.width, depth=4, norm="batch")
    objective, state, seconds, cpu = learn(Pairs(data_range, 2), unet, crops(train, fbp[:100], args.batch), args.steps, 2e-3)
    found = by_one(lambda x: predicted(objective, state, NetworkInput(x)), fbp[100:])
    rows["unet"] = scores(found, test) | {"steps": args.steps, "batch": args.batch, "seconds": seconds, "cpu_seconds": cpu}
    print(rows["unet"], flush=True)
    save(args, rows)

    modl = MoDL(*given, iterations=2, cg_iterations=4, shared=False, width=args.width, depth=4, norm="batch", weight=0.02)
    task = Foam(data_range, 2, scan)
    trained = state

    def warm(state: State) -> State:
        def copies(into, own):
            return {name: values | {"UNet_0": jax.tree.map(jnp.copy, own)} for name, values in into.items()}

        params = copies(state.params["model"], trained.params["model"])
        stats = copies(state.variables["model"]["batch_stats"], trained.variables["model"]["batch_stats"])
        return replace(state, params={"model": params}, variables={"model": {"batch_stats": stats}})

    objective, state, more, more_cpu = learn(task, modl, whole(train, 1), args.modl_steps, 5e-4, warm)

    def reconstruct(x: Array) -> Array:
        return predicted(objective, state, task.measured(scan, scan(x)))

    rows["modl"] = scores(by_one(reconstruct, test), test) | {"steps": args.steps + args.modl_steps, "batch": 1,
                                                               "seconds": seconds + more, "cpu_seconds": cpu + more_cpu}
    print(rows["modl"], flush=True)
    save(args, rows)


def save(args, rows) -> None:
    published = {"unet": {"psnr": 20.10, "snr": 9.69, "steps": 6200, "batch": 16, "train_images": 498},
                 "modl": {"psnr": 21.29, "snr": 10.88, "steps": 1020, "batch": 16, "train_images": 100}}
    out = {"setting": {"size": SIZE, "views": VIEWS, "train": 100, "test": 16}, "rows": rows, "scico": published,
           "jax": jax.__version__, "cores": os.cpu_count()}
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    Path(args.output).write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
