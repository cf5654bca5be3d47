"""How fast medjax is, beside its peers, and how much memory a run will take.

    python -m medjax.bench step --suite=unet2d,unet3d,redcnn,edsr --dtype=f32,bf16 --peer=torch --json=step.json
    python -m medjax.bench infer --config=configs/quickstart.py
    python -m medjax.bench tiled --peer=monai
    python -m medjax.bench latency
    python -m medjax.bench pipeline --peer=torchio
    python -m medjax.bench memory --config=configs/quickstart.py --batch=8,32 --mesh=1x1,4x2
"""

import os
import sys
from collections.abc import Iterable

from absl import flags
from ml_collections import config_flags

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a peer on the same GPU needs room too

from medjax.bench import cases, latency, machine, memory, pipeline, speed, tiled
from medjax.bench.table import COLUMNS, Report, Row
from medjax.cli import run
from medjax.types import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "A run's config, in place of suites.")
SUITE = flags.DEFINE_list("suite", [], "Named suites, where no config is given; none takes those of the command.")
DTYPE = flags.DEFINE_list("dtype", ["f32"], "f32, bf16 or both.")
PEER = flags.DEFINE_string("peer", "", "torch or xla (step, infer), monai (tiled), torchio or monai (pipeline).")
PYTHON = flags.DEFINE_string("peer_python", "", "The Python that has the peer installed; else MEDJAX_PEER_PYTHON, else "
                             "that of `make peers`.")
JSON = flags.DEFINE_string("json", "", "The file to write hardware, versions and rows to.")
SECONDS = flags.DEFINE_float("seconds", 20.0, "Time to spend on a row.", lower_bound=0.1)
BATCH = flags.DEFINE_list("batch", [], "Batch sizes; none takes the config's or suite's.")
PATCH = flags.DEFINE_list("patch", [], "Patches of the input like 64x64x64, or 64 for all axes; none takes the config's or "
                          "suite's.")
WORKERS = flags.DEFINE_integer("workers", 0, "pipeline: reading processes; 0 reads with threads.", lower_bound=0)
VOLUMES = flags.DEFINE_integer("volumes", 20, "pipeline: how many synthetic volumes.", lower_bound=1)
MESH = flags.DEFINE_list("mesh", ["1x1"], "memory: meshes like 4x2, data x space; devices that are missing are imagined.")


def main() -> None:
    """Runs the command, prints its table and writes its JSON."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in COLUMNS:
        raise UserError("medjax.bench", f"unknown command {command!r}; choose from {', '.join(COLUMNS)}")
    for dtype in DTYPE.value:
        if dtype not in cases.DTYPES:
            raise UserError("--dtype", f"unknown {dtype!r}; choose from {', '.join(cases.DTYPES)}")
    report = Report(command, {}, machine.versions())
    report.show(_rows(command, report), JSON.value)


def _rows(command: str, report: Report) -> Iterable[Row]:
    suites = SUITE.value or cases.SUITES.get(command, cases.NETWORKS)
    if command == "pipeline":
        source = pipeline.source(CONFIG.value, BATCH.value, PATCH.value, VOLUMES.value, WORKERS.value)
        report.hardware |= machine.hardware()
        return pipeline.measure(source, PEER.value, PYTHON.value, SECONDS.value, report)
    if command == "memory":
        plans = memory.plans(CONFIG.value, suites, DTYPE.value, BATCH.value, PATCH.value, MESH.value)
        report.hardware |= machine.hardware()
        return map(memory.measure, plans)
    chosen = cases.choose(CONFIG.value, suites, BATCH.value, PATCH.value)
    report.hardware |= machine.hardware()
    if command == "tiled":
        return tiled.measure(chosen, DTYPE.value, PEER.value, PYTHON.value, SECONDS.value, report)
    if command == "latency":
        return latency.measure(chosen, DTYPE.value, SECONDS.value, report)
    return speed.measure(chosen, DTYPE.value, command, PEER.value, PYTHON.value, SECONDS.value, report)


if __name__ == "__main__":
    run(main)
