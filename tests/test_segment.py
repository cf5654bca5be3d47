"""Segmentation: networks that learn a batch by heart, scores against SciPy and scikit-learn, priors, mistakes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import filters, measure
from sklearn import metrics as sklearn

from medjax import registry
from medjax.classical import segment as classical
from medjax.data.sources.pairs import Pairs
from medjax.data.split import split
from medjax.measures import losses
from medjax.measures import regions as measured
from medjax.measures.statistics import standings
from medjax.objectives.supervised import Supervised
from medjax.ops import threshold
from medjax.tasks.segment import Segment
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_predict, make_step
from medjax.types import Prediction, Record, Region, UserError

KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles faster
CLASSES = ("background", "lesion")


def batch_of(ndim: int, n: int = 2) -> dict:
    """Noise with a brighter ball, which is the lesion, and the box around half of the image as mask."""
    random = np.random.default_rng(0)
    size = {2: 18, 3: 11}[ndim]
    grid = np.stack(np.meshgrid(*(np.arange(size),) * ndim, indexing="ij"), -1)
    label = np.stack([np.linalg.norm(grid - random.uniform(4, size - 4, ndim), axis=-1) < 3 for _ in range(n)])[..., None]
    image = random.normal(0.3, 0.05, label.shape) + 0.3 * label
    return {"image": jnp.asarray(image, jnp.float32), "label": jnp.asarray(label, jnp.uint8), "slope": jnp.ones(n),
            "intercept": jnp.zeros(n), "count": jnp.ones(n), "id": jnp.arange(n, dtype=jnp.uint32),
            "spacing_mm": jnp.array([[4.0, 1.0, 0.5]] * n)}


CASES = {
    "fcn 2-D bf16": (2, "fcn", {"width": 4, "depth": 2, "dtype": "bfloat16"}, {"prior": "otsu"}, "cross_entropy + dice"),
    "attention 3-D": (3, "attention_unet", {"width": 4, "depth": 2}, {}, "focal + dice"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_network_learns_a_batch_by_heart(case):
    ndim, name, model, keys, loss = CASES[case]
    task, batch = Segment((0.0, 1.0), ndim, **keys), batch_of(ndim)
    net = registry.build("models", registry.spec("models", name, **model), ndim=ndim, channels=2, scale=(1,) * ndim)
    objective = Supervised(task, net, loss=loss)
    rules = {"model": optimizer(80, name="adam", lr=3e-2, warmup=5)}
    state = jax.jit(partial(init_state, task, objective, rules, 0.0))(batch, KEY)
    step = jax.jit(make_step(task, objective, rules, 0.0))
    for i in range(60):
        state, logs = step(state, batch)
        if i == 0:
            first = float(logs["model/loss"])
    _, pred, found = make_predict(task, objective)(state, batch, jax.random.key(1))
    assert pred.image.shape == (*batch["image"].shape[:-1], 2)
    assert float(logs["model/loss"]) < 0.3 * first
    assert np.all(np.asarray(found["dice"]) > 0.9)


def regions(shape=(9, 12, 14)) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    return tuple(ndimage.binary_opening(ndimage.gaussian_filter(random.random(shape), 1.5) > 0.51) for _ in range(2))


def test_overlap_agrees_with_scikit_learn():
    found, truth = regions()
    dice, iou = measured.overlap(jnp.asarray(found)[None, ..., None], jnp.asarray(truth)[None, ..., None])
    assert float(dice[0, 0]) == pytest.approx(sklearn.f1_score(truth.ravel(), found.ravel()), abs=1e-6)
    assert float(iou[0, 0]) == pytest.approx(sklearn.jaccard_score(truth.ravel(), found.ravel()), abs=1e-6)
    empty = jnp.zeros((1, 4, 4, 1), bool)
    assert np.isnan(measured.overlap(empty, empty)[0])
    assert float(measured.overlap(empty, ~empty)[0][0, 0]) == 0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 1.0, 0.5)])
def test_distances_agree_with_scipy(spacing):
    found, truth = regions()
    expected = ndimage.distance_transform_edt(~truth, sampling=spacing)
    np.testing.assert_allclose(measured.distance(jnp.asarray(truth), jnp.array(spacing)), expected, atol=1e-5)
    cross = ndimage.generate_binary_structure(3, 1)
    rims = [m & ~ndimage.binary_erosion(m, cross, border_value=0) for m in (found, truth)]
    to_other = [ndimage.distance_transform_edt(~rims[1 - i], sampling=spacing)[rims[i]] for i in range(2)]
    both = np.concatenate(to_other)
    expected = {"hausdorff": both.max(), "hausdorff95": np.percentile(both, 95), "surface_distance": both.mean(),
                "surface_dice": (both <= 1.0).mean()}
    got = measured.measured(list(expected), *(jnp.asarray(m)[None, ..., None] for m in (found, truth)),
                            jnp.array([spacing]), 1.0)
    assert {name: float(value[0, 0]) for name, value in got.items()} == pytest.approx(expected, abs=1e-5)


def test_surfaces_of_regions_that_are_missing():
    """A region that is not found has no distance, and none of its surface is near; where neither is, there is no number."""
    one = jnp.zeros((1, 5, 5, 2), bool).at[0, 1:3, 1:3, 0].set(True)
    got = measured.measured(list(measured.OF_REGIONS), one, jnp.zeros_like(one), jnp.ones((1, 2)), 10.0)
    nothing = [name for name, value in got.items() if np.isnan(value[0, 0])]
    assert nothing == ["hausdorff95", "hausdorff", "surface_distance"]
    assert float(got["surface_dice"][0, 0]) == 0
    assert all(np.isnan(value[0, 1]) for value in got.values())


def test_the_measures_of_a_segmentation_are_chosen():
    names = ("surface_dice", "hausdorff")
    task, batch = Segment((0.0, 1.0), 2, measures=names, tolerance_mm=0.5), batch_of(2)
    example = task.example(KEY, batch)
    shifted = jnp.roll(example.target, 1, 2) * 10.0
    found = {name: np.asarray(value) for name, value in task.measure(Prediction(shifted), example).items()}
    assert [metric.name for metric in task.metrics] == ["volume_dice", *names]
    np.testing.assert_allclose(found["hausdorff"], 0.5, atol=1e-5)  # a voxel of the last axis
    np.testing.assert_array_equal(found["surface_dice"], 1)
    assert set(task.summarise([{name: value[i].tolist() for name, value in found.items()} for i in range(2)])) == {
        "volume_dice", *names}


def test_losses_agree_with_their_definition_under_a_mask():
    random = np.random.default_rng(5)
    logits, labels = random.normal(size=(2, 5, 6, 3)), np.eye(3)[random.integers(0, 3, (2, 5, 6))]
    mask = random.random((2, 5, 6, 1)) < 0.7
    given = [jnp.asarray(a, jnp.float32) for a in (logits, labels)] + [jnp.asarray(mask)]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    inside = mask[..., 0]
    entropy = sklearn.log_loss(labels[inside].argmax(-1), p[inside], labels=[0, 1, 2])
    assert float(losses.cross_entropy(*given).value) == pytest.approx(entropy, rel=1e-5)
    assert float(losses.focal(*given, focus=0.0).value) == pytest.approx(entropy, rel=1e-5)
    pairs = [(p[i][inside[i]][:, k], labels[i][inside[i]][:, k]) for i in range(2) for k in (1, 2)]
    soft = [(2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in pairs]
    assert float(losses.dice(*given).value) == pytest.approx(1 - np.mean(soft), rel=1e-5)


def test_thresholds_and_regions_agree_with_scikit_image():
    image = np.clip(np.asarray(batch_of(2)["image"])[0, ..., 0], 0, 0.999)
    whole = jnp.ones(image.shape, bool)
    ours = float(threshold.otsu(jnp.asarray(image), whole))
    assert ours == pytest.approx(filters.threshold_otsu(np.floor(image * 128) / 128), abs=2 / 128)
    inside = image > 0.25
    seed = np.zeros_like(inside)
    seed[np.unravel_index(image.argmax(), image.shape)] = True
    parts = measure.label(inside, connectivity=1)
    np.testing.assert_array_equal(threshold.grow(jnp.asarray(inside), jnp.asarray(seed)), parts == parts[seed][0])


@pytest.mark.parametrize("method", ["otsu", "region_growing", "edges"])
def test_classical_methods_find_a_clear_region(method):
    image = np.full((24, 24, 1), 0.2, np.float32)
    image[6:16, 8:20] = 0.8
    found = getattr(classical, method)(image)
    assert sklearn.f1_score(image.ravel() > 0.5, found.ravel() > 0) > 0.85
    assert not getattr(classical, method)(np.zeros((8, 8, 1))).any() or method == "region_growing"


def test_a_mixture_finds_three_noisy_tissues_in_the_order_of_brightness():
    random = np.random.default_rng(0)
    truth = np.repeat(np.array([2, 0, 1]), 12)[:, None, None] * np.ones((1, 30, 6), int)
    noisy = (np.array([0.1, 0.3, 0.9])[truth] + random.normal(0, 0.08, truth.shape))[..., None]
    alone, together = (classical.mixture(noisy, 3, strength) for strength in (0.0, 4.0))
    assert sklearn.accuracy_score(truth.ravel(), together.ravel()) > 0.98
    assert sklearn.accuracy_score(truth.ravel(), alone.ravel()) < sklearn.accuracy_score(truth.ravel(), together.ravel())
    assert not classical.mixture(np.zeros((8, 8, 1)), 3).any()


def test_references_put_classes_in_the_order_of_brightness_of_the_training_images():
    label = np.repeat(np.array([0, 1, 2]), 8)[:, None, None] * np.ones((1, 12, 1), int)
    image = np.array([0.5, 0.9, 0.1], np.float32)[label] + np.float32(0.02) * np.random.default_rng(0).random(label.shape)
    record = Record(np.float32(image), "r", "r", extras={"label": np.uint8(label)})
    classes = ("background", "bright", "dark")
    found = Segment((0.0, 1.0), 2, classes).resolve_from_data({"train": [Region.whole(record)], "val": [], "test": []})
    assert found == {"order": (2, 0, 1)}
    task = Segment((0.0, 1.0), 2, classes, **found)
    batch = batch_of(2, 1) | {"image": jnp.asarray(image)[None], "label": jnp.asarray(label)[None]}
    example = task.example(KEY, batch)
    assert set(task.references()) == {"otsu", "mixture"}  # the others find one region
    for reference in task.references().values():
        np.testing.assert_array_equal(np.asarray(reference.run(example, 1.0)).argmax(-1)[0], label[..., 0])


def test_a_prior_is_one_more_channel_and_differs_by_method():
    batch = batch_of(2)
    inputs = {prior: Segment((0.0, 1.0), 2, prior=prior).example(KEY, batch).input.image
              for prior in ("none", "otsu", "edges", "region_growing")}
    assert {prior: x.shape[-1] for prior, x in inputs.items()} == {"none": 1, "otsu": 2, "edges": 2, "region_growing": 2}
    assert not np.allclose(inputs["otsu"], inputs["edges"])


def test_a_volumes_dice_counts_all_slices_as_one():
    task = Segment((0.0, 1.0), 2)
    samples = [{"dice": 0.5, "iou": 1 / 3, "hausdorff95": 2.0, "hits": [10], "voxels": [40]},
               {"dice": float("nan"), "iou": float("nan"), "hausdorff95": float("nan"), "hits": [0], "voxels": [0]},
               {"dice": 1.0, "iou": 1.0, "hausdorff95": 0.0, "hits": [30], "voxels": [60]}]
    summary = task.summarise(samples)
    assert summary == {"volume_dice": 0.8, "dice": 0.75, "iou": pytest.approx(2 / 3), "hausdorff95": 1.0}
    rows = [{"model": sample} for sample in samples]
    found = standings(rows, ["a", "a", "b"], task.metrics[0], "model", task.summarise)["model"]
    assert found.mean == pytest.approx((0.5 + 1) / 2)  # of patients, each with its voxels together


def region(label: np.ndarray | None) -> Region:
    image = np.zeros((4, 4, 1), np.uint8)
    return Region.whole(Record(image, "r", "r", extras={} if label is None else {"label": label}))


MISTAKES = {
    "outside the classes": ({}, np.full((4, 4, 1), 2), r"its labels \[2\] are not all among the 2"),
    "an empty class": ({"classes": (*CLASSES, "oedema")}, np.eye(4, dtype=int)[..., None], "no training voxel is oedema"),
    "no label": ({}, None, "r: has no label"),
    "unknown prior": ({"prior": "otso"}, None, "unknown 'otso'; choose from none, otsu"),
    "unknown measure": ({"measures": ("dice", "hd")}, None, "unknown 'hd'; choose from dice, iou, hausdorff95, hausdorff"),
    "a tolerance below 0": ({"tolerance_mm": -1.0}, None, "tolerance_mm: -1; give 0 or more"),
    "one class": ({"classes": ("all",)}, None, "at least one more"),
    "an order of others": ({"order": (1, 2)}, None, "each number below 2 once"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case):
    keys, label, line = MISTAKES[case]
    with pytest.raises(UserError, match=line) as error:
        Segment((0.0, 1.0), 2, **keys).resolve_from_data({"train": [region(label)], "val": [], "test": []})
    assert "\n" not in str(error.value)


def test_pairs_of_files_are_one_record(tmp_path):
    stored = np.zeros((6, 6, 1), np.uint8)
    stored[2:4, 2:4] = 255
    np.save(tmp_path / "a_image.npy", np.arange(36.0, dtype=np.float32).reshape(6, 6, 1))
    np.save(tmp_path / "a_label.npy", stored)
    names = {"images": "*_image.npy", "labels": "*_label.npy"}
    (record,) = Pairs(str(tmp_path), **names, values=(0, 255)).load()
    assert record.extras["label"].shape == (6, 6, 1)
    assert record.extras["label"].sum() == 4
    np.save(tmp_path / "b_image.npy", np.ones((6, 6, 1), np.float32))
    wrong = ({"values": (0, 1)}, "the value 255"), ({"images": "no_*"}, "nothing in"), ({"values": (0, 255)}, "b_label")
    for keys, line in wrong:
        with pytest.raises(UserError, match=line):
            Pairs(str(tmp_path), **(names | keys)).load()


def draw(path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def test_pairs_lie_in_folders_and_in_the_parts_of_the_data_sets_makers(tmp_path):
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("validation", 2)):
        for i in range(count):
            mask = np.zeros((40, 40), np.uint8)
            mask[8:24, 8 + i:24 + i] = 255
            draw(tmp_path / part / "images" / f"{i}.jpg", random.integers(0, 255, (40, 40, 3), np.uint8))
            draw(tmp_path / part / "masks" / f"{i}.jpg", mask)  # JPEG blurs its edges
    source = {"path": str(tmp_path), "images": "*/images/*.jpg", "labels": "*/masks/*.jpg", "values": (0, 255)}
    records = Pairs(**source, parts=("train", "", "validation")).load()
    assert records[0].id == records[0].subject == "train/images/0"
    assert [int(record.extras["label"].sum()) for record in records] == [256] * 8
    splits = split(records, (0.5, 0.5, 0.0))
    assert {name: len(found) for name, found in splits.items()} == {"train": 3, "val": 3, "test": 2}
    assert {region.record.id for region in splits["test"]} == {"validation/images/0", "validation/images/1"}
    wrong = {"parts": ("train", "", "test")}, {"labels": "masks/*.jpg"}, {"images": "**/*.jpg"}
    for keys in wrong:
        with pytest.raises(UserError, match=r"config.data.source.(parts|labels)"):
            Pairs(**(source | keys)).load()


def test_a_real_brain_is_cut_into_slabs_that_hold_its_lesion(test_data):
    records = Pairs(str(test_data / "seg")).load()
    assert int(records[0].extras["label"].sum()) == 4137
    splits = split(records, (0.76, 0.0, 0.24))
    Segment((0.0, 1.0), 2).resolve_from_data(splits)
    with pytest.raises(UserError, match="slabs for val and test; give other"):
        Segment((0.0, 1.0), 2).resolve_from_data(split(records, (0.6, 0.2, 0.2)))


def lesions(rows: slice, subjects: int) -> list[Record]:
    """Images of 40 rows; the first has a lesion in some of them."""
    labels = np.zeros((subjects, 40, 4, 1), np.uint8)
    labels[0, rows] = 1
    return [Record(label * 0, f"r{number}", f"r{number}", extras={"label": label}) for number, label in enumerate(labels)]


@pytest.mark.parametrize(("rows", "subjects", "says"), [
    (slice(18, 19), 1, ": the split cuts each image into slabs, and its voxels lie in the slabs for val; give other "
     "config.data.fractions, or images of at least three subjects, which are not cut"),
    (slice(14, 16), 1, ": the split cuts each image into slabs, and its voxels lie in the gaps between the slabs; give "
     "other config.data.fractions, or images of at least three subjects, which are not cut"),
    (slice(0, 9), 4, ": the split has put the subjects that have it into test; give another "
     "config.data.split_seed, other config.data.fractions, or more subjects"),
    (slice(0, 0), 1, "; leave it out, or give images of it"),
], ids=["slab", "gap", "subject", "nowhere"])
def test_a_class_that_the_split_keeps_from_training_is_said_with_what_helps(rows, subjects, says):
    first, *others = records = lesions(rows, subjects)
    splits = split(records, (0.8, 0.1, 0.1))
    if others:
        splits = {"train": [Region.whole(record) for record in others], "val": [], "test": [Region.whole(first)]}
    with pytest.raises(UserError) as caught:
        Segment((0.0, 1.0), 2).resolve_from_data(splits)
    assert str(caught.value) == f"config.task.classes: no training voxel is lesion{says}"
