"""Eight-coil k-space of a brain, 12 % sampled, without truth: CG-SENSE, sparse wavelets and a network trained with SSDU.

    python benchmarks/recon_kspace.py --data=../shared/data --output=benchmarks/results/recon_kspace.json

A tenth of the samples outside the centre is held out from everything; methods are judged by how well they predict it:
`|A x - y|` over `|y|` there. Classical methods get the best of several strengths, which is in their favour.
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

from medjax.classical import iterative
from medjax.data.sources.kspace import Kspace
from medjax.models.modl import MoDL
from medjax.objectives.ssdu import SSDU
from medjax.physics.mri import to_channels
from medjax.tasks.mri_recon import MriRecon
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_step
from medjax.types import Batch, Example, Key


@dataclass(frozen=True)
class HeldOut(MriRecon):
    """What is left when a tenth of the samples is put aside, chosen once."""

    def example(self, key: Key, batch: Batch) -> Example:
        whole = super().example(key, batch)
        return self.thinned(whole, self.keep_part(jax.random.key(7), whole.context, 0.9))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/recon_kspace.json"))
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    record = Kspace(str(args.data / "kspace" / "brain_8coil_undersampled_ksp.npy"), calibration=24).load()[0]
    batch = {"image": record.image[None], "kspace": record.extras["kspace"][None],
             "maps": record.extras["maps"][None], "slope": np.ones(1, np.float32),
             "intercept": np.zeros(1, np.float32), "count": np.ones(1, np.float32), "id": np.zeros(1, np.uint32)}
    task = HeldOut((0.0, 1.0), 2, acceleration=1.0, centre=0.13)
    whole = MriRecon((0.0, 1.0), 2, acceleration=1.0, centre=0.13)
    shown, everything = jax.jit(task.example)(jax.random.key(0), batch), jax.jit(whole.example)(jax.random.key(0), batch)
    A, y, full = shown.context["operator"], shown.context["y"], everything.context["y"]
    rest = 1 - A.keep

    @jax.jit
    def residual(x):
        miss = (everything.context["operator"](x) - full) * rest
        return jnp.linalg.norm(miss) / jnp.linalg.norm(full * rest)

    sense = A.operator.operator
    sense = type(sense)(sense.maps, sense.mask * A.keep)
    rows = {"zero-filled": {"residual": float(residual(shown.input))}}
    cg = jax.jit(lambda weight: to_channels(iterative.cgls(sense, y, 15, weight)))
    rows["cg-sense"] = best(residual, cg, (1e-3, 1e-2, 0.05, 0.2))
    sparse = jax.jit(lambda weight: to_channels(iterative.l1_wavelet(sense, y, weight, 50)))
    rows["l1-wavelet"] = best(residual, sparse, (5e-4, 2e-3, 5e-3))
    print(rows, flush=True)

    learner = SSDU(task, MoDL(2, 2, (1, 1), iterations=3, cg_iterations=5, width=12, depth=3, weight=0.05), share=0.7)
    rules = {"model": optimizer(args.steps, name="adam", lr=2e-3, warmup=5)}
    state = jax.jit(lambda batch: init_state(task, learner, rules, 0.0, batch, jax.random.key(0)))(batch)
    step = jax.jit(make_step(task, learner, rules, 0.0), donate_argnums=0)
    began, cpu = time.time(), time.process_time()
    for number in range(args.steps):
        state, logs = step(state, batch)
        if number % 10 == 0:
            print(number, float(logs["model/loss"]), f"{time.time() - began:.0f} s", flush=True)
    found = jax.jit(lambda example: learner.predict(state.params, state.variables, example))(shown)
    rows["modl-ssdu"] = {"residual": float(residual(found)), "steps": args.steps, "seconds": time.time() - began,
                         "cpu_seconds": time.process_time() - cpu}
    out = {"rows": rows, "held_out": float((rest * (jnp.abs(full[:, :1]) > 0)).sum()), "jax": jax.__version__,
           "cores": os.cpu_count()}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(rows))


def best(residual, solve, weights) -> dict[str, float]:
    """The strength with the smallest residual."""
    found = {weight: float(residual(solve(weight))) for weight in weights}
    weight = min(found, key=found.get)
    return {"residual": found[weight], "weight": weight}


if __name__ == "__main__":
    main()
