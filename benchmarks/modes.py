"""One train step under jit, shard_map and pmap: milliseconds and losses, on as many devices as there are.

    python benchmarks/modes.py --devices=2 --json=benchmarks/results/modes_cpu.json

The same network, batch and seed; rounds of the modes take turns, and each row is the median of its rounds.
"""

import json
import statistics
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from medjax import registry
from medjax.bench import machine
from medjax.train import sharding
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_step

DEVICES = flags.DEFINE_integer("devices", 2, "On a CPU, how many devices to make of it.")
ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds of each mode.")
STEPS = flags.DEFINE_integer("steps", 10, "Steps of a round.")
JSON = flags.DEFINE_string("json", "", "Where to write the result.")
SIZE, BATCH = 96, 8


def prepare(mode: str):
    """The step, the state it starts from and its batch."""
    task = registry.build("tasks", registry.spec("tasks", "denoise"), data_range=(0.0, 255.0), ndim=2)
    model = registry.build("models", registry.spec("models", "unet", width=16, depth=3), ndim=2, channels=1,
                           scale=task.scale)
    objective = registry.build("objectives", registry.spec("objectives", "supervised"), task=task, model=model)
    rules = {"model": optimizer(1000)}
    mesh = sharding.make_mesh()
    batch = {"image": np.random.default_rng(0).integers(0, 255, (BATCH, SIZE, SIZE, 1), np.uint8),
             "id": np.arange(BATCH, dtype=np.uint32), "intercept": np.zeros(BATCH, np.float32),
             **{name: np.ones(BATCH, np.float32) for name in ("slope", "count")}}
    batch = jax.device_put(batch, sharding.batch_sharding(mesh, batch))
    init = partial(init_state, task, objective, rules, 0.9, key=jax.random.PRNGKey(0))
    places = sharding.state_sharding(mesh, jax.eval_shape(init, batch), fsdp=False)
    step = make_step(task, objective, rules, 0.9, axis=None if mode == "jit" else "data")
    return sharding.parallel(step, mesh, mode, places), jax.jit(init, out_shardings=places)(batch), batch


def main(_: list[str]) -> None:
    prepared, losses = {}, {}
    for mode in sharding.MODES:
        step, state, batch = prepare(mode)
        found = []
        for _ in range(5):
            state, logs = step(state, batch)
            found.append(float(logs["model/loss"]))
        prepared[mode], losses[mode] = [step, state, batch], found
    times: dict[str, list[float]] = {mode: [] for mode in sharding.MODES}
    for _ in range(ROUNDS.value):
        for mode, (step, state, batch) in prepared.items():
            begin = time.perf_counter()
            for _ in range(STEPS.value):
                state, logs = step(state, batch)
            jax.block_until_ready((state, logs))
            times[mode].append((time.perf_counter() - begin) / STEPS.value * 1e3)
            prepared[mode][1] = state
    rows = [{"mode": mode, "ms": statistics.median(times[mode]), "spread_ms": max(times[mode]) - min(times[mode]),
             "images_per_s": BATCH / statistics.median(times[mode]) * 1e3, "losses": losses[mode],
             "loss_apart": max(abs(a / b - 1) for a, b in zip(losses[mode], losses["jit"], strict=True))}
            for mode in sharding.MODES]
    for row in rows:
        print("{mode:>10} {ms:8.2f} ms {images_per_s:8.1f} images/s, losses {loss_apart:.1e} apart".format(**row))
    report = {"devices": len(jax.devices()), "network": "2-D U-Net, width 16, 3 levels", "batch": [BATCH, SIZE, SIZE],
              "hardware": machine.hardware(), "versions": machine.versions(), "rows": rows}
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(report, indent=1) + "\n")


def start(arguments: list[str]) -> None:
    if jax.config.jax_platforms == "cpu":
        jax.config.update("jax_num_cpu_devices", DEVICES.value)
    main(arguments)


if __name__ == "__main__":
    app.run(start)
