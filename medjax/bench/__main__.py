"""How fast medjax is, beside its peers, and how much memory a run will take.

    python -m medjax.bench step --suite=unet2d,unet3d,redcnn,edsr --dtype=f32,bf16 --peer=torch --json=step.json
    python -m medjax.bench infer --config=configs/quickstart.py
    python -m medjax.bench pipeline --peer=torchio
    python -m medjax.bench memory --config=configs/quickstart.py --batch=8,32 --mesh=1x1,4x2
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a peer on the same GPU needs room too

from medjax.bench import cases, machine, memory, pipeline, speed
from medjax.cli import run
from medjax.files import write_atomically
from medjax.types import UserError

COMMANDS = ("step", "infer", "pipeline", "memory")
COLUMNS = {
    "step": ("name", "dtype", "medjax_ms", "medjax_spread_ms", "peer_ms", "peer_spread_ms", "ratio", "images_per_s",
             "gflops", "share_of_peak", "compile_s", "memory_mb"),
    "pipeline": ("name", "peer", "medjax_ms", "peer_ms", "ratio", "patches_per_s", "peer_patches_per_s", "workers"),
    "memory": ("name", "dtype", "batch", "patch", "mesh", "arguments_mb", "temporaries_mb", "output_mb", "total_mb"),
}
COLUMNS["infer"] = COLUMNS["step"]

CONFIG = config_flags.DEFINE_config_file("config", None, "A run's config, in place of suites.")
SUITE = flags.DEFINE_list("suite", ["unet2d", "unet3d", "redcnn", "edsr"], "Named suites, where no config is given.")
DTYPE = flags.DEFINE_list("dtype", ["f32"], "f32, bf16 or both.")
PEER = flags.DEFINE_string("peer", "", "torch or xla (step, infer), torchio or monai (pipeline).")
PYTHON = flags.DEFINE_string("peer_python", "", "The Python that has the peer installed; else MEDJAX_PEER_PYTHON.")
JSON = flags.DEFINE_string("json", "", "The file to write hardware, versions and rows to.")
SECONDS = flags.DEFINE_float("seconds", 20.0, "Time to spend on a row.", lower_bound=0.1)
WORKERS = flags.DEFINE_integer("workers", 0, "pipeline: reading processes; 0 reads with threads.", lower_bound=0)
BATCH = flags.DEFINE_list("batch", [], "memory: batch sizes; none takes the config's or suite's.")
PATCH = flags.DEFINE_list("patch", [], "memory: patches like 64x64x64; none takes the config's or suite's.")
MESH = flags.DEFINE_list("mesh", ["1x1"], "memory: meshes like 4x2, data x space; devices that are missing are imagined.")


def main() -> None:
    """Runs the command, prints its table and writes its JSON."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in COMMANDS:
        raise UserError("medjax.bench", f"{command!r} is no command; give one of {', '.join(COMMANDS)} first")
    for dtype in DTYPE.value:
        if dtype not in cases.DTYPES:
            raise UserError("--dtype", f"no {dtype!r}; there is {', '.join(cases.DTYPES)}")
    report: dict[str, Any] = {"command": command, "hardware": {}, "versions": machine.versions(), "rows": []}
    rows = _rows(command, report)
    _print_header(command)
    for row in rows:
        report["rows"].append(row)
        _print_row(command, row)
        if JSON.value:
            write_atomically(Path(JSON.value), json.dumps(report, indent=1) + "\n")


def _rows(command: str, report: dict[str, Any]) -> Iterable[dict[str, Any]]:
    if command == "pipeline":
        report["hardware"] |= machine.hardware()
        return pipeline.measure(CONFIG.value, PEER.value, PYTHON.value, WORKERS.value, SECONDS.value, report)
    if command == "memory":
        plans = memory.plans(CONFIG.value, SUITE.value, DTYPE.value, BATCH.value, PATCH.value, MESH.value)
        report["hardware"] |= machine.hardware()
        return map(memory.measure, plans)
    report["hardware"] |= machine.hardware()
    chosen = [cases.from_config(CONFIG.value)] if CONFIG.value else cases.suites(SUITE.value)
    return speed.measure(chosen, DTYPE.value, command, PEER.value, PYTHON.value, SECONDS.value, report)


def _print_header(command: str) -> None:
    print("  ".join(f"{column:>{_width(column)}}" for column in COLUMNS[command]))


def _print_row(command: str, row: dict[str, Any]) -> None:
    print("  ".join(f"{_text(row.get(column)):>{_width(column)}}" for column in COLUMNS[command]), flush=True)


def _width(column: str) -> int:
    return max(len(column), 8)


def _text(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return "x".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


if __name__ == "__main__":
    run(main)
