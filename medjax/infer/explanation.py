"""What a run's result for one image depends on: maps of it, how right they are, and how far the network looks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from medjax.data.pipeline import whole_batch
from medjax.infer.attribution import (
    STEPS,
    Advance,
    Reader,
    boxes,
    grad_cam,
    gradient,
    integrated_gradients,
    occlusion,
    prediction,
)
from medjax.infer.predict import VOXELS, check_record
from medjax.measures.attribution import SHARES, Curve, curve, effective_radius
from medjax.measures.detection import disc
from medjax.tasks._restoration import Restoration
from medjax.train.run import Run
from medjax.types import Array, Batch, Operator, Record, State, Tree, UserError

BASELINES = ("mean", "black", "blur")
RANDOM, GRADIENT, INTEGRATED, OCCLUSION, GRAD_CAM = "random", "gradient", "integrated-gradients", "occlusion", "grad-cam"
SIGNED = (INTEGRATED, OCCLUSION)
SCOPE = 3.0  # diameters around the middle of a region: voxels farther away are left as they are
BOXES = 16  # that an image's side is divided into for occlusion; a region is divided into two
BLUR = 0.1  # of the image's side, the standard deviation of the baseline "blur"
PLACES = 8  # voxels whose receptive fields are measured
ENERGY = (0.5, 0.95)


@dataclass(frozen=True)
class Question:
    """What is explained. Of a classifier the logit of `label`, its own choice if that is "".

    Of a restoration the mean in a disc of `diameter_mm` around `place` (voxels of the input; () for the middle of the
    tissue); with a `lesion`, that contrast in physical units is planted there in the input, and the disc's contrast against
    what is around it is explained. The `baseline` stands for voxels that are taken away; "" for "mean" of a classifier and
    of a lesion, "black", the low end of the range, of other regions. Volumes go slice by slice through a 2-D network; the
    slice of `place`, or the middle one, is explained.
    """

    label: str = ""
    place: tuple[int, ...] = ()
    diameter_mm: float = 8.0
    lesion: float = 0.0
    baseline: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.diameter_mm <= 0:
            raise UserError("--diameter", f"{self.diameter_mm} mm; give a size above 0")


@dataclass(frozen=True)
class Explained:
    """A number that a run makes of an image, `score`, and that of the baseline; maps `(*space)` of what it depends on.

    `image` `(*space)` in physical units is what was explained, slice `index` of a volume. `curves` are deletion and
    insertion for each map. `completeness` is how far the sum of integrated gradients is from `score - score_of_baseline`, as
    a part of that. `radii_mm` are how far the network looks for a voxel (`ENERGY`), NaN where it makes no image on a grid.
    """

    what: str
    image: np.ndarray
    index: int | None
    spacing_mm: tuple[float, ...]
    score: float
    score_of_baseline: float
    maps: dict[str, np.ndarray]
    curves: dict[str, tuple[Curve, Curve]]
    completeness: float
    radii_mm: tuple[float, float] = (math.nan, math.nan)


@dataclass
class _Asked:
    """What is computed from: the reader, the baseline, which voxels may be replaced, the size of boxes for occlusion."""

    what: str
    reader: Reader
    given: Array
    baseline: Array
    scope: tuple[slice, ...]
    box: tuple[int, ...]
    radii_mm: tuple[float, float] = field(default=(math.nan, math.nan))


def explain(run: Run, state: State, record: Record, question: Question,
            start: Callable[[int], Advance] = lambda total: lambda count: None) -> Explained:
    """Explains what a run makes of a record. `start` is told how many steps there are, and its result of those done.

    Raises UserError for a question that doesn't suit the run or the image.
    """
    check_record(run, record)
    ndim = run.task.input_ndim
    index = _slice_of(record, ndim, question.place)
    if math.prod(record.image.shape[-ndim - 1:-1]) > VOXELS:
        raise UserError(record.id, f"has more than {VOXELS} voxels; cut the part out that is asked about")
    batch: dict[str, Tree] = dict(whole_batch(record, ndim, index or 0))
    operator = run.task.operators(record)
    made = np.asarray(jax.jit(lambda batch: prediction(run, state, batch, operator))(batch))
    asked = (_of_class if made.ndim == 1 else _of_region)(run, state, batch, operator, record, made, question)
    score = jax.jit(asked.reader)
    whole, without = float(score(asked.given)), float(score(asked.baseline))
    if abs(whole - without) < 1e-9 * max(1.0, abs(whole)):
        raise UserError("--baseline", f"{asked.what} is {whole:.4g} with the baseline, too, so there is nothing to explain; "
                        "give another one")
    maps = [GRADIENT, INTEGRATED, OCCLUSION, *([GRAD_CAM] if made.ndim == 1 else []), RANDOM]
    space = asked.given.shape[1:-1]
    advance = start(STEPS + sum(1 for _ in boxes(space, asked.box, asked.scope)) + len(maps) * 2 * (len(SHARES) + 2))
    found = {name: _map(name, asked, question.seed, advance) for name in maps}
    added = float(found[INTEGRATED].sum(dtype=np.float64))
    curves = {name: _judged(values * np.sign(whole - without) if name in SIGNED else values, asked, score, advance)
              for name, values in found.items()}
    on_image = asked.reader.field == "image"
    spacing = record.spacing_mm[-len(space):] if record.spacing_mm and on_image else ()
    return Explained(asked.what, _shown(asked), index, spacing, whole, without, found, curves,
                     abs(added - (whole - without)) / abs(whole - without), asked.radii_mm)


def _map(name: str, asked: _Asked, seed: int, advance: Advance) -> np.ndarray:
    reader, given = asked.reader, asked.given
    if name == GRADIENT:
        return gradient(reader, given)
    if name == INTEGRATED:
        return integrated_gradients(reader, given, asked.baseline, advance=advance)
    if name == OCCLUSION:
        return occlusion(reader, given, asked.baseline, asked.box, asked.scope, advance)
    return grad_cam(reader, given) if name == GRAD_CAM else np.random.default_rng(seed).random(given.shape[1:-1])


def _judged(importance: np.ndarray, asked: _Asked, score: Callable[[Array], Array], advance: Advance) -> tuple[Curve, Curve]:
    """The curves of deletion and of insertion."""
    def value(image: np.ndarray) -> float:
        advance(1)
        return float(score(jnp.asarray(image, asked.given.dtype)[None]))

    inside = np.zeros(importance.shape, bool)
    inside[asked.scope] = True
    image, baseline = np.asarray(asked.given[0]), np.asarray(asked.baseline[0])
    deletion, insertion = (curve(value, image, baseline, importance, inside, insert) for insert in (False, True))
    return deletion, insertion


def _shown(asked: _Asked) -> np.ndarray:
    """What was explained, to look at: the image in physical units, or how large measurements are, on a scale of powers."""
    batch = asked.reader.batch
    if asked.reader.field != "image":
        return np.log1p(np.abs(np.asarray(asked.given[0])).mean(-1))
    return np.asarray(batch["image"])[0].mean(-1) * float(batch["slope"][0]) + float(batch["intercept"][0])


def _slice_of(record: Record, ndim: int, place: Sequence[int]) -> int | None:
    """Which slice of a volume is explained; None where all of the record is. Raises UserError for a place outside."""
    shape = record.image.shape[:-1]
    if place and (len(place) != len(shape) or any(not 0 <= p < n for p, n in zip(place, shape, strict=True))):
        raise UserError("--at", f"{','.join(map(str, place))} is no voxel of {record.id}, of {' x '.join(map(str, shape))}; "
                        f"give {len(shape)} numbers from 0")
    if record.ndim == ndim:
        return None
    return place[0] if place else shape[0] // 2


def _of_class(run: Run, state: State, batch: Batch, operator: Operator | None, record: Record, made: np.ndarray,
              question: Question) -> _Asked:
    """The logit of a class; all of the image counts."""
    names = tuple(getattr(run.task, "classes", ())) or tuple(map(str, range(len(made))))
    if question.label and question.label not in names:
        raise UserError("--class", f"unknown {question.label!r}; choose from {', '.join(names)}")
    if question.lesion:
        raise UserError("--lesion", f"is for runs that make images; a run of {run.config.task.name} gives numbers")
    chosen = names.index(question.label) if question.label else int(made.argmax())
    reader = Reader(run, state, batch, operator, np.eye(len(made), dtype=np.float32)[chosen])
    given = reader.given
    scope = tuple(slice(0, n) for n in given.shape[1:-1])
    box = tuple(max(2, n // (BOXES // 2)) for n in given.shape[1:-1])
    base = _baseline(given, question.baseline or "mean", scope)
    return _Asked(f"the logit of {names[chosen]}", reader, given, base, scope, box)


def _of_region(run: Run, state: State, batch: Batch, operator: Operator | None, record: Record, made: np.ndarray,
               question: Question) -> _Asked:
    """The mean of the output in a region, or the contrast of a lesion."""
    if not isinstance(run.task, Restoration):
        raise UserError("--workdir", f"a run of {run.config.task.name} is neither a classifier nor a restoration; only "
                        "those are explained")
    if question.label:
        raise UserError("--class", f"is for classifiers; a run of {run.config.task.name} makes images")
    spacing = np.array(record.spacing_mm[-made.ndim:] or (1.0,) * made.ndim, float)
    on_image = run.task.kind == "image"
    size = np.array(batch["image"].shape[1:-1] if on_image else made.shape)
    if len(size) != made.ndim:
        raise UserError("--workdir", f"a run of {run.config.task.name} makes {made.ndim}-D images of {len(size)}-D ones; a "
                        "region of them has no place in the input")
    finer = np.array(made.shape) / size
    place = np.array(question.place[-made.ndim:] or _middle(made, finer))
    radii = question.diameter_mm / 2 / spacing
    middle = ((place + 0.5) * finer - 0.5).tolist()
    weights = disc(made.shape, middle, (radii * finer).tolist())
    weights = weights / weights.sum()
    what = "the mean of the region"
    if question.lesion:
        if not on_image:
            raise UserError("--lesion", "is planted in images, and this run takes measurements")
        around = disc(made.shape, middle, (2 * radii * finer).tolist()) * (weights == 0)
        weights, what = weights - around / around.sum(), "the lesion's contrast"
        batch = _with_lesion(batch, disc(size.tolist(), place.tolist(), radii.tolist()) * question.lesion)
    reader = Reader(run, state, batch, operator, weights.astype(np.float32))
    given = reader.given
    scope = tuple(slice(0, n) for n in given.shape[1:-1])
    box = tuple(max(2, n // BOXES) for n in given.shape[1:-1])
    radii_mm = (math.nan, math.nan)
    if on_image:
        reach = np.ceil(SCOPE * question.diameter_mm / spacing).astype(int)
        scope = tuple(slice(max(0, p - r), p + r + 1) for p, r in zip(place.tolist(), reach.tolist(), strict=True))
        box = tuple(max(2, round(question.diameter_mm / 2 / s)) for s in spacing.tolist())
        radii_mm = _radii(reader, made, size, spacing, question.seed)
    base = _baseline(given, question.baseline or ("mean" if question.lesion else "black"), scope)
    return _Asked(what, reader, given, base, scope, box, radii_mm)


def _middle(made: np.ndarray, finer: np.ndarray) -> list[int]:
    """A voxel of the input in the middle of what is brighter than the mean."""
    return [round(c / f) for c, f in zip(ndimage.center_of_mass(made > made.mean()), finer.tolist(), strict=True)]


def _with_lesion(batch: Batch, added: np.ndarray) -> dict[str, Tree]:
    """The batch, its image in physical units, with what is added to it."""
    row = (slice(None),) + (None,) * (batch["image"].ndim - 1)
    units = np.asarray(batch["image"], np.float32) * batch["slope"][row] + batch["intercept"][row]
    changed = {"image": (units + added[None, ..., None]).astype(np.float32), "slope": np.ones(1, np.float32),
               "intercept": np.zeros(1, np.float32)}
    return {**batch, **changed}


def _baseline(given: Array, name: str, scope: tuple[slice, ...]) -> Array:
    """What stands for voxels that are taken away, inside `scope`; outside, what is given."""
    at = (slice(None), *scope)
    inside = given[at]
    if name == "black":
        new = jnp.zeros_like(inside)
    elif name == "mean":
        new = jnp.broadcast_to(inside.mean(tuple(range(1, given.ndim - 1)), keepdims=True), inside.shape)
    else:
        sigma = (0.0, *(BLUR * n for n in given.shape[1:-1]), 0.0)
        new = jnp.asarray(ndimage.gaussian_filter(np.asarray(given), sigma))[at]
    return given.at[at].set(new)


def _radii(reader: Reader, made: np.ndarray, size: np.ndarray, spacing: np.ndarray, seed: int) -> tuple[float, float]:
    """How far the network looks for single voxels of tissue: the medians over several, in mm."""
    random, finer = np.random.default_rng(seed), np.array(made.shape) / size
    tissue = np.argwhere(made > made.mean())
    slope = jax.jit(jax.grad(lambda given, weights: replace(reader, weights=weights)(given)))
    found = []
    for place in tissue[random.choice(len(tissue), min(PLACES, len(tissue)), replace=False)]:
        weights = np.zeros(made.shape, np.float32)
        weights[tuple(place)] = 1
        energy = np.square(np.asarray(slope(reader.given, jnp.asarray(weights)))[0]).sum(-1)
        middle = ((place + 0.5) / finer - 0.5).tolist()
        found.append([effective_radius(energy, middle, spacing.tolist(), share) for share in ENERGY])
    half, most = np.median(found, 0).tolist()
    return half, most
