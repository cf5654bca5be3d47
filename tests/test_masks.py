"""What does not count changes nothing: padded voxels and samples, in losses, measures and accumulated gradients."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import registry
from medjax.models.cnn import CNN
from medjax.models.features import Features
from medjax.models.patch import Patch
from medjax.objectives.adversarial import Adversarial
from medjax.objectives.cycle import Cycle
from medjax.objectives.supervised import Supervised
from medjax.ops.resample import nearest
from medjax.tasks.denoise import Denoise
from medjax.tasks.translate import Translate
from medjax.train.step import init_state, make_predict, make_step
from medjax.types import CoarsensTargets, Example, NetworkInput, Prediction

KEY = jax.random.PRNGKey(0)
UNIT, HU = (0.0, 1.0), (-1000.0, 1000.0)
FIXED = ("ct_segment", "synthesis")  # whose images all have one size
SIZES = {2: (22, 20), 3: (13, 12, 14)}
PADS = (3, 5, 2)  # voxels at the end of each axis, in units of the target's grid
CONTRASTS = ("T1", "FLAIR")

# task: its config, its range, the spatial axes it is tested with, and the channels of its images
TASKS = {
    "anomaly": ({"grain": 4, "radius": (2.0, 3.0)}, UNIT, (2,), 1),
    "classify": ({"classes": ("a", "b", "c")}, UNIT, (2,), 1),
    "compress": ({}, UNIT, (2,), 1),
    "ct_lowdose": ({"photons": 1e4}, HU, (2,), 1),
    "ct_recon": ({"views": 6}, HU, (2,), 1),
    "ct_segment": ({"detectors": 40, "detector_mm": 2.8, "step": 9.0}, UNIT, (2,), 1),
    "deblur": ({}, UNIT, (2,), 1),
    "denoise": ({}, UNIT, (2, 3), 1),
    "enhance": ({}, UNIT, (2,), 3),
    "fuse": ({"contrasts": CONTRASTS}, UNIT, (2,), 2),
    "fuse_image": ({"contrasts": CONTRASTS}, UNIT, (2,), 2),
    "inpaint": ({"size": 4}, UNIT, (2,), 1),
    "mri_recon": ({"coils": 2}, UNIT, (2,), 1),
    "register": ({"contrasts": ("0",), "period": 8}, UNIT, (2, 3), 1),
    "segment": ({"classes": ("background", "a", "b")}, UNIT, (2, 3), 1),
    "series": ({"noise": "gaussian"}, UNIT, (3,), 1),
    "superres": ({}, UNIT, (2,), 1),
    "synthesis": ({"size": 16, "noise": 4}, UNIT, (2,), 1),
    "translate": ({"contrasts": CONTRASTS, "curve": (0.0, 1.0)}, UNIT, (2,), 2),
    "volume": ({}, UNIT, (3,), 1),
}
CASES = [(name, ndim) for name, (_, _, ndims, _) in TASKS.items() for ndim in ndims]


def task_of(name: str, ndim: int):
    values, data_range, _, _ = TASKS[name]
    return registry.build("tasks", registry.spec("tasks", name, **values), data_range=data_range, ndim=ndim,
                          features=Features())


def batch_of(name: str, ndim: int, n: int = 2) -> dict:
    """Smooth images with labels and classes, that count but for a corner."""
    _, (low, high), _, channels = TASKS[name]
    random = np.random.default_rng(0)
    size = (12, 14, 14) if name == "volume" else SIZES[ndim]  # whose planes are square
    image = random.uniform(0.2, 0.9, (n, *size, channels)).astype(np.float32)
    mask = np.ones((n, *size, 1), bool)
    mask[(0, *(slice(0, 2),) * ndim)] = False
    return {"image": jnp.asarray(image * (high - low) + low), "slope": jnp.ones(n), "intercept": jnp.zeros(n),
            "count": jnp.ones(n), "id": jnp.arange(n, dtype=jnp.uint32), "spacing_mm": jnp.full((n, ndim), 2.0),
            "mask": jnp.asarray(mask), "class": jnp.arange(n) % 3,
            "label": jnp.asarray(random.integers(0, 3, (n, *size, 1)), jnp.uint8)}


def prediction_of(name: str, task, example: Example, random: np.random.Generator) -> np.ndarray:
    """Anything near the target. A registration reads what lies behind its displacement: none that is padded, here."""
    shape = (*example.target.shape[:-1], task.out_channels(TASKS[name][3]))
    if name == "register":
        return -random.uniform(0.1, 1.5, shape).astype(np.float32)
    near = np.asarray(example.target) if example.target.shape == shape else 0.5
    return (near + 0.2 * random.normal(size=shape)).astype(np.float32)


def padded(array: np.ndarray, space: tuple[int, ...] | None, random: np.random.Generator) -> np.ndarray:
    """A further sample, and voxels at the ends of the axes of a grid of `space`, if there is one: random ones."""
    array = np.asarray(array)
    ends = PADS[:len(space)] if space and array.shape[1:1 + len(space)] == space else ()
    pads = [(0, 1), *((0, end) for end in ends), *[(0, 0)] * (array.ndim - 1 - len(ends))]
    inside = tuple(slice(0, size) for size in array.shape)
    wide = random.uniform(-2, 2, [size + after for size, (_, after) in zip(array.shape, pads, strict=True)])
    wide = (wide > 0 if array.dtype == bool else wide).astype(array.dtype)
    wide[inside] = array
    return wide


def widened(example: Example, pred: np.ndarray, voxels: bool) -> tuple[Example, np.ndarray]:
    """The example and the prediction with what does not count around them."""
    random = np.random.default_rng(1)
    space = example.mask.shape[1:-1] if voxels else None

    def wide(array: np.ndarray) -> np.ndarray:
        return padded(array, space, random)

    mask = wide(example.mask)
    mask[:] = False
    mask[tuple(slice(0, size) for size in example.mask.shape)] = example.mask
    given = NetworkInput(wide(example.input.image))
    return replace(example, input=given, target=wide(example.target), mask=mask, ids=wide(example.ids),
                   spacing_mm=np.abs(wide(example.spacing_mm)),
                   extras={name: wide(value) for name, value in example.extras.items()}), wide(pred)


@pytest.mark.parametrize(("name", "ndim"), CASES)
def test_padded_voxels_and_samples_change_no_loss_and_no_measure(name, ndim):
    task = task_of(name, ndim)

    @jax.jit
    def evaluated(pred, example):
        losses = {loss: mean.value for loss, mean in task.losses(pred, example).items()}
        if isinstance(task, CoarsensTargets):  # as an output of a coarser level
            there = task.losses(nearest(pred, 2), task.on_coarser_grid(example, (2,) * ndim))
            there.pop("exposure", None)  # of patches that are larger than this grid
            losses |= {f"{loss} of a coarser level": mean.value for loss, mean in there.items()}
        return losses, task.measure(Prediction(pred), example)

    example = jax.device_get(jax.jit(task.evaluation_example)(KEY, batch_of(name, ndim)))
    example = replace(example, input=NetworkInput(example.input.image))
    pred = prediction_of(name, task, example, np.random.default_rng(2))
    whole_losses, whole = evaluated(pred, example)
    other_losses, other = evaluated(*reversed(widened(example, pred, voxels=name not in FIXED)))
    assert whole_losses
    for loss, value in whole_losses.items():
        np.testing.assert_allclose(other_losses[loss], value, rtol=1e-6, atol=1e-7, err_msg=loss)
    for metric, values in whole.items():
        assert len(values) == 2, metric
        np.testing.assert_allclose(other[metric][:2], values, rtol=1e-6, atol=1e-7, err_msg=metric)


def test_every_task_is_tested():
    assert sorted(TASKS) == registry.names("tasks")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ndim"), CASES)
def test_references_run_on_a_batch_and_can_be_measured(name, ndim):
    task = task_of(name, ndim)
    example = jax.device_get(jax.jit(task.evaluation_example)(KEY, batch_of(name, ndim)))
    found = {}
    for row, reference in task.references().items():
        grid = reference.strengths
        strength = grid[len(grid) // 2] if grid else 1.0
        image = np.asarray(reference.run(example, strength))
        assert image.shape[:-1] == example.target.shape[:-1], row
        assert list(grid) == sorted(set(grid)), row
        alone = reference.run(jax.tree.map(lambda a: a[:1] if np.ndim(a) else a, example), strength)
        np.testing.assert_allclose(alone, image[:1], atol=2e-4, err_msg=row)
        found[row] = task.summarise([{metric: np.asarray(values)[i] for metric, values in measured.items()}
                                     for measured in [task.measure(Prediction(jnp.asarray(image)), example)]
                                     for i in range(2)])
    for row, values in found.items():
        assert np.isfinite(values[task.metrics[0].name]), row


# Gradient accumulation


def masked_batch(channels: int = 1) -> dict:
    """Four samples: whole, half, a few voxels, nothing."""
    random = np.random.default_rng(0)
    mask = np.ones((4, 12, 12, 1), bool)
    mask[1, 6:], mask[2, :, 3:], mask[3] = False, False, False
    return {"image": jnp.asarray(random.uniform(size=(4, 12, 12, channels)), jnp.float32), "mask": jnp.asarray(mask),
            "slope": jnp.ones(4), "intercept": jnp.zeros(4), "count": jnp.ones(4).at[3].set(0),
            "id": jnp.arange(4, dtype=jnp.uint32)}


def objective_of(name: str):
    model = CNN(2, 1, (1, 1), features=(4,), kernels=(3, 3))
    if name == "cycle":
        task = Translate(UNIT, 2, ("T1",), "T2", paired=True, contrasts=("T1", "T2"), curve=(0.0, 1.0))
        return Cycle(task, model, Patch(2, width=2, depth=1, norm="none"), buffer=0), masked_batch(2)
    task = Denoise(UNIT, 2, "gaussian", (0.1, 0.1))
    if name == "adversarial":
        return Adversarial(task, model, Patch(2, width=2, depth=1, norm="none"), weight=0.5), masked_batch()
    return Supervised(task, model, "l1 + 0.5*l2 + gradient"), masked_batch()


def updated(objective, batch, accumulate: int):
    """Losses, and how far a step along the gradient goes: the gradient."""
    rules = {player: optax.sgd(1.0) for player in set(objective.players)}
    state = init_state(objective.task, objective, rules, 0.0, batch, KEY)
    after, logs = jax.jit(make_step(objective.task, objective, rules, 0.0, accumulate=accumulate))(state, batch)
    return logs, jax.tree.map(jnp.subtract, state.params, after.params)


@pytest.mark.parametrize("name", ["supervised", "adversarial", "cycle"])
def test_microbatches_make_the_step_of_the_whole_batch_whatever_its_masks(name):
    objective, batch = objective_of(name)
    logs, gradient = updated(objective, batch, 1)
    for accumulate in (2, 4):
        others, other = updated(objective, batch, accumulate)
        assert others.keys() == logs.keys()
        for log, value in logs.items():
            np.testing.assert_allclose(others[log], value, rtol=1e-6, atol=1e-7, err_msg=log)
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(gradient), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6 * max(1.0, float(np.abs(b).max())))


def flops(objective, batch, accumulate: int) -> float:
    """Of the compiled step, with the loop over microbatches counted as one round."""
    rules = {player: optax.sgd(1.0) for player in set(objective.players)}
    state = jax.eval_shape(lambda batch: init_state(objective.task, objective, rules, 0.0, batch, KEY), batch)
    step = jax.jit(make_step(objective.task, objective, rules, 0.0, accumulate=accumulate))
    return step.lower(state, batch).compile().cost_analysis()["flops"]


def test_counting_what_counts_costs_no_second_forward_pass(monkeypatch):
    """A step of four microbatches computes, for each, what a step on that microbatch alone does."""
    monkeypatch.setenv("MEDJAX_CONV", "xla")
    objective, batch = objective_of("supervised")
    quarter = {key: array[:1] for key, array in batch.items()}
    assert flops(objective, batch, 4) < 1.1 * flops(objective, quarter, 1)


def test_what_does_not_count_gets_no_gradient():
    """A voxel outside the mask may hold anything: no parameter moves by it."""
    objective, batch = objective_of("supervised")
    objective = replace(objective, loss="l2")
    other = batch | {"image": batch["image"].at[3].set(7.0)}
    for a, b in zip(*(jax.tree.leaves(updated(objective, given, 1)) for given in (batch, other)), strict=True):
        np.testing.assert_array_equal(a, b)
    _, pred, _ = jax.jit(make_predict(objective.task, objective))(
        init_state(objective.task, objective, {"model": optax.sgd(1.0)}, 0.0, batch, KEY), batch, KEY)
    assert pred.image.shape == batch["image"].shape
