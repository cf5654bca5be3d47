"""What a command reports: hardware, versions and rows, printed as a table and written as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from medjax.files import write_atomically

Row = dict[str, object]

SPEED = ("name", "dtype", "medjax_ms", "medjax_spread_ms", "peer_ms", "peer_spread_ms", "ratio", "images_per_s", "gflops",
         "share_of_peak", "compile_s", "memory_mb")
COLUMNS = {
    "step": SPEED,
    "infer": SPEED,
    "tiled": ("name", "dtype", "medjax_ms", "medjax_spread_ms", "peer_ms", "peer_spread_ms", "ratio", "ratio_spread",
              "mvoxels_per_s", "windows", "difference"),
    "latency": ("name", "dtype", "form", "p50_ms", "p95_ms", "p99_ms", "per_s", "runs", "difference", "note"),
    "pipeline": ("name", "peer", "medjax_ms", "peer_ms", "ratio", "patches_per_s", "peer_patches_per_s", "workers"),
    "memory": ("name", "dtype", "batch", "patch", "mesh", "arguments_mb", "temporaries_mb", "output_mb", "total_mb",
               "host_mb"),
}


@dataclass
class Report:
    """The JSON file's content; commands add to `hardware` and `versions` what they learn on the way."""

    command: str
    hardware: dict[str, object]
    versions: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    def show(self, rows: Iterable[Row], path: str) -> None:
        """Prints each row as it comes; after each, the file `path` ("" for none) is whole."""
        columns = COLUMNS[self.command]
        for row in rows:
            if not self.rows:
                print("  ".join(f"{column:>{_width(column)}}" for column in columns))
            self.rows.append(row)
            print("  ".join(f"{_cell(row, column):>{_width(column)}}" for column in columns), flush=True)
            if path:
                write_atomically(Path(path), json.dumps(asdict(self), indent=1) + "\n")


def _width(column: str) -> int:
    return max(len(column), 8)


def _cell(row: Mapping[str, object], column: str) -> str:
    value = row.get(column)
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return "x".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
