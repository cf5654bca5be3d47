"""Which planted lesions a run and its references lose, and what they invent, on test images of patients held out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from medjax.evaluation.lesions import (
    Lesion,
    Planted,
    contrasts,
    images_of,
    plant,
    region_size,
    regions,
    seen,
    spacing_of,
    tissue,
)
from medjax.evaluation.references import choose_strengths, references_of
from medjax.evaluation.restored import Methods
from medjax.measures.detection import Detectability, channelised_hotelling
from medjax.measures.statistics import Standing, standings
from medjax.tasks._restoration import Restoration
from medjax.train import sharding
from medjax.train.evaluator import Evaluator
from medjax.train.run import Run, load_splits, restore_best
from medjax.types import Metric, Record, Region, Splits, State, UserError

HALF = 0.5  # of the planted contrast: a lesion with less is lost, a difference of more where there is none is invented
MEASURES = {"recovery": Metric("recovery", "contrast recovery"), "lost": Metric("lost", "lost", lower_is_better=True),
            "invented": Metric("invented", "invented", lower_is_better=True)}
DEFAULT_CONTRASTS = {"HU": ("-20", "-40", "-80"), "": ("-10%", "-20%", "-40%")}
AGAIN = ":again"  # of the record that has noise of its own


@dataclass(frozen=True)
class Settings:
    """What is planted: a lesion of every contrast and diameter, in at most `samples` test images (0: all).

    Contrasts are in the images' units, or with "%" in parts of the median tissue of the test images; () for -20, -40, -80 in
    HU, -10, -20 and -40 % elsewhere.
    """

    contrasts: tuple[str, ...] = ()
    diameters_mm: tuple[float, ...] = (4.0, 8.0)
    samples: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for text in self.contrasts:
            if not re.fullmatch(r"[+-]?\d+(\.\d*)?%?", text) or float(text.rstrip("%")) == 0:
                raise UserError("--contrasts", f"{text!r}; give numbers other than 0 with commas between, in the images' "
                                "units or with % in parts of tissue, as -20,-40 or -10%,20%")
        if not self.diameters_mm or min(self.diameters_mm) <= 0 or len(set(self.diameters_mm)) < len(self.diameters_mm):
            raise UserError("--diameters", f"{', '.join(map(str, self.diameters_mm))}; give different sizes in mm, above 0")
        if len(set(self.contrasts)) < len(self.contrasts):
            raise UserError("--contrasts", f"{', '.join(self.contrasts)}; give different ones")
        if self.samples < 0 or self.seed < 0:
            raise UserError("--samples", f"{self.samples}, --seed {self.seed}; give 0 or more")


@dataclass(frozen=True)
class Example:
    """One lesion to look at: its region `(H, W)` by method, with the lesion and without it, and the recovery by method; the
    voxel size of the region.
    """

    present: dict[str, np.ndarray]
    absent: dict[str, np.ndarray]
    recovery: dict[str, float]
    spacing_mm: tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """Lesions of one contrast and size by method: `MEASURES` with intervals over patients, compared with the model; the
    channelised Hotelling observer. How many there were; of them `examples`.

    `text` is the contrast as it was asked for.
    """

    text: str
    lesion: Lesion
    count: int
    standings: Mapping[str, Mapping[str, Standing]]
    detectability: Mapping[str, Detectability]
    examples: Sequence[Example]


@dataclass(frozen=True)
class LesionStudy:
    """All kinds of lesions; in how many images, how many patients have one; the strengths of references; an image with
    lesions, by method and as it is without degradation ("truth"), with its record.
    """

    settings: Settings
    run: Run
    step: int
    images: int
    patients: int
    kinds: Sequence[Kind]
    strengths: Mapping[str, float]
    shown: Mapping[str, np.ndarray]
    shown_record: Record


def study(workdir: Path, settings: Settings) -> LesionStudy:
    """Plants lesions in test images before they are degraded, and measures what every method leaves of them.

    Each image is restored without lesions and with them in the same noise, so that what differs is the lesion; a second time
    without them in noise of its own, for the observer. Raises UserError for a run of a task that does not restore images, of
    measured data, without test images, or without place for a lesion.
    """
    run, state = restore_best(workdir)
    return study_of(run, state, load_splits(run.config, workdir), workdir, settings)


def study_of(run: Run, state: State, splits: Splits, workdir: Path, settings: Settings) -> LesionStudy:
    """As `study`, of a `run` with its `state` and data; strengths of references are kept in `workdir`."""
    task = run.task
    if not isinstance(task, Restoration) or task.inputs[0] != "image":
        raise UserError(workdir, f"is a run of {run.config.task.name}; lesions are planted for runs that restore one image")
    records = _records(splits["test"], task.ndim, settings.samples)
    planted = {kind: [plant(record, kind[1], settings.seed) for record in records] for kind in _kinds(records, settings)}
    for (_, lesion), found in planted.items():
        if not any(len(one.places) for one in found):
            raise UserError("--diameters", "no test image has even tissue with room for a lesion of "
                            f"{lesion.diameter_mm:g} mm; give a smaller one")
    evaluator, references = Evaluator(run, sharding.make_mesh()), references_of(run)
    strengths = choose_strengths(run, evaluator, splits["val"], workdir, references)
    state = jax.device_put(state, sharding.replicated(evaluator.mesh))
    methods = Methods(run, state, evaluator, references, strengths)
    waiting = [(text, _Lesions(lesion, found, settings.seed)) for (text, lesion), found in planted.items()]
    record, done = waiting[-1][1].middle.absent, []
    shown: dict[str, np.ndarray] = {}
    with tqdm(total=len(records) * (2 + len(waiting)), desc="restore", unit="image", dynamic_ncols=True) as bar:
        _without_lesions(methods, records, [lesions for _, lesions in waiting], bar.update)
        while waiting:  # what is collected of a kind is let go of
            text, lesions = waiting.pop(0)
            bar.set_description(f"{text}, {lesions.lesion.diameter_mm:g} mm")
            shown = _with_lesions(methods, lesions, bar.update)
            done.append(Kind(text, lesions.lesion, lesions.count, lesions.standings(), lesions.detectability(),
                             lesions.examples()))
    used = {name: strengths[name] for name, reference in references.items() if reference.strengths}
    having = {one.absent.subject for found in planted.values() for one in found if len(one.places)}
    return LesionStudy(settings, run, int(state.step), len(records), len(having), done, used, shown, record)


def _records(parts: Sequence[Region], ndim: int, samples: int) -> list[Record]:
    if not parts:
        raise UserError("config.data.fractions", "the data has no test part")
    for part in parts:
        measured = part.record.extras.keys() & {"kspace", "sinogram"}
        if measured:
            raise UserError(part.record.id, f"is a measured {measured.pop()}; lesions are planted in images, which are then "
                            "measured by simulation")
    return images_of(parts, ndim, samples)


def _kinds(records: Sequence[Record], settings: Settings) -> list[tuple[str, Lesion]]:
    """The lesions of a study, each with the contrast as it was asked for."""
    units = records[0].units
    texts = settings.contrasts or DEFAULT_CONTRASTS.get(units, DEFAULT_CONTRASTS[""])
    inside = np.concatenate([record.in_units().mean(-1)[tissue(record)] for record in records])
    middle = float(np.median(inside)) if inside.size else 0.0
    found = []
    for text in texts:
        value = float(text.rstrip("%"))
        if text.endswith("%") and middle == 0:
            raise UserError("--contrasts", f"{text}, but the tissue of the test images has the median 0; give contrasts in "
                            f"{units or 'units of the images'}")
        contrast = value / 100 * middle if text.endswith("%") else value
        found += [(text, Lesion(contrast, size)) for size in settings.diameters_mm]
    return found


@dataclass
class _OfMethod:
    """Of one method, lesion by lesion: contrast where nothing is planted and where the lesion is, what channels see of both
    in noise of their own, and the regions.
    """

    absent: list[float] = field(default_factory=list)
    present: list[float] = field(default_factory=list)
    seen_absent: list[np.ndarray] = field(default_factory=list)
    seen_present: list[np.ndarray] = field(default_factory=list)
    region_absent: list[np.ndarray] = field(default_factory=list)
    region_present: list[np.ndarray] = field(default_factory=list)


class _Lesions:
    """What is collected of the lesions of one kind."""

    def __init__(self, lesion: Lesion, planted: Sequence[Planted], seed: int):
        self.lesion, self.planted, self._seed = lesion, planted, seed
        self.found: dict[str, _OfMethod] = {}
        self.owners = [one.absent.subject for one in planted for _ in one.places]

    @property
    def count(self) -> int:
        """How many lesions there are."""
        return len(self.owners)

    @property
    def middle(self) -> Planted:
        """The middle one of the images that have lesions."""
        having = [one for one in self.planted if len(one.places)]
        return having[len(having) // 2]

    def add(self, number: int, images: Mapping[str, np.ndarray], what: str) -> None:
        """Adds what methods, and the truth, make of image `number`: "absent", "present", or "again" without lesions."""
        one = self.planted[number]
        if not len(one.places):
            return
        spacing = spacing_of(one.absent)
        pixel = float(spacing[-2:].mean())
        for row, image in images.items():
            found = self.found.setdefault(row, _OfMethod())
            around = regions(image, one.places, region_size(self.lesion, pixel))
            if what != "absent":
                outputs = seen(around, self.lesion, pixel)
                (found.seen_present if what == "present" else found.seen_absent).append(outputs)
            if what != "again":
                values = contrasts(image, one.places, self.lesion, spacing).tolist()
                kept = found.present if what == "present" else found.absent
                kept += values
                (found.region_present if what == "present" else found.region_absent).extend(around.astype(np.float32))

    def _samples(self) -> list[dict[str, dict[str, float]]]:
        """`MEASURES` by method for each lesion."""
        truth = self.found["truth"]
        planted = np.array(truth.present) - np.array(truth.absent)
        rows = {}
        for row, found in self.found.items():
            if row != "truth":
                absent = np.array(found.absent)
                recovery = (np.array(found.present) - absent) / planted
                rows[row] = (recovery, recovery < HALF, (absent - np.array(truth.absent)) / planted >= HALF)
        return [{row: {name: float(values[i]) for name, values in zip(MEASURES, found, strict=True)}
                 for row, found in rows.items()} for i in range(self.count)]

    def standings(self) -> dict[str, dict[str, Standing]]:
        """By measure and method, with intervals over patients."""
        samples = self._samples()
        return {name: standings(samples, self.owners, metric, "model") for name, metric in MEASURES.items()}

    def detectability(self) -> dict[str, Detectability]:
        """By method; of images without noise the observer has nothing to weigh by."""
        return {row: channelised_hotelling(np.concatenate(found.seen_present), np.concatenate(found.seen_absent),
                                           self.owners, self._seed)
                for row, found in self.found.items() if row != "truth"}

    def examples(self) -> list[Example]:
        """Three lesions by what the model leaves of them: least, the median, most."""
        samples = self._samples()
        order = sorted(range(self.count), key=lambda i: samples[i]["model"]["recovery"])
        found = []
        for i in dict.fromkeys([order[0], order[len(order) // 2], order[-1]]):
            spacing = spacing_of(self._owner(i))
            found.append(Example({row: one.region_present[i] for row, one in self.found.items()},
                                 {row: one.region_absent[i] for row, one in self.found.items()},
                                 {row: values["recovery"] for row, values in samples[i].items()},
                                 (float(spacing[-2]), float(spacing[-1]))))
        return found

    def _owner(self, index: int) -> Record:
        return [one.absent for one in self.planted for _ in one.places][index]


def _without_lesions(methods: Methods, records: Sequence[Record], kinds: Sequence[_Lesions],
                     advance: Callable[[int], object]) -> None:
    """Restores the images as they are, twice, in noise of their own each time."""
    again = [replace(record, id=record.id + AGAIN) for record in records]
    for what, images in (("absent", records), ("again", again)):
        for number, one in enumerate(methods.restored(images, advance)):
            for lesions in kinds:
                lesions.add(number, {**one.images, "truth": one.truth}, what)


def _with_lesions(methods: Methods, lesions: _Lesions, advance: Callable[[int], object]) -> dict[str, np.ndarray]:
    """Restores the images with lesions, in the noise of those without; returns the middle one by method."""
    images = [replace(one.present, id=one.absent.id) for one in lesions.planted]
    shown: dict[str, np.ndarray] = {}
    for number, one in enumerate(methods.restored(images, advance)):
        made = {**one.images, "truth": one.truth}
        lesions.add(number, made, "present")
        if lesions.planted[number] is lesions.middle:
            shown = made
    return shown
