"""The model card of an exported run (Mitchell et al., 2019), in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from medjax.measures.statistics import Standing
from medjax.report.table import arrow, standing_cells
from medjax.types import Metric

USE = """Research. This is no medical device, and nothing here was examined for use in diagnosis or treatment."""
LIMITS = (
    "Images of other scanners, protocols, anatomy, noise or patients than those of training may come out wrong without a "
    "sign of it.",
    "A restored image shows what is likely. It may leave out a finding, or show one that there is not.",
    "Values and voxel sizes that differ from those of training are told by `run.py`; nothing else is checked.",
    "Padding outside the scanned field is treated as image, where `medjax.apply` leaves it as it was.",
    "`medjax.apply` takes images of more than a million voxels in tiles; here they go through whole, and networks with "
    "normalisation over the image may then give other values.",
)


def card(manifest: Mapping[str, Any], patients: Mapping[str, int], evaluation: Mapping[str, Any] | None,
         metrics: Mapping[str, Metric]) -> str:
    """The card of a `manifest`, with the number of `patients` by part of the data and the summary of an `evaluation`."""
    known = manifest["training"]
    facts = [("task", manifest["task"]), ("network", manifest["network"]), ("objective", manifest["objective"]),
             ("step", manifest["step"]), ("checkpoint", manifest["checkpoint"]), ("modality", known["modality"]),
             ("units", manifest["units"]), ("contrasts", ", ".join(known["contrasts"])),
             ("range of values", _interval(manifest["data_range"])), ("normalisation", manifest["normalise"]),
             ("voxel sizes mm", _interval(known["spacing_mm"]))]
    parts = [f"# {manifest['task']}: {manifest['network']}", "## Intended use", USE, "## Model",
             _table([["", ""], *([name, str(value)] for name, value in facts if value not in ("", ()))]),
             "## Inputs and output", _ports(manifest), "## Data", _data(patients), "## Evaluation",
             *_evaluation(evaluation, metrics, manifest["step"]), "## Limits", "\n".join(f"- {limit}" for limit in LIMITS)]
    return "\n\n".join(parts) + "\n"


def _ports(manifest: Mapping[str, Any]) -> str:
    lines = [["", "shape", "unit", "meaning"]]
    for port in (*manifest["inputs"], manifest["output"]):
        shape = f"({', '.join(map(str, port['shape']))})" if port["shape"] else ""
        names = f": {', '.join(port['channels'])}" if port["channels"] else ""
        lines.append([f"`{port['name']}`", shape, port["unit"], port["meaning"] + names])
    return _table(lines)


def _data(patients: Mapping[str, int]) -> str:
    if not patients:
        return "The folder of the run does not say how many patients there were."
    if "slabs" in patients:
        return (f"Patients: {patients['slabs']}, whose images are cut into slabs for training, validation and test: nothing "
                "is known of other patients.")
    return "Patients: " + ", ".join(f"{count} in {part}" for part, count in patients.items()) + "."


def _evaluation(found: Mapping[str, Any] | None, metrics: Mapping[str, Metric], step: int) -> list[str]:
    """What the run's evaluation says, a table for each metric, with the methods it was compared with."""
    if found is None:
        return ["There is no evaluation of this run yet: `python eval.py --workdir=RUN` makes one."]
    said = [f"Checkpoint of step {found['step']} on the {found['split']} part: {found['n']} samples, patients: "
            f"{found['patients']}. Intervals are bootstrap intervals over patients; p is of a paired permutation test "
            "against the model (Holm)." + ("" if found["step"] == step else f" **What is exported is step {step}.**")]
    for name, rows in found["standings"].items():
        if name in metrics and rows:
            standings = {row: Standing.of(numbers) for row, numbers in rows.items()}
            cells = standing_cells(standings, metrics[name], "model")
            said.append(_table([[f"{metrics[name].title} {arrow(metrics[name])}", *cells[0][1:]], *cells[1:]]))
    return said


def _table(cells: Sequence[Sequence[str]]) -> str:
    head, *lines = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([head, "|" + "---|" * len(cells[0]), *lines])


def _interval(bounds: Sequence[float]) -> str:
    return " … ".join(f"{value:g}" for value in bounds)
