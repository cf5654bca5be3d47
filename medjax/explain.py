"""What a run's results depend on: python -m medjax.explain runs/mine SCAN ... --output=EXPLAINED

Of a classifier the logit of a class is explained, of a restoration the mean of a region of its result (`--at`), or the
contrast of a lesion that is planted in the input (`--lesion`). Written are maps of each input in its format, named after it,
and pictures of them; of all together `explain.html`, `explain.json` and `explain.csv`, which say how right the maps are: by
deletion and insertion, beside a random map and a plain gradient.
"""

import csv
import io
import json
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from medjax import cli
from medjax.data.results import StudyDestination, Table
from medjax.files import move, staging, write_atomically
from medjax.infer import inputs as reading
from medjax.infer.explanation import BASELINES, Explained, Question, explain
from medjax.infer.fit import CHECKS, RESCALE
from medjax.infer.inputs import Inputs
from medjax.infer.predict import derivation
from medjax.report import explain as report
from medjax.report.table import aligned
from medjax.tasks._restoration import Restoration
from medjax.train.run import Run, restore_best
from medjax.types import Derivation, Record, UserError, check_choice

OUTPUT = flags.DEFINE_string("output", "", "Folder of the results; explain/ in the run's folder if empty.")
CLASS = flags.DEFINE_string("class", "", "Of a classifier: the class that is explained; the one it finds if empty.")
AT = flags.DEFINE_list("at", [], "Of a restoration: the voxel in the middle of the region, ROW,COLUMN, of a volume "
                       "SLICE,ROW,COLUMN, from 0; the middle of the tissue if not given.")
DIAMETER = flags.DEFINE_float("diameter", Question.diameter_mm, "Of the region or lesion, in mm.")
LESION = flags.DEFINE_float("lesion", 0.0, "Contrast, in the run's units, of a lesion that is planted there in the "
                            "input; its contrast in the result is explained.")
BASELINE = flags.DEFINE_enum("baseline", None, BASELINES, "What stands for voxels that are taken away; mean of a classifier "
                             "and of a lesion, black of other regions if not given.")
SERIES = flags.DEFINE_string("series", "", "Which series of a folder: a part of its name, or its number.")
RESCALING = flags.DEFINE_enum("rescale", "none", RESCALE, "How values are mapped to those of training.")
ACCEPT = flags.DEFINE_list("accept", [], f"Differences from the training images to accept: {', '.join(CHECKS)}.")
SEED = flags.DEFINE_integer("seed", 0, "Of the random map, and of the voxels whose receptive fields are measured.")
TOP = 100.0  # of the maps that are written


@dataclass(frozen=True)
class _Done:
    """An input with its explanation, and what its files are called after."""

    number: int
    record: Record
    found: Explained


def main(words: Sequence[str]) -> None:
    """Explains the results of each input, writes maps and pictures, and prints the table."""
    if len(words) < 2:
        raise UserError("medjax.explain", "give the folder of a run, and files or folders of images")
    workdir, texts = Path(words[0]), words[1:]
    run, state = restore_best(workdir)
    for name in ACCEPT.value:
        check_choice("--accept", name, CHECKS)
    question = Question(CLASS.value, _place(AT.value), DIAMETER.value, LESION.value, BASELINE.value or "", SEED.value)
    several = len(run.task.inputs) > 1
    studies = [study for text in ([texts] if several else [[text] for text in texts])
               for study in reading.gather(reading.parse(text, run.task), run.task, (), SERIES.value)]
    folder = Path(OUTPUT.value) if OUTPUT.value else workdir / "explain"
    folder.mkdir(parents=True, exist_ok=True)
    made_by, done = derivation(run, state), []
    with tqdm(desc="explain", unit="step", dynamic_ncols=True) as bar:
        for number, inputs in enumerate(studies, 1):
            record = _record(run, inputs)
            bar.set_description(f"image {number} of {len(studies)}")
            found = explain(run, state, record, question, _started(bar))
            done.append(_Done(number, record, found))
            _write(folder, run, made_by, inputs, done[-1], several=len(studies) > 1)
    curves = [one.found.curves for one in done]
    table = report.cells(curves)
    report.write(folder / "explain.html", title=workdir.name, task=run.config.task.name,
                 shown=[_shown(run, one) for one in done], table=table, notes=_notes(), config=run.config.to_json(indent=1))
    write_atomically(folder / "explain.csv", _csv(done))
    write_atomically(folder / "explain.json", json.dumps(contents(run, done), indent=1))
    print(aligned(table))
    for note in [*(fact for one in done[:1] for fact in _facts(one.found)), *_notes()]:
        print(note)
    print(f"written: {folder / 'explain.html'}, explain.json, explain.csv, and maps and pictures of {len(done)} images")
    command = "-m medjax.lesions " if isinstance(run.task, Restoration) else "eval.py --workdir="
    print(f"next: python {command}{shlex.quote(str(workdir))}")


def _place(words: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words)
    except ValueError:
        raise UserError("--at", f"{','.join(words)}; give whole numbers with commas between, as 60,80") from None


def _record(run: Run, inputs: Inputs) -> Record:
    """The one record of an input, as the run takes it."""
    records, _ = reading.prepared(run, inputs, RESCALING.value, ACCEPT.value)
    if len(records) != 1:
        raise UserError(inputs.main.id, f"holds {len(records)} images; give one of them")
    return records[0]


def _started(bar: "tqdm[None]") -> Callable[[int], Callable[[int], object]]:
    def start(total: int) -> Callable[[int], object]:
        bar.total = (bar.total or 0) + total
        bar.refresh()
        return bar.update

    return start


def _write(folder: Path, run: Run, made_by: Derivation, inputs: Inputs, one: _Done, several: bool) -> None:
    """The maps of an input in its format, in percent of their largest value without sign, and their pictures.

    Those of several inputs begin with the input's number. Files of these names are replaced, all or none.
    """
    study, shown = inputs.main, _shown(run, one)
    called = study.place.name or study.paths[0].name
    with staging(folder) as unfinished:
        target = unfinished / (f"{one.number}_{called}" if several else called)
        for name, values in one.found.maps.items():
            percent = np.abs(values) * (TOP / max(float(np.abs(values).max()), 1e-30))
            said = f"Attribution of {one.found.what} by {name}, percent of the largest: {made_by.description}"
            destination = StudyDestination(study, target, Table(), derivation=replace(made_by, description=said))
            if run.task.kind == "image":
                destination.write_images(name, [_whole(percent, one)])
            else:
                np.save(destination.file(name, ".npy"), percent.astype(np.float32))
            write_atomically(destination.file(f"{name}_over", ".png"), report.picture(shown, name))
        for path in sorted(unfinished.iterdir()):
            move(path, folder / path.name)


def _whole(values: np.ndarray, one: _Done) -> np.ndarray:
    """A map with the shape of its record, 0 in slices that were not explained."""
    if one.found.index is None:
        return values[..., None].astype(np.float32)
    whole = np.zeros((*one.record.image.shape[:-1], 1), np.float32)
    whole[one.found.index, ..., 0] = values
    return whole


def _shown(run: Run, one: _Done) -> report.Shown:
    """What the page shows of an explanation: of a volume the plane through the middle of its integrated gradients."""
    found = one.found
    image, maps, spacing = found.image, found.maps, found.spacing_mm
    if image.ndim == 3:
        weight = np.abs(maps["integrated-gradients"]).sum((1, 2))
        plane = int(weight.argmax())
        image, maps = image[plane], {name: values[plane] for name, values in maps.items()}
    low, high = (float(value) for value in np.percentile(image, (0.5, 99.5)))
    window = (low, high if high > low else low + 1)
    return report.Shown(f"Image {one.number}", image, maps, found.curves, _facts(found), window, spacing[-2:],
                        one.record.affine is not None and run.task.kind == "image")


def _facts(found: Explained) -> list[str]:
    facts = [f"Explained is {found.what}: {found.score:.4g}, and {found.score_of_baseline:.4g} with the baseline. "
             f"Integrated gradients add up to the difference within {100 * found.completeness:.2g} %."]
    if math.isfinite(found.radii_mm[0]):
        unit = "mm" if found.spacing_mm else "voxels"
        near, far = found.radii_mm
        facts.append(f"For one voxel the network looks {near:.3g} {unit} far with half of its squared gradient, {far:.3g} "
                     f"{unit} with 95 %.")
    return facts


def _notes() -> list[str]:
    return ["Deletion: what is left of the number as the voxels of most importance are replaced by the baseline, over the "
            "share of voxels; a right map has a small area. Insertion: the other way; a right map has a large area. Random "
            "and gradient are what a map has to be better than."]


def contents(run: Run, done: Sequence[_Done]) -> dict[str, object]:
    """Explanations as JSON; images are numbered in the order in which they were given."""
    images = []
    for one in done:
        found = one.found
        images.append({
            "image": one.number, "slice": found.index, "explained": found.what, "score": found.score,
            "score_of_baseline": found.score_of_baseline, "completeness": found.completeness,
            "receptive_radii": {"50 %": _number(found.radii_mm[0]), "95 %": _number(found.radii_mm[1])},
            "maps": {name: {"deletion": deletion.area, "insertion": insertion.area, "share": deletion.share.tolist(),
                            "left_by_deletion": deletion.left.tolist(), "left_by_insertion": insertion.left.tolist()}
                     for name, (deletion, insertion) in found.curves.items()}})
    return {"task": run.config.task.name, "images": images}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _csv(done: Sequence[_Done]) -> str:
    """One line for each image and map."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image", "explained", "map", "deletion", "insertion", "score", "score_of_baseline"])
    for one in done:
        writer.writerows([one.number, one.found.what, name, deletion.area, insertion.area, one.found.score,
                          one.found.score_of_baseline] for name, (deletion, insertion) in one.found.curves.items())
    return text.getvalue()


if __name__ == "__main__":
    cli.run_with_words(main)
