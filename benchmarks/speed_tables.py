"""The tables of benchmarks/README.md that `python -m benchmarks.scores --tables` writes from `benchmarks/results`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
TILED, LATENCY, SEAM, MEMORY = (RESULTS / f"{name}.json" for name in ("tiled_cpu", "latency_cpu", "seam", "apply_memory"))
FORMS = {"live": "live", "stablehlo": "StableHLO", "onnx": "ONNX"}


def tiled() -> str:
    """Volumes in windows, beside MONAI (`python -m medjax.bench tiled`)."""
    found = _read(TILED)
    lines = [_machine(found), "",
             "| suite | dtype | windows | medjax ms | MONAI ms | ratio | apart, of the range |", "|---" * 7 + "|"]
    for row in found["rows"]:
        windows = f"{row['windows']} of {_size(row['window'])} in {_size(row['image'])}"
        lines.append(f"| {row['name']} | {row['dtype']} | {windows} | "
                     f"{row['medjax_ms']:.0f} | {row['peer_ms']:.0f} | {row['ratio']:.2f} | {row['difference']:.0e} |")
    return "\n".join(lines)


def latency() -> str:
    """Inputs one by one (`python -m medjax.bench latency`)."""
    found = _read(LATENCY)
    lines = [_machine(found), "",
             "| suite | input | form | 50 % ms | 95 % ms | 99 % ms | a second | runs |", "|---" * 8 + "|"]
    for row in found["rows"]:
        times = [f"{row[f'p{level}_ms']:.0f}" for level in (50, 95, 99)] + [f"{row['per_s']:.2f}", str(row["runs"])] \
            if "runs" in row else ["–"] * 5
        lines.append(f"| {row['name']} | {_size(row['patch'])} | {FORMS[row['form']]} | {' | '.join(times)} |")
    return "\n".join(lines)


def seam() -> str:
    """What tiles cost in PSNR (`python -m benchmarks.seam`)."""
    found = _read(SEAM)
    patients = {row["patients"] for row in found["norms"].values()}
    lines = [f"| normalisation | tiles | whole, PSNR dB | seam dB (95 %), {patients.pop()} people | most | "
             "near borders dB (95 %) |",
             "|---" * 6 + "|"]
    for norm, rows in found["norms"].items():
        whole = rows["whole"]["psnr"]["mean"]
        for tile, row in rows.items():
            if "seam" in row:
                lines.append(f"| {norm} | {tile} | {whole:.2f} | {_interval(row['seam'])} | {row['seam']['most']:.3f} | "
                             f"{_interval(row['near'])} |")
    return "\n".join(lines).replace("-0.", "−0.")


def memory() -> str:
    """What `apply` takes on a large volume (`python -m benchmarks.apply_memory`)."""
    found = _read(MEMORY)
    shape = " x ".join(map(str, found["shape"]))
    lines = [f"| {shape}, int16 | most MiB | allowed MiB |", "|---|---|---|"]
    lines += [f"| {name} | {row['MiB at most']} | {found['MiB allowed']} |" for name, row in found["runs"].items()]
    return "\n".join(lines)


def _machine(found: Mapping[str, Any]) -> str:
    hardware, versions = found["hardware"], found["versions"]
    return ", ".join([f"{hardware['cpu']}, {hardware['cores']} core{'s' * (hardware['cores'] != 1)}",
                      *(f"{name} {version}" for name, version in versions.items())])


def _interval(numbers: Mapping[str, float]) -> str:
    return f"{numbers['mean']:.3f} ({numbers['low']:.3f} … {numbers['high']:.3f})"


def _size(sizes: list[int]) -> str:
    return "x".join(map(str, sizes))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
