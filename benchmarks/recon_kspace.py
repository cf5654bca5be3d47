"""Eight-coil k-space of a brain, 12 % sampled, without truth: CG-SENSE, sparse wavelets and a network trained with SSDU.

    python benchmarks/recon_kspace.py --data=../shared/data --output=benchmarks/results/recon_kspace.json

The middle 16x16 samples make the coil maps. Of the others a tenth is put aside to judge by: methods predict it, and
`|A x - y|` over `|y|` there is their residual. Another tenth is put aside while the classical methods' strength and the
network's number of steps are chosen, and then given to all. The images are written beside the numbers, as a PNG.
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
from PIL import Image

from medjax.classical import iterative
from medjax.data.sources.kspace import Kspace
from medjax.models.modl import MoDL
from medjax.objectives.ssdu import SSDU
from medjax.physics.mri import to_channels
from medjax.physics.operator import Operator
from medjax.tasks.mri_recon import MriRecon, magnitude
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_step
from medjax.types import Array, Batch, Example, Key

CALIBRATION, CENTRE = 16, 0.08
CHOOSE, GIVEN = (0.1, 0.2), 0.1  # lots are drawn 0 … 1: below 0.1 to judge by, from there to 0.2 to choose by


@dataclass(frozen=True)
class PartOf(MriRecon):
    """k-space whose samples' lots are above `least`."""

    least: float = 0.0

    def example(self, key: Key, batch: Batch) -> Example:
        whole = super().example(key, batch)
        return self.thinned(whole, (lots(whole.context["y"]) > self.least).astype(jnp.float32))


def lots(y: Array) -> Array:
    """A number 0 … 1 for each sample of k-space, `(1, 1, H, W)`; 1 for those that make the coil maps."""
    drawn = jax.random.uniform(jax.random.key(7), (1, 1, *y.shape[2:]))
    rows, columns = (jnp.abs(jnp.arange(n) - n // 2) <= CALIBRATION // 2 for n in y.shape[2:])
    return jnp.where(rows[:, None] & columns, 1.0, drawn)


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


def judge(whole: Example, low: float, high: float) -> Callable[[Array], Array]:
    """The residual on the samples whose lots are between `low` and `high`."""
    A, y = whole.context["operator"], whole.context["y"]
    here = (lots(y) > low) & (lots(y) <= high)
    return jax.jit(lambda x: jnp.linalg.norm((A(x) - y) * here) / jnp.linalg.norm(y * here))


def sense(example: Example) -> tuple[Operator, Array]:
    """The operator on complex images and what it measured of the example."""
    thinned = example.context["operator"]
    inner = thinned.operator.operator
    return type(inner)(inner.maps, inner.mask * thinned.keep), example.context["y"]


def classical(solve: Callable[[Operator, Array, float], Array], weights: tuple[float, ...], learn: Example, given: Example,
              chosen_by: Callable[[Array], Array]) -> tuple[Array, float]:
    """The reconstruction of what is given, with the weight that predicts best from what is there to learn."""
    run = jax.jit(lambda A, y, weight: to_channels(solve(A, y, weight)))
    found = {weight: float(chosen_by(run(*sense(learn), weight))) for weight in weights}
    print(found, flush=True)
    weight = min(found, key=found.get)
    return run(*sense(given), weight), weight


def network(batch: Batch, task: MriRecon, learn: Example, given: Example, chosen_by: Callable[[Array], Array],
            steps: int) -> tuple[Array, dict[str, float]]:
    """MoDL trained with SSDU on this one slice; the weights of the step that predicts best."""
    learner = SSDU(task, MoDL(2, 2, (1, 1), iterations=4, cg_iterations=6, width=16, depth=3, weight=0.05), share=0.7)
    rules = {"model": optimizer(steps, name="adam", lr=1e-3, warmup=20)}
    state = jax.jit(lambda batch: init_state(task, learner, rules, 0.0, batch, jax.random.key(0)))(batch)
    step = jax.jit(make_step(task, learner, rules, 0.0), donate_argnums=0)
    answer = jax.jit(lambda params, example: learner.predict(params, state.variables, example))
    began, cpu, best = time.time(), time.process_time(), (np.inf, 0, None)
    for number in range(1, steps + 1):
        state, logs = step(state, batch)
        if number % 20 == 0:
            params = jax.device_get(state.params)
            best = min(best, (float(chosen_by(answer(params, learn))), number, params), key=lambda b: b[0])
            print(number, float(logs["model/loss"]), best[:2], f"{time.time() - began:.0f} s", flush=True)
    return answer(best[2], given), {"steps": steps, "best_step": best[1], "seconds": time.time() - began,
                                    "cpu_seconds": time.process_time() - cpu}


def picture(images: dict[str, Array], path: Path) -> None:
    """The magnitudes side by side, in one window."""
    planes = [np.asarray(magnitude(image))[0, ..., 0] for image in images.values()]
    top = np.quantile(planes[-1], 0.998)
    row = np.concatenate([np.clip(plane / top, 0, 1) for plane in planes], 1)
    Image.fromarray((255 * row).astype(np.uint8)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/recon_kspace.json"))
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    batch = read(args.data / "kspace" / "brain_8coil_undersampled_ksp.npy")
    (task, learn), (_, given), (_, whole) = (part(batch, least) for least in (CHOOSE[1], GIVEN, 0.0))
    chosen_by, residual = judge(whole, *CHOOSE), judge(whole, 0.0, GIVEN)

    images, extras = {"zero-filled": given.input}, {"zero-filled": {}}
    images["cg-sense"], weight = classical(lambda A, y, w: iterative.cgls(A, y, 15, w), (1e-3, 3e-3, 0.01, 0.03, 0.1), learn,
                                           given, chosen_by)
    extras["cg-sense"] = {"weight": weight}
    images["l1-wavelet"], weight = classical(lambda A, y, w: iterative.l1_wavelet(A, y, w, 80),
                                             (5e-4, 1e-3, 2e-3, 3e-3, 5e-3), learn, given, chosen_by)
    extras["l1-wavelet"] = {"weight": weight}
    print({name: float(residual(image)) for name, image in images.items()}, flush=True)
    images["modl-ssdu"], extras["modl-ssdu"] = network(batch, task, learn, given, chosen_by, args.steps)

    rows = {name: {"residual": float(residual(image))} | extras[name] for name, image in images.items()}
    y = whole.context["y"]
    held_out = int(((jnp.abs(y[:, :1]) > 0) & (lots(y) <= GIVEN)).sum())
    out = {"rows": rows, "held_out": held_out, "jax": jax.__version__, "cores": os.cpu_count()}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    picture(images, args.output.with_suffix(".png"))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
