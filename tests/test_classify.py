"""Classification: networks that learn a batch by heart, scores against scikit-learn, mistakes in one line."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn

from medjax import registry
from medjax.data.sources.labelled import Labelled
from medjax.measures import classification
from medjax.objectives.supervised import Supervised
from medjax.tasks.classify import Classify
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_predict, make_step
from medjax.types import Record, Region, UserError

CLASSES = ("a", "b", "c")
KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles in a tenth of the time


def batch_of(ndim: int, classes: np.ndarray) -> dict:
    """Noise with a square that is brighter for a higher class."""
    random = np.random.default_rng(0)
    n = len(classes)
    image = random.normal(0.2, 0.02, (n, *(20 - 4 * ndim,) * ndim, 1)).astype(np.float32)
    level = classes if classes.ndim == 1 else classes @ np.arange(1, classes.shape[1] + 1)
    level = np.reshape(level, (-1,) + (1,) * (ndim + 1))
    image[(slice(None), *(slice(2, 7),) * ndim)] += 0.3 * level
    return {"image": jnp.asarray(image), "slope": jnp.ones(n), "intercept": jnp.zeros(n), "count": jnp.ones(n),
            "id": jnp.arange(n, dtype=jnp.uint32), "class": jnp.asarray(classes)}


CASES = {
    "cnn bf16": (2, "classifier", {"convs": (1, 1), "widths": (8, 16), "dtype": "bfloat16"}, "softmax", "focal"),
    "resnet 3-D": (3, "resnet", {"width": 2, "depth": 10, "stem": "small"}, "sigmoid", "cross_entropy"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_network_learns_a_batch_by_heart(case):
    ndim, name, model, head, loss = CASES[case]
    task = Classify((0.0, 1.0), ndim, classes=CLASSES, class_weights=(1.0, 1.0, 1.0), head=head)
    labels = np.eye(3, dtype=np.int32)[[0, 1, 2, 0, 1, 2]] if task.head == "sigmoid" else np.array([0, 1, 2, 0, 1, 2])
    batch = batch_of(ndim, labels)
    net = registry.build("models", registry.spec("models", name, **model), ndim=ndim, channels=task.out_channels(1))
    objective = Supervised(task, net, loss=loss)
    rules = {"model": optimizer(80, name="adam", lr=1e-2, warmup=5)}
    state = jax.jit(partial(init_state, task, objective, rules, 0.0))(batch, KEY)
    step = jax.jit(make_step(task, objective, rules, 0.0))
    for i in range(60):
        state, logs = step(state, batch)
        if i == 0:
            first = float(logs["model/loss"])
    _, pred, found = make_predict(task, objective)(state, batch, jax.random.key(1))
    assert pred.image.shape == (6, 3)
    assert pred.image.dtype == jnp.float32
    assert float(logs["model/loss"]) < 0.2 * first
    samples = [{name: value[i] for name, value in jax.device_get(found).items()} for i in range(6)]
    assert task.summarise(samples)["accuracy"] == 1.0


# What torchvision's networks of this name have, for 3 channels and 1000 classes.
SIZES = {("resnet", 18): 11_689_512, ("resnet", 34): 21_797_672, ("resnet", 50): 25_557_032, ("resnet", 101): 44_549_160,
         ("vgg", 11): 9_225_984, ("vgg", 16): 14_723_136}


@pytest.mark.parametrize(("name", "depth"), SIZES)
def test_the_published_networks_have_the_published_size(name, depth):
    net = registry.build("models", registry.spec("models", name, depth=depth, width=64), ndim=2, channels=1000)
    made = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))["params"]
    if name == "vgg":  # the published dense layers need one image size; the convolutions are the same
        made.pop("head")
    biases = 2752 if (name, depth) == ("vgg", 11) else 4224 if name == "vgg" else 0  # of convolutions before a batch norm
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) + biases == SIZES[name, depth]


def test_scores_agree_with_scikit_learn():
    random = np.random.default_rng(1)
    truth = random.integers(0, 3, 60)
    probability = random.dirichlet(np.ones(3), 60)
    probability[:10] = probability[0]  # ties
    task = Classify((0.0, 1.0), 2, classes=CLASSES)
    found = probability.argmax(-1)
    summary = task.summarise([{"probability": p, "truth": np.eye(3)[t]} for p, t in zip(probability, truth, strict=True)])
    precision, recall, f1, _ = sklearn.precision_recall_fscore_support(truth, found, average="macro")
    expected = {"accuracy": sklearn.accuracy_score(truth, found), "precision": precision, "recall": recall, "f1": f1,
                "auc": sklearn.roc_auc_score(truth, probability, multi_class="ovr")}
    for name, value in expected.items():
        assert summary[name] == pytest.approx(value, abs=1e-12), name
    np.testing.assert_array_equal(summary["confusion"], sklearn.confusion_matrix(truth, found))


def test_several_labels_at_once_agree_with_scikit_learn():
    random = np.random.default_rng(2)
    truth, probability = random.integers(0, 2, (50, 3)), random.random((50, 3))
    task = Classify((0.0, 1.0), 2, classes=CLASSES, head="sigmoid")
    summary = task.summarise([{"probability": p, "truth": t} for p, t in zip(probability, truth, strict=True)])
    assert summary["auc"] == pytest.approx(sklearn.roc_auc_score(truth, probability), abs=1e-12)
    assert summary["f1"] == pytest.approx(sklearn.f1_score(truth, probability > 0.5, average="macro"), abs=1e-12)
    assert "confusion" not in summary
    assert np.isnan(classification.auroc(np.arange(3), np.zeros(3)))


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_losses_agree_with_their_definition_and_skip_what_only_fills_up(head):
    random = np.random.default_rng(3)
    logits, weights = random.normal(size=(5, 3)).astype(np.float32), (0.5, 1.0, 3.0)
    batch = batch_of(2, np.array([0, 1, 2, 2, 1]) if head == "softmax" else random.integers(0, 2, (5, 3)))
    batch["count"] = batch["count"].at[4].set(0)
    task = Classify((0.0, 1.0), 2, classes=CLASSES, head=head, class_weights=weights, focus=0.0)
    example = task.example(jax.random.key(0), batch)
    losses = task.losses(jnp.asarray(logits), example)
    truth, w = np.asarray(example.target)[:4], np.array(weights)
    if head == "softmax":
        p = np.exp(logits[:4]) / np.exp(logits[:4]).sum(-1, keepdims=True)
        expected = sklearn.log_loss(truth.argmax(-1), p, sample_weight=w[truth.argmax(-1)], labels=[0, 1, 2])
    else:
        p = 1 / (1 + np.exp(-logits[:4]))
        expected = -(truth * w * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
    assert float(losses["cross_entropy"].value) == pytest.approx(expected, rel=1e-5)
    assert float(losses["focal"].value) == pytest.approx(expected, rel=1e-5)


def regions(*classes) -> list[Region]:
    image = np.zeros((4, 4, 1), np.uint8)
    extras = [{} if c is None else {"class": np.array(c)} for c in classes]
    return [Region.whole(Record(image, f"r{i}", f"r{i}", extras=e)) for i, e in enumerate(extras)]


def test_class_weights_balance_the_training_images():
    task = Classify((0.0, 1.0), 2, classes=("rare", "frequent"))
    resolved = task.resolve_from_data({"train": regions(0, 1, 1, 1), "val": regions(0), "test": []})
    assert resolved == {"class_weights": (2.0, pytest.approx(2 / 3))}


MISTAKES = {
    "outside the classes": ({}, regions(0, 1, 2, 3), r"r3: its class \[3\]"),
    "no sample": ({}, regions(0, 1, 1), "no training image shows c"),
    "no class at all": ({}, regions(None), "r0: has no class"),
    "one index for several labels": ({"head": "sigmoid"}, regions(1), "r0: its class"),
    "unknown head": ({"head": "tanh"}, [], "unknown 'tanh'; choose from softmax, sigmoid"),
    "weights for others": ({"class_weights": (1.0,)}, [], "1 for 3 classes"),
    "one class": ({"classes": ("a",)}, [], "two or more"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case):
    keys, train, line = MISTAKES[case]
    with pytest.raises(UserError, match=line) as error:
        Classify((0.0, 1.0), 2, **({"classes": CLASSES} | keys)).resolve_from_data({"train": train, "val": [], "test": []})
    assert "\n" not in str(error.value)


def test_a_model_that_makes_images_is_no_classifier():
    task, batch = Classify((0.0, 1.0), 2, classes=CLASSES), batch_of(2, np.array([0, 1]))
    with pytest.raises(UserError, match="the model gives 12x12x3 for a sample where the task has 3;"):
        task.losses(jnp.zeros((2, 12, 12, 3)), task.example(KEY, batch))


def test_an_index_names_classes_and_subjects(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    for name in ("1.png", "2.png", "3.png"):
        Image.fromarray(np.full((20, 40, 3), 100, np.uint8)).save(tmp_path / "images" / name)
    (tmp_path / "index.csv").write_text("filename,patientid,finding\n1.png,p1,flu\n2.png,p1,\"flu, cold\"\n3.png,p2,well\n")
    one = Labelled(str(tmp_path), classes=("well", "*"), size=16).load()
    assert [int(r.extras["class"]) for r in one] == [1, 1, 0]
    assert [r.subject for r in one] == ["p1", "p1", "p2"]
    assert one[0].image.shape == (8, 16, 1)
    several = Labelled(str(tmp_path), classes=("flu", "cold"), separator=",").load()
    assert [r.extras["class"].tolist() for r in several] == [[1, 0], [1, 1]]
    wrong = ({"label": "sickness"}, "no column"), ({"classes": ("gout",)}, "no row"), ({"index": "x.csv"}, "no file")
    for keys, line in wrong:
        with pytest.raises(UserError, match=line):
            Labelled(str(tmp_path), **keys).load()


def test_the_index_of_real_x_rays_reads(test_data):
    records = Labelled(str(test_data / "xray"), classes=("COVID-19|COVID-19, ARDS", "*"), size=64).load()
    assert len(records) == 68
    assert len({r.subject for r in records}) == 39
    assert sum(int(r.extras["class"]) for r in records) == 68 - 43
