"""Reader studies: a page of blinded images for readers to compare, and what their answers say.

    python -m medjax.readers make --workdir=runs/mine --against=nlm --cases=20 --output=runs/mine/readers
    python -m medjax.readers summarise runs/mine/readers answers-one.csv answers-two.csv

`make` writes `study.html`, which readers get, and `key.json`, which they do not get. `summarise` writes `summary.json`,
`summary.csv` and `summary.html` beside them.
"""

import csv
import io
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from medjax import cli
from medjax.evaluation.answers import ANSWERS, KEY, MARGINS, Key, ReaderResult, Result, read_answers, read_key, summarise
from medjax.evaluation.readers import QUESTIONS, arrange, images_of, key_of, random_seed, shown_cases, shown_images
from medjax.evaluation.run import next_command
from medjax.files import write_atomically
from medjax.report.readers import write, write_summary
from medjax.report.table import aligned
from medjax.types import UserError

PAGE = "study.html"
WORKDIR = flags.DEFINE_string("workdir", None, "make: folder of the run.")
AGAINST = flags.DEFINE_string("against", "", "make: a reference method, input, or the folder of another run with the same "
                              "test part; the best reference of the run's evaluation if empty.")
CASES = flags.DEFINE_integer("cases", 20, "make: test images at most, evenly spread.")
REPEATS = flags.DEFINE_integer("repeats", 4, "make: cases at most that come a second time, by which readers are compared "
                               "with themselves.")
SCALE = flags.DEFINE_enum("scale", "preference", list(ANSWERS), "make: which of two images is preferred, or a rating of "
                          "single images from 1 to 5.")
QUESTION = flags.DEFINE_string("question", "", "make: what readers are asked, if not "
                               + " or ".join(f"'{question}'" for question in QUESTIONS.values()))
SEED = flags.DEFINE_integer("seed", None, "make: of sides, order and codes; a random one if not given. The key has it.")
OUTPUT = flags.DEFINE_string("output", None, "make: folder of the study.")
MARGIN = flags.DEFINE_float("margin", None, "summarise: how much worse is still non-inferior: a share of the answers "
                            f"({MARGINS['preference']} if not given), or points of the rating ({MARGINS['rating']}).")
OF_MAKE = ("workdir", "against", "cases", "repeats", "scale", "question", "seed", "output")


def main(words: Sequence[str]) -> None:
    """`make` or `summarise`."""
    action, *rest = words or [""]
    if action not in ("make", "summarise"):
        raise UserError("medjax.readers", f"unknown command {action!r}; choose from make, summarise")
    for name in OF_MAKE if action == "summarise" else ("margin",):
        if flags.FLAGS[name].present:
            raise UserError(f"--{name}", f"is no flag of {action}")
    if action == "make":
        make(rest)
    else:
        _summarise(rest)


def make(rest: Sequence[str]) -> None:
    """Writes the page and the key of a study."""
    if rest:
        raise UserError("medjax.readers make", f"takes flags alone, not {rest[0]}")
    if not WORKDIR.value:
        raise UserError("--workdir", "is missing; give the folder of a run")
    if not OUTPUT.value:
        raise UserError("--output", "is missing; give a folder for the study")
    workdir, folder, scale = Path(WORKDIR.value), Path(OUTPUT.value), SCALE.value
    if (folder / KEY).exists():
        raise UserError(folder, "holds a study, whose answers need its key; give another folder as --output")
    images = images_of(workdir, AGAINST.value, CASES.value)
    seed = random_seed() if SEED.value is None else SEED.value
    study = arrange(images.methods, len(images.samples), scale, REPEATS.value, seed)
    question = QUESTION.value or QUESTIONS[scale]
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    write(page, study=study.code, scale=scale, question=question, window=images.window,
          units=images.units, cases=shown_cases(study), images=shown_images(images, study))
    write_atomically(folder / KEY, json.dumps(key_of(workdir, images, study, scale, question, seed), indent=1))
    patients, repeated = len(set(images.patients)), sum(case.repeat_of != "" for case in study.cases)
    print(aligned([["", "methods", "cases", "repeated", "patients", "page"],
                   [scale, " and ".join(images.methods), str(len(study.cases)), str(repeated), str(patients),
                    f"{page.stat().st_size / 1e6:.1f} MB"]]))
    if patients < 2:
        print("one patient: nothing will be said of others, so there will be no intervals and no tests")
    print(f"written: {page}, for the readers, who save their answers from it; {folder / KEY}, which they must not see")
    print(f"next: python -m medjax.readers summarise {shlex.quote(str(folder))} ANSWERS.csv ...")


def _summarise(rest: Sequence[str]) -> None:
    if len(rest) < 2:
        raise UserError("medjax.readers summarise", "give the folder of the study and the readers' files of answers")
    folder = Path(rest[0])
    key = read_key(folder)
    answers = read_answers([Path(path) for path in rest[1:]], key)
    found = summarise(key, answers, MARGINS[key.scale] if MARGIN.value is None else MARGIN.value)
    cells, (headline, sentence), notes = cells_of(key, found), sentences_of(key, found), notes_of(key, found)
    text = io.StringIO()
    csv.writer(text).writerows(cells)
    write_atomically(folder / "summary.csv", text.getvalue())
    shares = found.shares if key.scale == "rating" else {
        **{name: reader.shares for name, reader in found.readers.items()}, **found.shares}
    write_summary(folder / "summary.html", title=f"Reader study · {key.question}", headline=headline, sentence=sentence,
                  tables=[cells], notes=notes, shares=shares, parts=found.parts)
    write_atomically(folder / "summary.json", json.dumps(contents(key, found), indent=1))
    print(aligned(cells))
    print(f"{headline}; {sentence}")
    for note in notes:
        print(note)
    print(f"written: {folder / 'summary.html'}, summary.csv, summary.json")
    print(next_command(Path(key.workdir)))


def cells_of(key: Key, found: Result) -> list[list[str]]:
    """A line of heads, then each reader, then all; by rating the methods' shares follow."""
    preference = key.scale == "preference"
    agreement = "kappa" if preference else "ICC(2,1)"
    rows = [["reader", *found.parts, f"within: {agreement}", *(["left"] if preference else []), "seconds (quartiles)"]]
    for name, reader in found.readers.items():
        rows.append([name, *map(_percent, reader.shares), _number(reader.within),
                     *([_percent(reader.left)] if preference else []), _seconds(reader)])
    for name, shares in found.shares.items():
        rows.append([name, *map(_percent, shares), *["–"] * (len(rows[0]) - 1 - len(shares))])
    return rows


def sentences_of(key: Key, found: Result) -> tuple[str, str]:
    """What readers said of both methods, and how they differ."""
    one, other = key.methods
    difference, signed = found.difference, _signed_percent if key.scale == "preference" else _signed
    title, text = ("preferred", _percent) if key.scale == "preference" else ("mean rating", _number)
    start = f"{title}: {one} {text(found.means[one])}, {other} {text(found.means[other])}"
    if math.isnan(difference.low):
        return start, f"difference {signed(difference.mean)}"
    return start, (f"difference {signed(difference.mean)} (95 % interval {signed(difference.low)} … "
                   f"{signed(difference.high)}), p {_p(difference.p)}")


def notes_of(key: Key, found: Result) -> list[str]:
    """Non-inferiority, agreement between readers, and how the numbers came about."""
    one, other = key.methods
    preference = key.scale == "preference"
    margin = _percent(found.margin) if preference else f"{found.margin:g}"
    notes = []
    if found.noninferior is None:
        notes.append("one patient: nothing is said of others, so there are no intervals and no tests" if found.patients < 2
                     else "all patients have the same difference: there is nothing to take an interval from")
    else:
        notes.append(f"{one} is {'' if found.noninferior else 'not shown to be '}non-inferior to {other} with a margin of "
                     f"{margin}: one-sided p {_p(found.difference.p_noninferior)}, tested at 0.025")
    if len(found.readers) > 1:
        notes.append(f"agreement between readers: weighted kappa {_number(found.between)}" if preference else
                     f"agreement between readers: ICC(2,1) {_number(found.between)}, ICC(3,1) "
                     f"{_number(found.between_consistency)}")
    notes.append(f"{found.samples} samples of {found.patients} patients, {len(found.readers)} "
                 f"reader{'s' * (len(found.readers) > 1)}; {found.repeats} cases came twice, and count once")
    who = "patients and readers, both taken as samples of many" if len(found.readers) > 1 else (
        "patients, for this one reader")
    how = "Tango (1998), for the effective number of answers" if preference else "Student t"
    notes.append(f"interval and tests: {how}, over {who}")
    return notes


def contents(key: Key, found: Result) -> dict[str, object]:
    """The result as JSON; None where there is no number."""
    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {"study": key.study, "scale": key.scale, "question": key.question, "methods": key.methods,
            "patients": found.patients, "samples": found.samples, "repeats": found.repeats, "parts": found.parts,
            "shares": found.shares, "means": found.means, "margin": found.margin, "noninferior": found.noninferior,
            "difference": {name: finite(value) for name, value in vars(found.difference).items()},
            "between_readers": finite(found.between), "between_readers_consistency": finite(found.between_consistency),
            "readers": {name: {"shares": reader.shares, "within": finite(reader.within), "left": finite(reader.left),
                               "seconds": reader.seconds} for name, reader in found.readers.items()}}


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def _signed_percent(value: float) -> str:
    return f"{100 * value:+.0f} %".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}".replace("-", "−")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _seconds(reader: ReaderResult) -> str:
    low, middle, high = reader.seconds
    return f"{middle:.1f} ({low:.1f} … {high:.1f})"


if __name__ == "__main__":
    cli.run_with_words(main)
