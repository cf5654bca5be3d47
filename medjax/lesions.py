"""Which lesions a run loses and which it invents: python -m medjax.lesions runs/mine

Lesions of every contrast and size are planted in test images before they are degraded, and the run, its references and the
input are measured by what is left of them. Written are `lesions.html` (table, charts, pictures), `lesions.csv` and
`lesions.json`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from absl import flags

from medjax import cli
from medjax.evaluation.lesion_study import HALF, Kind, LesionStudy, Settings, study
from medjax.evaluation.run import next_command
from medjax.files import write_atomically
from medjax.report import lesions as report
from medjax.report.table import aligned
from medjax.report.viewer import Shown
from medjax.types import UserError

CONTRASTS = flags.DEFINE_list("contrasts", [], "Of the lesions, in the images' units, or with % in parts of the median "
                              "tissue; if not given -20,-40,-80 for images in HU, else -10%,-20%,-40%.")
DIAMETERS = flags.DEFINE_list("diameters", ["4", "8"], "Of the lesions, in mm (in voxels where files don't say how large).")
SAMPLES = flags.DEFINE_integer("samples", 32, "Test images at most, evenly spread; 0 for all.")
SEED = flags.DEFINE_integer("seed", 0, "Of the lesions' places.")
OUTPUT = flags.DEFINE_string("output", "", "Folder of the results; lesions/ in the run's folder if empty.")


def main(words: Sequence[str]) -> None:
    """Plants, restores, measures, writes the results and prints the table."""
    if len(words) != 1:
        raise UserError("medjax.lesions", "give the folder of one run")
    workdir = Path(words[0])
    done = study(workdir, Settings(tuple(CONTRASTS.value), _sizes(DIAMETERS.value), SAMPLES.value, SEED.value))
    folder = Path(OUTPUT.value) if OUTPUT.value else workdir / "lesions"
    folder.mkdir(parents=True, exist_ok=True)
    found = [_reported(done, kind) for kind in done.kinds]
    config = done.run.config
    write_atomically(folder / "lesions.csv", report.to_csv(found))
    record = done.shown_record
    shown = Shown("test image", {row: image[..., None] for row, image in done.shown.items()}, record.spacing_mm,
                  record.affine is not None)
    report.write(folder / "lesions.html", title=workdir.name, task=config.task.name, step=done.step, data=_data(done),
                 found=found, crops=_crops(done), shown=shown, span=done.run.task.data_range, units=config.data.domain.units,
                 notes=_notes(done), config=config.to_json(indent=1))
    write_atomically(folder / "lesions.json", json.dumps(contents(done), indent=1))
    print(aligned(report.cells(found)))
    for note in _notes(done):
        print(note)
    print(f"{_data(done)}; written: {folder / 'lesions.html'}, lesions.json, lesions.csv")
    print(next_command(workdir))


def _sizes(words: Sequence[str]) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise UserError("--diameters", f"{','.join(words)}; give numbers with commas between, as 4,8") from None


def contents(done: LesionStudy) -> dict[str, object]:
    """The study as JSON: every kind of lesion with numbers by method, None where there is none."""
    kinds = []
    for kind in done.kinds:
        rows = {row: {name: found[row].numbers for name, found in kind.standings.items()}
                for row in kind.standings["recovery"]}
        kinds.append({"contrast": kind.lesion.contrast, "asked": kind.text, "diameter_mm": kind.lesion.diameter_mm,
                      "lesions": kind.count, "methods": rows, "observer": {
                          row: {name: value if math.isfinite(value) else None for name, value in asdict(seen).items()}
                          for row, seen in kind.detectability.items()}})
    return {"task": done.run.config.task.name, "units": done.run.config.data.domain.units, "step": done.step,
            "images": done.images, "patients": done.patients, "half": HALF, "settings": asdict(done.settings),
            "strengths": dict(done.strengths), "kinds": kinds}


def _reported(done: LesionStudy, kind: Kind) -> report.Lesions:
    d_prime = {row: (seen.d_prime, seen.d_prime_low, seen.d_prime_high) for row, seen in kind.detectability.items()}
    return report.Lesions(_name(done, kind), kind.lesion.contrast, kind.lesion.diameter_mm, kind.standings, d_prime)


def _name(done: LesionStudy, kind: Kind) -> str:
    units = done.run.config.data.domain.units
    contrast = f"{kind.text.replace('%', ' %')} ({kind.lesion.contrast:.3g})" if kind.text.endswith("%") else (
        f"{kind.text} {units}".rstrip())
    return f"{contrast}, {kind.lesion.diameter_mm:g} mm".replace("-", "−")


def _crops(done: LesionStudy) -> list[report.Crop]:
    """Of the middle kind of lesions, those that the model leaves least, the median and most of."""
    kind = done.kinds[len(done.kinds) // 2]
    titles = ("least recovered by the model", "median", "most recovered")
    return [report.Crop(f"{_name(done, kind)}: {title}", one.present, one.absent, one.recovery, kind.lesion.contrast,
                        one.spacing_mm) for title, one in zip(titles, kind.examples, strict=False)]


def _data(done: LesionStudy) -> str:
    count = sum(kind.count for kind in done.kinds)
    return f"{done.images} test images, {count} lesions in {done.patients} patient{'s' * (done.patients != 1)}"


def _notes(done: LesionStudy) -> list[str]:
    """How the numbers came about."""
    notes = ["Recovery: the contrast of a lesion, restored with it less without it in the same noise, over what was "
             f"planted. Lost: recovery below {HALF:g}. Invented: where nothing is planted, a difference from the truth of "
             f"{HALF:g} of the contrast or more. Means over patients, 95 % intervals by bootstrap; p of a paired "
             "permutation test against the model (Holm).",
             "d′: a channelised Hotelling observer tells places with a lesion from the same places without one, in noise of "
             "their own; 95 % interval over patients."]
    if not done.run.config.data.domain.spacing_mm:
        notes.append("The files have no voxel size: sizes are in voxels.")
    if done.patients < 2:
        notes.append("One patient: nothing is said of others, so there are no intervals, tests and d′.")
    return notes


if __name__ == "__main__":
    cli.run_with_words(main)
