"""The tables of benchmarks/README.md that `python -m benchmarks.scores --tables` writes from `benchmarks/results`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
FORMS = {"live": "live", "stablehlo": "StableHLO", "onnx": "ONNX"}
NORMS = {"none": "none", "batch": "batch: statistics of training", "group": "group: statistics of the window"}


def tiled() -> str:
    """Images and volumes in windows, beside MONAI (`python -m medjax.bench tiled`)."""
    found = [_read(path.stem) for path in sorted(RESULTS.glob("tiled_*_cpu*.json"))]
    lines = [_machine(found[0]), "",
             "| suite | dtype | windows | medjax ms | MONAI ms | ratio | apart, of the range |", "|---" * 7 + "|"]
    for row in (row for one in found for row in one["rows"]):
        windows = f"{row['windows']} of {_size(row['window'])} in {_size(row['image'])}"
        lines.append(f"| {row['name']} | {row['dtype']} | {windows} | {row['medjax_ms']:.0f} | {row['peer_ms']:.0f} | "
                     f"{row['ratio']:.2f} | {row['difference']:.0e} |")
    return "\n".join(lines)


def latency() -> str:
    """Inputs one by one (`python -m medjax.bench latency`)."""
    found = [_read(path.stem) for path in sorted(RESULTS.glob("latency_cpu*.json"))]
    lines = [_machine(found[0]), "",
             "| suite | input | form | 50 % ms | 95 % ms | 99 % ms | runs | from live, of the range |", "|---" * 8 + "|"]
    for row in (row for one in found for row in one["rows"]):
        numbers = [*(f"{row[f'p{level}_ms']:.0f}" for level in (50, 95, 99)), str(row["runs"]), f"{row['difference']:.0e}"] \
            if "runs" in row else ["–"] * 5
        lines.append(f"| {row['name']} | {_size(row['patch'])} | {FORMS[row['form']]} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def seam() -> str:
    """What windows cost in PSNR (`python -m benchmarks.seam`)."""
    found = _read("seam")
    patients = {row["patients"] for row in found["norms"].values()}
    lines = [f"| normalisation | input, whole dB | windows | seam of medjax dB (95 %), {patients.pop()} people | most | "
             "seam of MONAI dB (95 %) | near borders: medjax, MONAI |", "|---" * 7 + "|"]
    for norm, own in found["norms"].items():
        whole = f"{own['psnr']['input']['mean']:.2f}, {own['psnr']['model']['mean']:.2f}"
        for window, row in own["windows"].items():
            lines.append(f"| {NORMS[norm]} | {whole} | {window} | {_interval(row['medjax_seam'])} | "
                         f"{row['medjax_seam']['most']:.3f} | {_interval(row['monai_seam'])} | "
                         f"{row['medjax_near']['mean']:.3f}, {row['monai_near']['mean']:.3f} |")
    return "\n".join(lines).replace(" -", " −").replace("(-", "(−")


def memory() -> str:
    """What `apply` takes on a large volume (`python -m benchmarks.apply_memory`)."""
    found = _read("apply_memory")
    lines = [f"| {_size(found['shape'])}, int16 | most MiB | allowed MiB |", "|---|---|---|"]
    lines += [f"| {name} | {row['MiB at most']} | {found['MiB allowed']} |" for name, row in found["runs"].items()]
    return "\n".join(lines)


def registration() -> str:
    """Registration of people that the network has not seen (`python -m benchmarks.registration`)."""
    found = _read("registration")
    lines = ["| pairs | method | distance mm or Dice (95 %) | folds % | p | ms a pair | of the network's time |",
             "|---" * 7 + "|"]
    for kind in ("planted", "real"):
        own = found[kind]["rows"]["network"]["seconds"]
        for name, row in found[kind]["rows"].items():
            value, (low, high) = row["distance_mm" if kind == "planted" else "dice"], row["interval"]
            p = "–" if row["p"] is None else f"{row['p']:.3f}"
            time = ["–", "–"] if name == "none" else [f"{1e3 * row['seconds']:.0f}", f"{row['seconds'] / own:.0f}"]
            lines.append(f"| {kind}, {found[kind]['pairs']} of {found[kind]['patients']} people | {name} | "
                         f"{value:.3f} ({low:.3f} … {high:.3f}) | {row['folds']:.2f} | {p} | {time[0]} | {time[1]} |")
    return "\n".join(lines)


def _machine(found: Mapping[str, Any]) -> str:
    hardware, versions = found["hardware"], found["versions"]
    return ", ".join([f"{hardware['cpu']}, {hardware['cores']} core{'s' * (hardware['cores'] != 1)}",
                      *(f"{name} {version}" for name, version in versions.items())])


def _interval(numbers: Mapping[str, float]) -> str:
    return f"{numbers['mean']:.3f} ({numbers['low']:.3f} … {numbers['high']:.3f})"


def _size(sizes: list[int]) -> str:
    return "x".join(map(str, sizes))


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found
