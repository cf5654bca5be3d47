"""What a pod would cost: memory, collectives and the predicted step time of whole-volume training, from compiled programs.

    python benchmarks/scaling.py --json=benchmarks/results/scaling.json

The 3-D U-Net step is compiled for imagined devices. `temp` is the temporary memory of one device relative to one that
holds the whole volume; `permute_mb` is what one device sends to its neighbours (halos), `reduce_mb` the gradients that
are summed over all. The prediction for 256 chips adds up, for each chip, its arithmetic at `PEAK` x `SHARE`, and its
bytes over the links; nothing overlaps, so it is a bound from above.
"""

import json
import os
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from absl import app, flags
from jax import ShapeDtypeStruct

from medjax import registry
from medjax.train import sharding
from medjax.train.step import init_state, make_step

JSON = flags.DEFINE_string("json", "", "Where to write the result.")
SIZE = flags.DEFINE_integer("size", 128, "Edge of the volume.")

# name: matrix peak (FLOP/s, bf16), share of it that a 3-D U-Net reaches, bytes/s over the links of one chip, one way.
CHIPS = {"TPU v5p": (459e12, 0.35, 200e9), "H100 (NVLink in a node of 8, 400 Gb/s outside)": (989e12, 0.35, 50e9)}
SIZES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "f16": 2, "u8": 1, "s16": 2, "s64": 8, "u64": 8}


def step_for(data: int, space: int, size: int):
    """The compiled step on `data` x `space` devices, one volume for each group of `space`."""
    task = registry.build("tasks", registry.spec("tasks", "denoise", noise="gaussian"), data_range=(0.0, 1.0), ndim=3)
    network = registry.spec("models", "unet", width=16, depth=4, norm="group")
    model = registry.build("models", network, ndim=3, channels=1, scale=task.scale)
    objective = registry.build("objectives", registry.spec("objectives", "supervised"), task=task, model=model)
    parts = (task, objective, {"model": optax.adamw(1e-3)}, 0.0)
    mesh = sharding.make_mesh(data, space)
    batch = {"image": ShapeDtypeStruct((data, size, size, size, 1), jnp.int16),
             "id": ShapeDtypeStruct((data,), jnp.uint32),
             **{name: ShapeDtypeStruct((data,), jnp.float32) for name in ("slope", "intercept", "count")}}
    state = jax.eval_shape(partial(init_state, *parts), batch, jax.random.PRNGKey(0))
    placed = [jax.tree.map(lambda leaf: ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.replicated(mesh)), state),
              {name: ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
               for (name, leaf), place in zip(batch.items(), sharding.batch_sharding(mesh, batch).values(), strict=True)}]
    return jax.jit(make_step(*parts), donate_argnums=0).lower(*placed).compile(), state


def collectives(text: str) -> dict[str, float]:
    """Megabytes that one device sends, by kind, and how many gathers there are."""
    found = {"collective-permute": 0.0, "all-reduce": 0.0, "all-gather": 0.0, "all-to-all": 0.0}
    counts = dict.fromkeys(found, 0)
    for line in text.splitlines():
        match = re.search(r"= (.*?) (collective-permute|all-reduce|all-gather|all-to-all)(?:-start)?\(", line)
        if match:
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            size = sum(SIZES.get(kind, 4) * _product(dims) for kind, dims in shapes)
            found[match[2]] += size / 2**20
            counts[match[2]] += 1
    return {"permute_mb": found["collective-permute"], "reduce_mb": found["all-reduce"], "gathers": counts["all-gather"],
            "all_to_alls": counts["all-to-all"], "permutes": counts["collective-permute"], "reduces": counts["all-reduce"]}


def _product(dims: str) -> int:
    total = 1
    for size in filter(None, dims.split(",")):
        total *= int(size)
    return total


def main(_: list[str]) -> None:
    rows = []
    for data, space in [(1, 1), (1, 2), (1, 4), (1, 8), (2, 4)]:
        compiled, state = step_for(data, space, SIZE.value)
        flops = compiled.cost_analysis()["flops"]
        memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
        row = {"data": data, "space": space, "temp_mb": memory, "temp": memory / rows[0]["temp_mb"] if rows else 1.0,
               "gflop_per_device": flops / 1e9, **collectives(compiled.as_text())}
        rows.append(row)
        print(json.dumps(row))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    summary = {"volume": [SIZE.value] * 3, "parameters": parameters, "rows": rows, "jax": jax.__version__,
               "prediction_256": [predict(name, rows, parameters, space) for name in CHIPS for space in (1, 4, 8)]}
    print(json.dumps(summary["prediction_256"], indent=1))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(summary, indent=1) + "\n")


def predict(chip: str, rows: list[dict], parameters: int, space: int) -> dict:
    """Step time on 256 chips, bf16, every group of `space` chips with a volume of its own."""
    peak, share, link = CHIPS[chip]
    row = next(r for r in rows if (r["data"], r["space"]) == (1, space))
    whole = next(r for r in rows if (r["data"], r["space"]) == (1, 1))
    compute = whole["gflop_per_device"] * 1e9 / space / (peak * share)
    halos = row["permute_mb"] * 2**20 / 2 / link  # compiled in float32, half of it in bf16
    ring = 2 * (256 - 1) / 256 * parameters * 4 / link
    total = compute + halos + ring
    return {"chip": chip, "mesh": [256 // space, space], "volumes_per_step": 256 // space, "compute_ms": compute * 1e3,
            "halo_ms": halos * 1e3, "allreduce_ms": ring * 1e3, "step_ms": total * 1e3,
            "volumes_per_s": 256 // space / total, "efficiency": compute / total}


if __name__ == "__main__":
    os.environ["MEDJAX_CONV"] = "xla"  # the same convolutions on one device as on many, and counted
    jax.config.update("jax_num_cpu_devices", 8)
    app.run(main)
