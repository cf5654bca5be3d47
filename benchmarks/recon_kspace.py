"""Eight-coil k-space of a brain, 12 % sampled, without truth: CG-SENSE, sparse wavelets and a network trained with SSDU.

    python benchmarks/recon_kspace.py --data=SCANS --output=benchmarks/results/recon_kspace.json

The middle 16x16 samples make the coil maps. Of the others a tenth is put aside to test on: methods predict it, and
`|A x - y|` over `|y|` there is their residual. Another tenth is put aside while the classical methods' strength and the
network's number of steps are chosen, and then given to all. The network starts from the sparse image, which its last layer,
0 at first, leaves as it is. The images are written beside the numbers, as a PNG.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from medjax.classical import iterative
from medjax.data.sources.kspace import Kspace
from medjax.models.modl import MoDL
from medjax.objectives.ssdu import SSDU
from medjax.tasks._reconstruction import measurement_of
from medjax.tasks.mri_recon import MriRecon, magnitude
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_step
from medjax.types import Array, Batch, Example, Key, Measurement, Operator

CALIBRATION, CENTRE, WAVELET_STEPS, WAVELET_WEIGHT = 16, 0.08, 30, 2e-3
CHOOSE, GIVEN = (0.1, 0.2), 0.1  # lots are drawn 0 … 1: below 0.1 to test on, from there to 0.2 to choose by


@dataclass(frozen=True)
class PartOf(MriRecon):
    """k-space whose samples' lots are above `least`; the network's input is the image of sparse wavelets."""

    least: float = 0.0
    turned: bool = False

    def example(self, key: Key, batch: Batch) -> Example:
        whole = super().example(key, batch)
        measurement = measurement_of(whole.input.context)
        y = measurement.y
        if self.turned:  # an image of any phase is as likely: more of them to learn from
            y = y * jnp.exp(2j * jnp.pi * jax.random.uniform(key))
        given = replace(whole.input, context=replace(measurement, y=y))
        return self.restricted(replace(whole, input=given), (lots(y) > self.least).astype(jnp.float32))

    def restricted(self, example: Example, keep: Array) -> Example:
        part = super().restricted(example, keep)
        found = measurement_of(part.input.context)
        sparse = iterative.l1_wavelet(found.operator, found.y, WAVELET_WEIGHT, WAVELET_STEPS)
        return replace(part, input=replace(part.input, image=sparse))

    def draw_share(self, key: Key, measurement: Measurement, share: float) -> Array:
        """As in every MRI task, but the network learns from samples like those it is tested on: outside the middle."""
        return jnp.maximum(super().draw_share(key, measurement, share), (lots(measurement.y) == 1).astype(jnp.float32))


def lots(y: Array) -> Array:
    """A number 0 … 1 for each sample of k-space, `(1, 1, H, W)`; 1 for those that make the coil maps."""
    drawn = jax.random.uniform(jax.random.key(7), (1, 1, *y.shape[2:]))
    rows, columns = (jnp.abs(jnp.arange(n) - n // 2) <= CALIBRATION // 2 for n in y.shape[2:])
    return jnp.where(rows[:, None] & columns, 1.0, drawn)


def measured(example: Example) -> tuple[Operator, Array]:
    """An example's operator and what it measured."""
    found = measurement_of(example.input.context)
    return found.operator, found.y


def read(path: Path) -> Batch:
    """The one slice, as the pipeline would give it."""
    record = Kspace(str(path), calibration=CALIBRATION).load()[0]
    return {"image": record.image[None], "kspace": record.extras["kspace"][None], "maps": record.extras["maps"][None],
            "slope": np.ones(1, np.float32), "intercept": np.zeros(1, np.float32), "count": np.ones(1, np.float32),
            "id": np.zeros(1, np.uint32)}


def part(batch: Batch, least: float) -> tuple[MriRecon, Example]:
    """A task and its example, of the samples whose lots are above `least`."""
    task = PartOf((0.0, 1.0), 2, acceleration=1.0, centre=CENTRE, least=least)
    return task, jax.jit(task.example)(jax.random.key(0), batch)


def residual_on(whole: Example, low: float, high: float) -> Callable[[Array], Array]:
    """The residual on the samples whose lots are between `low` and `high`."""
    A, y = measured(whole)
    here = (lots(y) > low) & (lots(y) <= high)
    return jax.jit(lambda x: jnp.linalg.norm((A(x) - y) * here) / jnp.linalg.norm(y * here))


def classical(solve: Callable[[Operator, Array, float], Array], weights: tuple[float, ...], learn: Example, given: Example,
              chosen_by: Callable[[Array], Array]) -> tuple[Array, float]:
    """The reconstruction of what is given, with the weight that predicts best from what is there to learn."""
    run = jax.jit(lambda example, weight: solve(*measured(example), weight))
    found = {weight: float(chosen_by(run(learn, weight))) for weight in weights}
    print(found, flush=True)
    weight = min(found, key=found.get)
    return run(given, weight), weight


def network(batch: Batch, task: MriRecon, learn: Example, given: Example, chosen_by: Callable[[Array], Array],
            steps: int) -> tuple[Array, dict[str, float]]:
    """MoDL trained with SSDU on this one slice; the weights of the step that predicts best."""
    model = MoDL(2, 2, (1, 1), iterations=2, cg_iterations=4, width=16, depth=3, weight=1.0)
    learner = SSDU(replace(task, turned=True), model, share=0.8)
    rules = {"model": optimizer(steps, name="adam", lr=1e-3, warmup=20)}
    state = jax.jit(lambda batch: init_state(task, learner, rules, 0.0, batch, jax.random.key(0)))(batch)
    state.params["model"]["iteration0"]["UNet_0"]["Conv_2"]["kernel"] *= 0
    step = jax.jit(make_step(learner.task, learner, rules, 0.0), donate_argnums=0)
    keys = jax.random.split(jax.random.key(0), 1)
    predict = jax.jit(lambda params, example: learner.predict(params, state.variables, example.input, keys).image)
    began, cpu, best = time.time(), time.process_time(), (np.inf, 0, None)
    for number in range(1, steps + 1):
        state, logs = step(state, batch)
        if number % 10 == 0:
            params = jax.device_get(state.params)
            best = min(best, (float(chosen_by(predict(params, learn))), number, params), key=lambda b: b[0])
            print(number, float(logs["model/loss"]), best[:2], f"{time.time() - began:.0f} s", flush=True)
    return predict(best[2], given), {"steps": steps, "best_step": best[1], "seconds": time.time() - began,
                                    "cpu_seconds": time.process_time() - cpu}


def picture(images: dict[str, Array], path: Path) -> None:
    """The magnitudes side by side, in one window."""
    planes = [np.asarray(magnitude(image))[0, ..., 0] for image in images.values()]
    top = np.quantile(planes[-1], 0.998)
    row = np.concatenate([np.clip(plane / top, 0, 1) for plane in planes], 1)
    Image.fromarray((255 * row).astype(np.uint8)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/recon_kspace.json"))
    parser.add_argument("--steps", type=int, default=240)
    args = parser.parse_args()
    batch = read(args.data / "kspace" / "brain_8coil_undersampled_ksp.npy")
    (task, learn), (_, given), (_, whole) = (part(batch, least) for least in (CHOOSE[1], GIVEN, 0.0))
    chosen_by, residual = residual_on(whole, *CHOOSE), residual_on(whole, 0.0, GIVEN)

    A, y = measured(given)
    zero_filled = A.init(y)
    images, extras = {"zero-filled": zero_filled}, {"zero-filled": {}}
    images["cg-sense"], weight = classical(lambda A, y, w: iterative.cgls(A, y, 15, w), (1e-3, 3e-3, 0.01, 0.03, 0.1), learn,
                                           given, chosen_by)
    extras["cg-sense"] = {"weight": weight}
    images["l1-wavelet"], weight = classical(lambda A, y, w: iterative.l1_wavelet(A, y, w, WAVELET_STEPS),
                                             (5e-4, 1e-3, 2e-3, 3e-3, 5e-3), learn, given, chosen_by)
    extras["l1-wavelet"] = {"weight": weight}
    print({name: float(residual(image)) for name, image in images.items()}, flush=True)
    images["modl-ssdu"], extras["modl-ssdu"] = network(batch, task, learn, given, chosen_by, args.steps)

    rows = {name: {"residual": float(residual(image))} | extras[name] for name, image in images.items()}
    _, y = measured(whole)
    held_out = int(((jnp.abs(y[:, :1]) > 0) & (lots(y) <= GIVEN)).sum())
    out = {"rows": rows, "held_out": held_out, "jax": jax.__version__, "cores": os.cpu_count()}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    picture(images, args.output.with_suffix(".png"))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
