"""The answers of a reader study: read with its key, and what they say of the two methods and of the readers."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medjax.measures.agreement import (
    Difference,
    intraclass_correlation,
    mean_kappa,
    preference_difference,
    rating_difference,
    weighted_kappa,
)
from medjax.types import UserError

KEY = "key.json"
COLUMNS = ["study", "reader", "case", "answer", "seconds"]
ANSWERS = {"preference": ("left", "right", "none"), "rating": ("1", "2", "3", "4", "5")}
MARGINS = {"preference": 0.1, "rating": 0.5}
"""Of non-inferiority, where none is given: a share of the answers, and points of the rating."""


@dataclass(frozen=True)
class KeyCase:
    """Of a case: the sample and its patient by pseudonym, the methods from the left, the case that it repeats or ""."""

    sample: str
    patient: str
    methods: tuple[str, ...]
    repeat_of: str


@dataclass(frozen=True)
class Key:
    """What `make` wrote beside the page."""

    study: str
    scale: str
    question: str
    workdir: str
    methods: tuple[str, str]
    cases: dict[str, KeyCase]


@dataclass(frozen=True)
class Answers:
    """One reader's: by case the answer and the seconds that it took."""

    reader: str
    given: dict[str, str]
    seconds: dict[str, float]


@dataclass(frozen=True)
class ReaderResult:
    """One reader's: shares of answers (see `Result.parts`), agreement with their own repeated answers (weighted kappa;
    ICC(2,1) of ratings; NaN without repeats), the share of answers with a preference that is for the left image, and the
    quartiles of the seconds a case.
    """

    shares: tuple[float, ...]
    within: float
    left: float
    seconds: tuple[float, float, float]


@dataclass(frozen=True)
class Result:
    """The study's: how many patients, samples and repeated cases; the first method compared with the second.

    By preference `shares` has one row, "all", and `means` are the shares of the methods; by rating a row for each method,
    and `means` are mean ratings. `between` is the agreement between readers: the mean weighted kappa of their pairs, or
    ICC(2,1) of ratings, with ICC(3,1) as `between_consistency`; NaN for one reader.
    """

    patients: int
    samples: int
    repeats: int
    margin: float
    parts: tuple[str, ...]
    shares: dict[str, tuple[float, ...]]
    means: dict[str, float]
    difference: Difference
    between: float
    between_consistency: float
    readers: dict[str, ReaderResult]

    @property
    def noninferior(self) -> bool | None:
        """Whether the 95 % interval lies above the margin; None where there is no interval."""
        return None if math.isnan(self.difference.low) else self.difference.low > -self.margin


def read_key(folder: Path) -> Key:
    """The key of the study in `folder`. Raises UserError."""
    path = folder / KEY
    if not path.exists():
        raise UserError(folder, f"holds no study (no {KEY}); give the folder that medjax.readers make wrote")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        cases = {code: KeyCase(case["sample"], case["patient"], tuple(case["methods"]), case["repeat_of"])
                 for code, case in found["cases"].items()}
        one, other = found["methods"]
        if found["scale"] not in ANSWERS:
            raise ValueError(f"unknown scale {found['scale']}")
        return Key(found["study"], found["scale"], found["question"], found["workdir"], (one, other), cases)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(path, f"is damaged ({error}); put a sound copy back") from error


def read_answers(paths: Sequence[Path], key: Key) -> list[Answers]:
    """The answers of each file, one reader each. Raises UserError for what is damaged, incomplete or of another study."""
    found: dict[str, Path] = {}
    answers = []
    for path in paths:
        one = _read(path, key)
        if one.reader in found:
            raise UserError(path, f"has the answers of {one.reader}, as {found[one.reader]} has; give one file a reader")
        found[one.reader] = path
        answers.append(one)
    return answers


def _read(path: Path, key: Key) -> Answers:
    if not path.is_file():
        raise UserError(path, "no such file; give the files that the readers saved from the page")
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), strict=True))
    except (ValueError, csv.Error) as error:
        raise UserError(path, f"is damaged ({error}); let the reader save it again from the page") from error
    if not lines or lines[0] != COLUMNS:
        raise UserError(path, f"is no file of answers: its first line is not {','.join(COLUMNS)}")
    readers, given, seconds = set(), {}, {}
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(COLUMNS):
            raise UserError(path, f"line {number} has {len(line)} fields in the place of {len(COLUMNS)}")
        study, reader, case, answer, time = line
        if study != key.study:
            raise UserError(path, f"has answers of the study {study}; this one is {key.study}")
        if case not in key.cases:
            raise UserError(path, f"line {number}: this study has no case {case}")
        if case in given:
            raise UserError(path, f"line {number}: the case {case} is answered twice")
        if answer not in ANSWERS[key.scale]:
            raise UserError(path, f"line {number}: the answer {answer!r} is none of {', '.join(ANSWERS[key.scale])}")
        readers.add(reader)
        given[case], seconds[case] = answer, _seconds(path, number, time)
    missing = len(key.cases) - len(given)
    if missing:
        raise UserError(path, f"{missing} of {len(key.cases)} cases have no answer; let the reader go on in the page")
    if len(readers) > 1 or not min(readers).strip():
        raise UserError(path, f"has the answers of {len(readers)} readers; give one file a reader" if len(readers) > 1 else
                        "has no reader's name")
    return Answers(readers.pop(), given, seconds)


def _seconds(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(path, f"line {number}: {text!r} is no number of seconds")
    return value


def summarise(key: Key, answers: Sequence[Answers], margin: float) -> Result:
    """What the answers say; what is shown a second time counts for the agreement of readers with themselves alone.

    The mean is over patients and readers, each of which counts the same.
    """
    most = 1 if key.scale == "preference" else 4
    if not 0 < margin < most:
        raise UserError("--margin", f"{margin:g}; give how much worse is still no matter, between 0 and {most}")
    return _preferences(key, answers, margin) if key.scale == "preference" else _ratings(key, answers, margin)


def _first(key: Key) -> list[str]:
    return [code for code, case in key.cases.items() if not case.repeat_of]


def _repeats(key: Key) -> list[tuple[str, str]]:
    return [(case.repeat_of, code) for code, case in key.cases.items() if case.repeat_of]


def _by_patient(patients: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Means over the rows of each patient: `(rows, readers)` to `(patients, readers)`."""
    _, of = np.unique(patients, return_inverse=True)
    totals = np.zeros((of.max() + 1, values.shape[1]))
    np.add.at(totals, of, values)
    return totals / np.bincount(of)[:, None]


def _quartiles(answers: Answers) -> tuple[float, float, float]:
    low, middle, high = np.percentile(list(answers.seconds.values()), [25, 50, 75]).tolist()
    return low, middle, high


def _matrix(answers: Sequence[Answers], codes: Sequence[str], value: Callable[[str, str], float]) -> np.ndarray:
    """`value` of each case's code and answer, `(cases, readers)`."""
    return np.array([[value(code, one.given[code]) for one in answers] for code in codes], float).reshape(
        len(codes), len(answers))


def _preferences(key: Key, answers: Sequence[Answers], margin: float) -> Result:
    def preferred(code: str, answer: str) -> float:
        """1 for the first method, -1 for the second, 0 for neither."""
        if answer == "none":
            return 0
        return 1 if key.cases[code].methods[answer == "right"] == key.methods[0] else -1

    first, repeats = _first(key), _repeats(key)
    values = _matrix(answers, first, preferred)
    again = [_matrix(answers, codes, preferred) for codes in zip(*repeats, strict=True)]
    patients = [key.cases[code].patient for code in first]
    wins, losses = _by_patient(patients, values > 0), _by_patient(patients, values < 0)

    def shares(column: slice | int) -> tuple[float, ...]:
        won, lost = float(wins[:, column].mean()), float(losses[:, column].mean())
        return won, max(0.0, 1 - won - lost), lost

    readers = {}
    for i, one in enumerate(answers):
        sides = [answer for answer in one.given.values() if answer != "none"]
        within = weighted_kappa(again[0][:, i].tolist(), again[1][:, i].tolist()) if again else math.nan
        readers[one.reader] = ReaderResult(shares(i), within, sides.count("left") / len(sides) if sides else math.nan,
                                           _quartiles(one))
    found, whole = preference_difference(wins, losses, values.size, margin), shares(slice(None))
    return Result(len(wins), len(first), len(repeats), margin, (key.methods[0], "no difference", key.methods[1]),
                  {"all": whole}, dict(zip(key.methods, (whole[0], whole[2]), strict=True)), found, mean_kappa(values),
                  math.nan, readers)


def _ratings(key: Key, answers: Sequence[Answers], margin: float) -> Result:
    first, repeats = _first(key), _repeats(key)
    images = {(case.sample, case.methods[0]): code for code, case in key.cases.items() if not case.repeat_of}
    samples = list(dict.fromkeys(sample for sample, _ in images))
    patients = [key.cases[images[sample, key.methods[0]]].patient for sample in samples]

    def ratings(codes: Sequence[str]) -> np.ndarray:
        return _matrix(answers, codes, lambda _, answer: int(answer))

    of = {method: ratings([images[sample, method] for sample in samples]) for method in key.methods}
    again = [ratings(codes) for codes in zip(*repeats, strict=True)]

    def shares(values: np.ndarray) -> tuple[float, ...]:
        return tuple(float((values == int(rating)).mean()) for rating in ANSWERS["rating"])

    every = ratings(first)
    readers = {one.reader: ReaderResult(
        shares(every[:, i]), intraclass_correlation(np.stack([again[0][:, i], again[1][:, i]], 1)).agreement if again
        else math.nan, math.nan, _quartiles(one)) for i, one in enumerate(answers)}
    by_patient = {method: _by_patient(patients, values) for method, values in of.items()}
    difference = by_patient[key.methods[0]] - by_patient[key.methods[1]]
    between = intraclass_correlation(every)
    return Result(len(difference), len(samples), len(repeats), margin, ANSWERS["rating"],
                  {method: shares(values) for method, values in of.items()},
                  {method: float(values.mean()) for method, values in by_patient.items()},
                  rating_difference(difference, margin), between.agreement, between.consistency, readers)
