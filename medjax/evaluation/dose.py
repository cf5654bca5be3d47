"""A low-dose CT run and its references over dose: image quality, noise, sharpness, detectability, bias."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from scipy import ndimage
from tqdm import tqdm

from medjax.evaluation.compare import metrics_of
from medjax.evaluation.lesions import (
    SMOOTH_MM,
    SOFT_TISSUE_HU,
    Lesion,
    Planted,
    contrast_to_noise,
    images_of,
    plant,
    region_size,
    regions,
    seen,
)
from medjax.evaluation.references import FILE, choose_strengths, references_of
from medjax.evaluation.restored import Methods, Restored
from medjax.evaluation.water_phantom import Measured, WaterPhantom
from medjax.measures.detection import Detectability, channelised_hotelling
from medjax.measures.statistics import Standing, by_patient, interval, standings
from medjax.measures.summary import mean_of_numbers
from medjax.tasks.ct_lowdose import CtLowDose
from medjax.train import sharding
from medjax.train.evaluator import Evaluator
from medjax.train.run import Config, Run, assemble, load_splits, restore_best
from medjax.types import Record, Splits, State, UserError, Value

REPEATS = 6  # images of the water phantom at each dose
TISSUES_HU = {"soft tissue": SOFT_TISSUE_HU, "bone": (250.0, 3000.0)}  # of smoothed images, for the bias in them


@dataclass(frozen=True)
class Settings:
    """What is evaluated: the doses as fractions of full dose, the lesions, at most `samples` test slices (0: all)."""

    doses: tuple[float, ...]
    lesion: Lesion
    samples: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.doses or not all(0 < dose <= 1 for dose in self.doses) or len(set(self.doses)) < len(self.doses):
            raise UserError("--doses", f"{', '.join(map(str, self.doses))}; give different fractions of full dose, above 0 "
                            "and up to 1")
        if self.samples < 0 or self.seed < 0:
            raise UserError("--samples", f"{self.samples}, --seed {self.seed}; give 0 or more")


@dataclass(frozen=True)
class Quality:
    """One method at one dose.

    `metrics` are the task's, `cnr` that of lesions, both with intervals over patients; `bias_hu` is the mean error in the
    test images by tissue. Values are NaN where there is nothing to measure.
    """

    metrics: Mapping[str, Standing]
    cnr: Standing
    detectability: Detectability
    phantom: Measured
    bias_hu: Mapping[str, float]


@dataclass(frozen=True)
class DoseStudy:
    """Methods ("input", references, "model") by dose, in increasing order; of how many slices, patients and lesions."""

    settings: Settings
    run: Run
    step: int
    slices: int
    patients: int
    lesions: int
    qualities: dict[float, dict[str, Quality]]
    strengths: dict[float, dict[str, float]]


@dataclass(frozen=True)
class _Data:
    """What is shown to every method at every dose."""

    planted: list[Planted]
    phantom: WaterPhantom
    splits: Splits


def study(workdir: Path, settings: Settings) -> DoseStudy:
    """Evaluates the run's best checkpoint and its references at each dose on the test part, and on a water phantom.

    Lesions are planted in the images before noise is simulated; a second image with noise of its own has none. Strengths
    of references are chosen at each dose on the validation part. Raises UserError for a run of another task, without test
    images, or without place for a lesion.
    """
    run, state = restore_best(workdir)
    state = jax.device_put(state, sharding.replicated(sharding.make_mesh()))
    if not isinstance(run.task, CtLowDose):
        raise UserError(workdir, f"is a run of {run.config.task.name}; dose curves are those of a run of ct_lowdose")
    data = _data(run, load_splits(run.config, workdir), settings)
    found: dict[float, dict[str, Quality]] = {}
    strengths: dict[float, dict[str, float]] = {}
    doses = sorted(settings.doses)
    work = len(doses) * 2 * (len(data.planted) + REPEATS)
    with tqdm(total=work, desc="evaluate", unit="image", dynamic_ncols=True) as bar:
        for dose in doses:
            bar.set_description(f"dose {dose:g}")
            found[dose], strengths[dose] = _at_dose(workdir, run.config, state, data, settings, dose, bar.update)
    patients = {planted.absent.subject for planted in data.planted}
    return DoseStudy(settings, run, int(state.step), len(data.planted), len(patients),
                     sum(len(planted.places) for planted in data.planted), found, strengths)


def _data(run: Run, splits: Splits, settings: Settings) -> _Data:
    if not splits["test"]:
        raise UserError("config.data.fractions", "the data has no test part")
    slices = [replace(record, modality="CT", units="HU") for record in images_of(splits["test"], 2, settings.samples)]
    planted = [plant(record, settings.lesion, settings.seed) for record in slices]
    if not any(len(one.places) for one in planted):
        raise UserError("--diameter", f"no test image has even soft tissue with room for a lesion of "
                        f"{settings.lesion.diameter_mm} mm; give a smaller one")
    first = planted[0].absent
    height, width = first.image.shape[:2]
    phantom = WaterPhantom((height, width), float(np.mean(first.spacing_mm)), settings.lesion.contrast)
    return _Data(planted, phantom, splits)


def _at_dose(workdir: Path, config: Config, state: State, data: _Data, settings: Settings, dose: float,
             advance: Callable[[int], object]) -> tuple[dict[str, Quality], dict[str, float]]:
    """Every method at one dose, and the strengths of references."""
    run = _run_at(config, dose, config.task.measured)
    evaluator = Evaluator(run, sharding.make_mesh())
    # At full dose a measured scan is its own truth: nothing can be chosen by it.
    own = dose in set(config.task.dose) and len(set(config.task.dose)) == 1
    truthless = bool(config.task.measured) and dose == 1
    file = FILE if own or truthless else FILE.replace(".json", f"-dose-{dose:g}.json")
    chooser = assemble(config) if truthless else run
    references, chooses = references_of(run), Evaluator(chooser, sharding.make_mesh())
    strengths = choose_strengths(chooser, chooses, data.splits["val"], workdir, references, file)
    predict = partial(Methods(run, state, evaluator, references, strengths).restored, advance=advance)
    images = _on_images(run, data.planted, predict, settings, truthless)
    bare = _run_at(config, dose, False)  # the phantom has no noise of its own
    bare_methods = Methods(bare, state, Evaluator(bare, sharding.make_mesh()), references, strengths)
    on_phantom = partial(bare_methods.restored, advance=advance)
    made = [_stacked(on_phantom(data.phantom.records(REPEATS, settings.seed, inserts))) for inserts in (True, False)]
    found = {row: Quality(*images[row][:3], data.phantom.measure(made[0][row], made[1][row]), images[row][3])
             for row in images}
    return found, {name: strengths[name] for name, reference in references.items() if reference.strengths}


def _run_at(config: Config, dose: float, measured: bool) -> Run:
    changed = Config(config.to_dict())
    changed.task.dose, changed.task.measured = (dose, dose), measured
    return assemble(changed)


Predictions = Callable[[Sequence[Record]], Iterator[Restored]]


def _stacked(shown: Iterator[Restored]) -> dict[str, np.ndarray]:
    images = [one.images for one in shown]
    return {row: np.stack([image[row] for image in images]) for row in images[0]}


@dataclass
class _Lesions:
    """Of one method: what channels see of the places without and with lesions, and the lesions' CNR."""

    absent: list[np.ndarray]
    present: list[np.ndarray]
    cnr: list[float]


def _on_images(run: Run, planted: Sequence[Planted], predict: Predictions, settings: Settings,
               truthless: bool) -> dict[str, tuple[dict[str, Standing], Standing, Detectability, dict[str, float]]]:
    """Metrics, CNR, detectability and bias of every method on the test images."""
    samples: list[dict[str, dict[str, Value]]] = []
    biases: list[dict[str, dict[str, float]]] = []
    lesions: dict[str, _Lesions] = {}
    owners = [one.absent.subject for one in planted for _ in one.places]
    for shown, one in zip(predict([one.absent for one in planted]), planted, strict=True):
        samples.append({row: {name: float("nan") if truthless else value for name, value in values.items()}
                        for row, values in shown.metrics.items()})
        biases.append({row: _bias(image, shown) for row, image in shown.images.items()})
        for row, image in shown.images.items():
            lesions.setdefault(row, _Lesions([], [], [])).absent.append(_channels(image, one, settings.lesion)[0])
    for shown, one in zip(predict([one.present for one in planted]), planted, strict=True):
        for row, image in shown.images.items():
            outputs, cnrs = _channels(image, one, settings.lesion)
            lesions[row].present.append(outputs)
            lesions[row].cnr += cnrs
    patients = [one.absent.subject for one in planted]
    known = {name: standings(samples, patients, metric, "model") for name, metric in metrics_of(run).items()}
    found = {}
    for row, seen_ in lesions.items():
        sees = channelised_hotelling(np.concatenate(seen_.present), np.concatenate(seen_.absent), owners, settings.seed)
        cnrs_ = by_patient(seen_.cnr, owners)
        bias = {tissue: mean_of_numbers([one[row][tissue] for one in biases]) for tissue in TISSUES_HU}
        found[row] = ({name: by_row[row] for name, by_row in known.items() if row in by_row},
                      Standing(float(np.mean(cnrs_)), *interval(cnrs_)), sees, bias)
    return found


def _channels(image: np.ndarray, planted: Planted, lesion: Lesion) -> tuple[np.ndarray, list[float]]:
    """What channels see of every place in an image, and the contrast-to-noise ratio there."""
    pixel = float(np.mean(planted.absent.spacing_mm))
    around = regions(image, planted.places, region_size(lesion, pixel))
    return seen(around, lesion, pixel), contrast_to_noise(around, lesion, pixel)


def _bias(image: np.ndarray, shown: Restored) -> dict[str, float]:
    """The mean error by tissue; NaN where an image has none.

    Tissue is told by smoothed values, at a distance from other tissue: pixels that were chosen by their own value, noise
    included, would have a bias in every method that takes noise away.
    """
    smooth = ndimage.gaussian_filter(shown.truth, SMOOTH_MM / float(np.mean(shown.record.spacing_mm)))
    found = {}
    for tissue, (low, high) in TISSUES_HU.items():
        inside = ndimage.binary_erosion((smooth > low) & (smooth < high))
        found[tissue] = float((image - shown.truth)[inside].mean()) if inside.any() else float("nan")
    return found
