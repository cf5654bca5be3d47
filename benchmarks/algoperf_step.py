"""A train step of fastMRI's U-Net beside AlgoPerf's in JAX (Dahl et al., 2023): the same layers, L1 and Adam.

    python -m benchmarks.algoperf_step --algoperf=CHECKOUT

CHECKOUT is a clone of github.com/mlcommons/algorithmic-efficiency, whose `fastmri_jax/models.py` is imported as it is. Both
are jitted programs of one process and take turns in blocks. Images are those of the workload, 320x320, `batch` of them.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from medjax import cli, registry
from medjax.bench import machine, programs
from medjax.bench.cases import Case
from medjax.bench.timing import alternate, clock, spread
from medjax.files import write_atomically
from medjax.models.unet import FASTMRI
from medjax.types import Array, UserError

CHECKOUT = flags.DEFINE_string("algoperf", None, "The folder of the clone.", required=True)
BATCH = flags.DEFINE_integer("batch", 2, "Images of a step.", lower_bound=1)
SIZE = flags.DEFINE_integer("size", 320, "Pixels a side.", lower_bound=16)
WIDTH = flags.DEFINE_integer("width", 32, "Channels of the finest level.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 60.0, "Time to measure for.", lower_bound=0.1)
JSON = flags.DEFINE_string("json", str(Path(__file__).with_name("results") / "algoperf_step.json"), "The file to write.")
MODULE = "algoperf.workloads.fastmri.fastmri_jax.models"
POOLS = 4


def theirs(images: dict[str, Array]) -> tuple[Callable[[], object], int]:
    """AlgoPerf's step, which returns when its work is done, and the number of its parameters. Raises UserError."""
    sys.path.insert(0, CHECKOUT.value)
    built = ModuleType("algoperf._version")  # which an installation would write
    built.version = ""  # type: ignore[attr-defined]
    sys.modules.setdefault("algoperf._version", built)
    try:
        models = importlib.import_module(MODULE)
    except ImportError as error:
        raise UserError("--algoperf", f"{CHECKOUT.value} has no {MODULE}: {error}; give a clone of "
                        "github.com/mlcommons/algorithmic-efficiency") from error
    network, rule = models.UNet(num_channels=WIDTH.value, num_pool_layers=POOLS), optax.adam(1e-3)
    given, target = (images[name][..., 0] for name in ("input", "target"))

    def step(params: Any, moments: Any) -> tuple[Any, Any, Array]:
        def loss(params: Any) -> Array:
            return jnp.abs(network.apply({"params": params}, given, train=False) - target).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, moments = rule.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, value

    params = network.init(jax.random.PRNGKey(0), given, train=False)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    state = (params, rule.init(params))
    program = jax.jit(step, donate_argnums=(0, 1))

    def run() -> object:
        nonlocal state
        *state, value = program(*state)
        return jax.block_until_ready((state, value))

    return run, count


def main() -> None:
    """Measures, and writes the file."""
    model = registry.spec("models", "unet", width=WIDTH.value, depth=POOLS + 1, **FASTMRI)
    case = Case("fastmri", model, 2, (1, 1), BATCH.value, (SIZE.value, SIZE.value))
    own = programs.build(case, "f32", "step")
    other, count = theirs(case.images())
    if count != own.params:
        raise UserError("--algoperf", f"its U-Net has {count} parameters and medjax's {own.params}; give a checkout in "
                        "which it is fastMRI's")
    ours, peers = alternate([clock(own.step), clock(other)], SECONDS.value)
    ms, peer_ms = float(np.median(ours)), float(np.median(peers))
    found = {"medjax_ms": ms, "peer_ms": peer_ms, "ratio": ms / peer_ms, "medjax_spread_ms": spread(ours),
             "peer_spread_ms": spread(peers), "parameters": count, "batch": BATCH.value, "size": SIZE.value,
             "rounds": len(ours), "hardware": machine.hardware(), "versions": machine.versions()}
    write_atomically(Path(JSON.value), json.dumps(found, indent=1) + "\n")
    print(f"medjax {ms:.0f} ms, AlgoPerf {peer_ms:.0f} ms, ratio {ms / peer_ms:.2f}; written: {JSON.value}; next: "
          "python -m benchmarks.equal_budget --tables")


if __name__ == "__main__":
    cli.run(main)
