"""A reader study: test images of two methods, blinded and shuffled, and the key that says which image is whose."""

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medjax.evaluation.compare import Comparison, Sample, compare
from medjax.evaluation.ranking import check_comparable
from medjax.evaluation.references import choose_strengths, references_of
from medjax.evaluation.run import METRICS, under_pseudonyms
from medjax.report.readers import Picture
from medjax.report.table import best
from medjax.train import sharding
from medjax.train.evaluator import Evaluator
from medjax.train.run import CONFIG, Run, load_splits, metric_of, restore_best
from medjax.types import Reference, Region, State, UserError, check_choice

SPLIT = "test"
QUESTIONS = {"preference": "Which image would you rather report from?", "rating": "How good is this image for reporting?"}
"""What is asked by default, by scale: which of two images is preferred, or a single image rated from 1 to 5."""
CODES = 16**6


@dataclass(frozen=True)
class Images:
    """Two methods' images of the same test samples, in physical units.

    Every sample has the images of both `methods`, "model" first. `patients` has the pseudonym of each sample's patient.
    `window` is the run's range of values, `step` its checkpoint.
    """

    methods: tuple[str, str]
    samples: list[Sample]
    patients: list[str]
    window: tuple[float, float]
    units: str
    step: int


@dataclass(frozen=True)
class Case:
    """What a reader is asked once: the image at the left and the one at the right, or a single one, by method.

    `repeat_of` is the code of the case that is shown again, its sides swapped; empty for the first time.
    """

    code: str
    sample: int
    methods: tuple[str, ...]
    repeat_of: str = ""


@dataclass(frozen=True)
class Study:
    """Cases in the order in which they are shown, and what the images are called: by sample and method."""

    code: str
    cases: list[Case]
    images: dict[tuple[int, str], str]


def images_of(workdir: Path, against: str, count: int) -> Images:
    """The run's images of at most `count` test samples, evenly spread, beside those of `against`.

    That is a reference method, the input, or the folder of another run with the same test part; "" is the best reference
    of the run's evaluation. Samples that show nothing are left out. Names are pseudonyms. Raises UserError.
    """
    if count < 1:
        raise UserError("--cases", f"{count}; give at least 1")
    run, state = restore_best(workdir)
    regions = load_splits(run.config, workdir)[SPLIT]
    if not regions:
        raise UserError(workdir, f"the data has no {SPLIT} part")
    known = references_of(run) | run.task.references()
    other = Path(against)
    if against and against not in known and (other / CONFIG).exists():
        theirs, their_state = restore_best(other)
        their_regions = load_splits(theirs.config, other)[SPLIT]
        check_comparable([workdir, other], [run, theirs], [regions, their_regions], SPLIT)
        method = other.name if other.name != "model" else str(other)
        found = _compared(workdir, run, state, regions, {}, count)
        beside = _compared(other, theirs, their_state, their_regions, {}, count)
        made = {sample.name: sample.images.get("model") for sample in beside.shown}
        pairs = [(sample, made[sample.name]) for sample in found.shown]
    else:
        method = against or _best_reference(workdir, run)
        check_choice("--against", method, [*known, "the folder of another run"])
        found = _compared(workdir, run, state, regions, {method: known[method]}, count)
        pairs = [(sample, sample.images.get(method)) for sample in found.shown]
    named = under_pseudonyms(found, workdir, regions)
    of = dict(zip(named.names, named.patients, strict=True))
    samples = [_with_both(workdir, sample, image, method, unnamed.name)
               for (sample, image), unnamed in zip(pairs, named.shown, strict=True) if _shows_something(run, sample)]
    if not samples:
        raise UserError(workdir, f"no {SPLIT} image shows anything")
    return Images(("model", method), samples, [of[sample.name] for sample in samples], run.task.data_range,
                  run.config.data.domain.units, int(state.step))


def _compared(workdir: Path, run: Run, state: State, regions: list[Region], references: Mapping[str, Reference],
              count: int) -> Comparison:
    evaluator = Evaluator(run, sharding.make_mesh())
    validation = load_splits(run.config, workdir)["val"] if references else []
    strengths = choose_strengths(run, evaluator, validation, workdir, references)
    return compare(run, state, evaluator, regions, references, strengths, count, count)


def _best_reference(workdir: Path, run: Run) -> str:
    """The best on average in the run's evaluation; the input where that has no other."""
    try:
        rows = json.loads((workdir / "eval" / METRICS).read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError):
        raise UserError("--against", f"the run is not evaluated yet; name one of {', '.join(run.task.references())}, or run "
                        f"eval.py --workdir={workdir} first") from None
    others = [row for row in rows if row not in ("input", "model")]
    return best(rows, metric_of(run.config), others) or "input"


def _shows_something(run: Run, sample: Sample) -> bool:
    return not math.isnan(sample.metrics["model"].get(run.config.metric, 0.0))


def _with_both(workdir: Path, sample: Sample, image: np.ndarray | None, method: str, name: str) -> Sample:
    if "model" not in sample.images or image is None:
        raise UserError(workdir, "its task makes no images that can be shown side by side")
    return Sample(name, sample.record, {"model": sample.images["model"], method: image}, sample.mask, {})


def picture_of(sample: Sample, method: str) -> Picture:
    """One method's image of a sample, with what a page needs to show it in true proportions."""
    image = sample.images[method]
    space = image.shape[:-1]
    spacing = sample.record.spacing_mm[-len(space):] or (1.0,) * len(space)
    return Picture(image if image.shape[-1] == 3 else image[..., :1], (spacing[-2], spacing[-1]),
                   sample.record.affine is not None)


def arrange(methods: tuple[str, str], samples: int, scale: str, repeats: int, seed: int) -> Study:
    """The cases in random order, under random codes.

    By preference a case has both methods, each as often at the left as at the right; by rating one of them. `repeats` of the
    cases, or all if there are fewer, come a second time, at least half of the study later or at its end. Raises UserError.
    """
    random = np.random.default_rng(seed)
    shown: list[tuple[int, tuple[str, ...]]]
    if scale == "rating":
        shown = [(sample, (method,)) for sample in range(samples) for method in methods]
    else:
        turned = random.permutation(samples) % 2 == 0
        shown = [(sample, methods[::-1] if turned[sample] else methods) for sample in range(samples)]
    if repeats < 0:
        raise UserError("--repeats", f"{repeats}; give 0 or more")
    repeats = min(repeats, len(shown))
    codes = [f"{code:06x}" for code in random.choice(CODES, 1 + len(shown) + repeats + 2 * samples, replace=False)]
    code, codes = codes[0], codes[1:]
    order = random.permutation(len(shown)).tolist()
    placed = [(float(place), Case(codes.pop(), *shown[i])) for place, i in enumerate(order)]
    for i in random.choice(len(placed), repeats, replace=False).tolist():
        place, case = placed[i]
        later = place + len(order) * (0.5 + 0.5 * random.random())
        placed.append((later, Case(codes.pop(), case.sample, case.methods[::-1], case.code)))
    images = {(sample, method): codes.pop() for sample in range(samples) for method in methods}
    return Study(code, [case for _, case in sorted(placed, key=lambda item: item[0])], images)


def key_of(workdir: Path, images: Images, study: Study, scale: str, question: str, seed: int) -> dict[str, object]:
    """The key as JSON has it: what `summarise` needs to know whose image is whose."""
    return {"study": study.code, "scale": scale, "question": question, "workdir": str(workdir), "step": images.step,
            "split": SPLIT, "methods": images.methods, "seed": seed,
            "cases": {case.code: {"sample": images.samples[case.sample].name, "patient": images.patients[case.sample],
                                  "methods": case.methods, "repeat_of": case.repeat_of} for case in study.cases}}


def random_seed() -> int:
    """A seed that nobody knows."""
    return secrets.randbelow(2**32)


def shown_images(images: Images, study: Study) -> list[tuple[str, Picture]]:
    """All images under their codes, in the order of the codes: that of the samples and methods would tell."""
    return [(code, picture_of(images.samples[sample], method))
            for (sample, method), code in sorted(study.images.items(), key=lambda item: item[1])]


def shown_cases(study: Study) -> Sequence[tuple[str, list[str]]]:
    """Every case's code and the codes of its images, from the left."""
    return [(case.code, [study.images[case.sample, method] for method in case.methods]) for case in study.cases]
