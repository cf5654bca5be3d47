"""Exports a trained run for use without medjax: python -m medjax.export --workdir=runs/mine --output=FOLDER

Written are the model, with everything from physical units to physical units inside (`model.stablehlo`, and `model.onnx` with
`--formats=stablehlo,onnx`), `manifest.json`, `model_card.md`, and `run.py`, which applies it to a file.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from medjax import cli
from medjax.evaluation.compare import metrics_of
from medjax.evaluation.run import METRICS
from medjax.infer import folder, onnx
from medjax.infer.export import Exported, make_exportable, stablehlo
from medjax.infer.predict import derivation
from medjax.report.card import card
from medjax.report.table import aligned
from medjax.train.run import held_split, restore_best
from medjax.types import UserError, check_choice

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the exported model, a new one.", required=True)
FORMATS = flags.DEFINE_list("formats", ["stablehlo"], "Of stablehlo, which JAX runs, and onnx.")
SIZE = flags.DEFINE_list("size", [], "Sizes of the image along its axes, e.g. 256,256: for what takes one size alone.")
SPACING = flags.DEFINE_float("spacing", 0.0, "Size of pixels in mm, for a scanner that is exported; that of training if 0.")

KNOWN = ("stablehlo", "onnx")


def main() -> None:
    """Exports, compares with the live model, writes the folder and prints what lies in it."""
    target, workdir, size = Path(OUTPUT.value).expanduser(), Path(WORKDIR.value), _size(SIZE.value)
    for name in FORMATS.value:
        check_choice("--formats", name, KNOWN)
    if target.exists():
        raise UserError(target, "is there already; name a new folder")
    run, state = restore_best(workdir)
    program = make_exportable(run, state, size, SPACING.value)
    make = {"stablehlo": lambda: stablehlo(program), "onnx": lambda: onnx.convert(program, size)}
    models = [make[name]() for name in dict.fromkeys(FORMATS.value)]
    manifest = folder.contents(program, models, int(state.step), derivation(run, state).identity)
    path = workdir / "eval" / METRICS
    evaluation = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    patients = Counter((held_split(workdir) or {}).values())
    sizes = folder.write(target, manifest, models, card(manifest, patients, evaluation, metrics_of(run)))
    print(aligned(_cells(sizes, models)))
    print("difference: the largest from the live model, on random images, as a part of the range of values")
    print(f"written: {target}")
    inputs = " ".join(f"{port.name.upper()}.npy" for port in program.inputs)
    print(f"next: python {target / folder.SCRIPT} {inputs} OUTPUT.npy")


def _cells(sizes: Mapping[str, int], models: Sequence[Exported]) -> list[list[str]]:
    """The table of what was written: a line of heads, then the files."""
    known = {model.file: model for model in models}
    cells = [["", "kB", "takes", "difference"]]
    for name, size in sizes.items():
        model = known.get(name)
        shapes = " and ".join(f"({', '.join(map(str, shape))})" for shape in model.shapes) if model else "–"
        cells.append([name, f"{size / 1e3:,.1f}", shapes, f"{model.difference:.1e}" if model else "–"])
    return cells


def _size(words: list[str]) -> tuple[int, ...]:
    if not all(word.isdigit() and int(word) for word in words):
        raise UserError("--size", f"{','.join(words)}; give whole numbers with commas between, as 256,256")
    return tuple(int(word) for word in words)


if __name__ == "__main__":
    cli.run(main)
