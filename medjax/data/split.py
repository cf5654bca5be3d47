"""Training, validation and test parts: by subject, never by slice, the same on every machine."""

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from medjax.data.storage.names import pseudonym
from medjax.types import Record, Region, Splits, UserError

NAMES = ("train", "val", "test")
SLABS = "slabs"  # where a subject is whose images are cut into slabs for all parts
SALT_BYTES = 8
GUARD = 0.025  # part of the axis left out between two slabs of one volume: neighbouring slices are near copies
MIN_ROWS = 16
LISTED = 12  # series that are named


def split(records: Sequence[Record], fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0,
          held: Mapping[str, str] | None = None) -> Splits:
    """Divides records into `train`, `val` and `test` by subject.

    Subjects are put in an order by a hash of their name and `seed`, so the same names give the same split anywhere.
    Every part that is asked for gets at least one subject; `(1.0, 0.0, 0.0)` asks for training alone. With fewer than three
    subjects each image is cut into slabs along its first axis instead (see `slabs`). Where a data set's makers said which
    part a record is in (`extras["part"]`), that holds. Subjects of an earlier `assignment`, `held`, stay where they were,
    and others fill the parts up. Raises UserError for fractions that don't add up, too few slices, or a part of which no
    subject is left.
    """
    fractions = tuple(float(f) for f in fractions)
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or fractions[0] == 0:
        raise UserError("config.data.fractions", f"{fractions}; give train, val and test parts that add up to 1")
    if not records:
        raise UserError("config.data", "no images; there is nothing to split")
    made = {name: [r for r in records if str(r.extras.get("part")) == name] for name in NAMES}
    if made["train"] and made["test"]:
        return _as_made(made, fractions, seed, held)
    subjects = sorted({r.subject for r in records}, key=lambda s: _digest(f"{seed}:{s}"))
    held = held or {}
    known = {subject: part.partition("+")[0] for subject, part in held_parts(held, subjects).items()}
    if len(subjects) < sum(f > 0 for f in fractions) and set(known.values()) <= {SLABS}:
        return slabs(records, fractions)
    whole = [subject for subject in subjects if known.get(subject) != SLABS]
    part_of = _filled(whole, known, fractions)
    cut = slabs([r for r in records if r.subject not in part_of], fractions)
    splits = {name: [Region.whole(r) for r in records if part_of.get(r.subject) == name] + cut[name] for name in NAMES}
    for name, fraction in zip(NAMES, fractions, strict=True):
        if fraction > 0 and not splits[name]:
            raise UserError("config.data", f"no subject is left of those that were in {name}, and none is new; restore "
                            "them, or begin another run")
    return splits


def assignment(splits: Splits, held: Mapping[str, str] | None = None) -> dict[str, str]:
    """The part of each subject, to be saved and given to `split` as `held`: by "salt:hash", so that it names nobody.

    The salt is that of `held`, or a new one. The value is the part, "slabs" for a subject whose images are cut, and
    "train+test" for one whose images the makers of the data set put into several.
    """
    salt = next(iter(held or {}), secrets.token_hex(SALT_BYTES)).partition(":")[0]
    return {_key(salt, subject): part for subject, part in sorted(_assigned(splits).items())}


def held_parts(held: Mapping[str, str], subjects: Iterable[str]) -> dict[str, str]:
    """The parts of an earlier `assignment` by subject, of those subjects that were in it."""
    return {subject: held[key] for key, subject in _keys(held, subjects).items()}


def changes(held: Mapping[str, str], splits: Splits) -> list[str]:
    """What is different from an earlier `assignment`, in words, a line each; nothing where every subject is where it was."""
    now = _assigned(splits)
    keys = _keys(held, now)
    new = Counter(part for subject, part in now.items() if subject not in keys.values())
    gone = Counter(part for key, part in held.items() if key not in keys)
    moved = Counter((held[key], now[subject]) for key, subject in keys.items() if held[key] != now[subject])
    lines = [f"{_count(sum(new.values()), 'subject')} not there before: "
             + ", ".join(f"{n} in {part}" for part, n in sorted(new.items()))] if new else []
    lines += [f"{_count(n, 'subject')} of {part} no longer there" for part, n in sorted(gone.items())]
    return lines + [f"{_count(n, 'subject')} of {old} now in {part}" for (old, part), n in sorted(moved.items())]


def fingerprint(splits: Splits) -> str:
    """A hash of what the splits are made of: parts, ids, subjects, shapes, scales, sizes and times of files where known."""
    facts = [[name, r.record.id, r.record.subject, list(r.record.image.shape), r.record.image.dtype.str, r.record.slope,
              r.record.intercept, r.start, r.stop, getattr(r.record.image, "version", "")]
             for name, regions in splits.items() for r in regions]
    return hashlib.sha256("\n".join(sorted(json.dumps(fact) for fact in facts)).encode()).hexdigest()


def _as_made(made: dict[str, list[Record]], fractions: Sequence[float], seed: int, held: Mapping[str, str] | None) -> Splits:
    """The makers' parts; without a validation part, that comes out of the training part."""
    whole = {name: [Region.whole(r) for r in records] for name, records in made.items()}
    if whole["val"] or not fractions[1]:
        return whole
    given = fractions[0] + fractions[1]
    return split([replace(r, extras={k: v for k, v in r.extras.items() if k != "part"}) for r in made["train"]],
                 (fractions[0] / given, fractions[1] / given, 0.0), seed, held) | {"test": whole["test"]}


def _filled(subjects: Sequence[str], known: Mapping[str, str], fractions: Sequence[float]) -> dict[str, str]:
    """The part of each subject: that which is `known`, and for the others, in order, what is lacking, test first."""
    wanted = Counter(_parts(len(subjects), fractions))
    part_of = {subject: known[subject] for subject in subjects if known.get(subject) in NAMES}
    lacking = wanted - Counter(part_of.values())
    free = [name for name in reversed(NAMES) for _ in range(lacking[name])]
    return part_of | dict(zip((subject for subject in subjects if subject not in part_of), free, strict=False))


def _assigned(splits: Splits) -> dict[str, str]:
    """The part of each subject, or what stands for several."""
    cut = {r.record.subject for regions in splits.values() for r in regions
           if (r.start, r.stop) != (0, r.record.image.shape[0])}
    parts = {name: {r.record.subject for r in splits.get(name, ())} for name in NAMES}
    return {subject: SLABS if subject in cut else "+".join(name for name in NAMES if subject in parts[name])
            for subject in set().union(*parts.values())}


def _key(salt: str, subject: str) -> str:
    return f"{salt}:{pseudonym(salt.encode(), subject)}"


def _keys(held: Mapping[str, str], subjects: Iterable[str]) -> dict[str, str]:
    """The keys of an assignment and the subjects that they stand for, of those that are there."""
    salts = {key.partition(":")[0] for key in held}
    return {key: subject for subject in subjects for key in (_key(salt, subject) for salt in salts) if key in held}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def slabs(records: Sequence[Record], fractions: Sequence[float]) -> Splits:
    """Cuts every image into slabs along its first axis, with guard slices left out between any two.

    Validation and test lie next to each other in the middle of the axis, where the anatomy is, and training on both
    sides of them: the ends of a head or a chest hold mostly air and would flatter any number measured there.
    """
    splits: Splits = {name: [] for name in NAMES}
    for record in records:
        for name, start, stop in _slab_bounds(record, fractions):
            splits[name].append(Region(record, start, stop))
    return splits


def describe(splits: Mapping[str, Sequence[Region]]) -> list[str]:
    """The split in words, one line a part, for the screen and the log."""
    lines = []
    for name, regions in splits.items():
        subjects = {r.record.subject for r in regions}
        lines.append(f"{name:5s} {_count(len(subjects), 'subject')}, {_count(len(regions), 'image')}{_extent(regions)}")
    names = [{r.record.id for r in regions} for regions in splits.values()]
    if any(a & b for i, a in enumerate(names) for b in names[:i]):
        lines.append("fewer than three subjects: each image is cut into slabs along its first axis, with gaps between, "
                     "so the results say nothing about other subjects")
    return lines


def describe_series(splits: Mapping[str, Sequence[Region]]) -> list[str]:
    """Which series were read, as one line or none: for the screen alone, since their names are free text."""
    series = {r.record.id: r.record.series for regions in splits.values() for r in regions}
    often = Counter(series.values()).most_common()
    if not any(series.values()):
        return []
    named = [f"{name or 'without a name'} ({_count(n, 'image')})" for name, n in often[:LISTED]]
    rest = often[LISTED:]
    named += [f"{_count(sum(n for _, n in rest), 'image')} of {len(rest)} others"] if rest else []
    return ["series read: " + ", ".join(named)]


def _parts(n: int, fractions: Sequence[float]) -> list[str]:
    """The part of each of `n` subjects in order: test first, so that the test set moves least when data is added."""
    wanted = [max(1, round(n * f)) if f > 0 else 0 for f in fractions]
    n_val, n_test = wanted[1], wanted[2]
    while n_val + n_test >= n:
        n_val, n_test = (n_val - 1, n_test) if n_val >= n_test else (n_val, n_test - 1)
    return ["test"] * n_test + ["val"] * n_val + ["train"] * (n - n_val - n_test)


def _slab_bounds(record: Record, fractions: Sequence[float]) -> list[tuple[str, int, int]]:
    n = record.image.shape[0]
    if n < MIN_ROWS:
        raise UserError(record.id, f"{n} slices of fewer than three subjects can't be split into train, val and test; "
                                   f"give three subjects, or at least {MIN_ROWS} slices")
    order = [("train", fractions[0] / 2), ("val", fractions[1]), ("test", fractions[2]), ("train", fractions[0] / 2)]
    order = [(name, f) for name, f in order if f > 0]
    if len(order) == 2:  # training alone
        return [("train", 0, n)]
    guard = max(2, round(GUARD * n))
    lengths = np.array([f for _, f in order]) * (n - guard * (len(order) - 1))
    edges = np.round(np.cumsum([0.0, *lengths])).astype(int)
    return [(name, int(edges[i]) + i * guard, int(edges[i + 1]) + i * guard) for i, (name, _) in enumerate(order)]


def _extent(regions: Sequence[Region]) -> str:
    cut = [r for r in regions if (r.start, r.stop) != (0, r.record.image.shape[0])]
    if not cut:
        return ""
    spans = ", ".join(f"{r.start}..{r.stop - 1}" for r in cut[:3])
    return f", slices {spans}{' …' if len(cut) > 3 else ''}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
