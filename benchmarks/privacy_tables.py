"""Tables of docs/privacy.md and docs/deidentify.md, which `benchmarks.scores` writes."""

import json
from pathlib import Path

RESULTS = Path(__file__).with_name("results")
MEMBERSHIP, DEFACE = RESULTS / "membership_brains.json", RESULTS / "deface.json"


def members() -> str:
    """Runs with and without privacy, and attacks on them (`benchmarks/membership.py`)."""
    runs = list(json.loads(MEMBERSHIP.read_text(encoding="utf-8"))["runs"].values())
    attacks = list(runs[0]["attacks"])
    heads = ["epsilon, delta", "people of training, others", "PSNR dB", "input, best reference",
             *(f"AUC {name}" for name in attacks)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for run in runs:
        spent, people, psnr = run["privacy"], run["attacks"][attacks[0]], run["psnr"]["model"]
        others = {name: standing["mean"] for name, standing in run["psnr"].items() if name != "model"}
        best = max(others, key=lambda name: others[name])
        aucs = [run["attacks"][name]["auc"] for name in attacks]
        cells = [f"{spent['epsilon']:.3g}, {spent['delta']:g}" if spent else "no privacy",
                 f"{people['members']}, {people['others']}", f"{psnr['mean']:.2f} ({psnr['low']:.2f} … {psnr['high']:.2f})",
                 f"{others['input']:.2f}, {others[best]:.2f} ({best})",
                 *(f"{auc['value']:.2f} ({auc['low']:.2f} … {auc['high']:.2f})" for auc in aucs)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def defaced() -> str:
    """Faces removed of real scans (`benchmarks/deface.py`)."""
    lines = ["| scan | brain, ml | brain lost | face removed | CPU s |", "|---" * 5 + "|"]
    for name, scan in json.loads(DEFACE.read_text(encoding="utf-8"))["scans"].items():
        face = scan.get("face_removed")
        cells = ["refused", "–", "–", "–"] if "refused" in scan else [
            str(scan["brain_ml"]), f"{100 * scan['brain_lost']:.2f} %", "–" if face is None else f"{100 * face:.1f} %",
            f"{scan['cpu_seconds']:.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
