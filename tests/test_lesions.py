"""Planted lesions: where they lie, what is measured of them against known methods, and the command on every kind of task."""

import csv
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from medjax.data.sources.phantoms import Phantoms
from medjax.evaluation.lesion_study import Settings, _Lesions, study_of
from medjax.evaluation.lesions import Lesion, contrasts, images_of, plant
from medjax.measures.detection import disc
from medjax.train.optim import optimizer
from medjax.train.run import assemble, resolve
from medjax.train.step import init_state
from medjax.types import Record, Region, UserError
from tests.commands import DRAWN, command

LESION = Lesion(-20.0, 6.0, per_image=6)


def head(seed: int = 0, shape: tuple[int, ...] = (120, 140), **given) -> Record:
    """A bright ellipse with fine texture on 0, no units, on pixels of 1 mm."""
    random = np.random.default_rng(seed)
    middle = np.array(shape) / 2
    far = sum(np.square((axis - c) / (0.9 * c)) for axis, c in zip(np.indices(shape), middle, strict=True))
    image = np.where(far < 1, 100 + random.normal(0, 1, shape), 0.0).astype(np.float32)
    return Record(image[..., None], f"head{seed}", f"person{seed}", spacing_mm=given.pop("spacing_mm", (1.0,) * len(shape)),
                  **given)


def test_lesions_lie_in_tissue_of_any_image_with_their_contrast():
    record = head()
    found = plant(record, LESION, seed=0)
    assert len(found.places) == 6
    plain, planted = (one.image[..., 0] for one in (found.absent, found.present))
    added = planted - plain
    for y, x in found.places:
        assert (record.image[y - 5:y + 6, x - 5:x + 6] > 50).all()
        assert added[y, x] == pytest.approx(-20, abs=0.1)
    assert added.sum() == pytest.approx(-20 * np.pi * 3**2 * 6, rel=0.01)
    spacing = np.ones(2)
    difference = contrasts(planted, found.places, LESION, spacing) - contrasts(plain, found.places, LESION, spacing)
    np.testing.assert_allclose(difference, -20, rtol=0.07)  # the edge is a little unsharp


def test_uneven_tissue_is_left_alone():
    """A third of the head has edges everywhere; the rest has room enough."""
    record = head()
    record.image[:, :50] += 40 * (np.indices((120, 50)).sum(0)[..., None] // 6 % 2) * (record.image[:, :50] > 50)
    assert (plant(record, LESION, 0).places[:, 1] > 50).all()


def test_balls_are_planted_in_volumes_by_millimetres():
    record = head(1, (24, 80, 80), spacing_mm=(3.0, 1.0, 1.0))
    lesion = Lesion(-20.0, 12.0, per_image=1)
    found = plant(record, lesion, seed=0)
    assert found.places.shape == (1, 3)
    added = (found.present.image - found.absent.image)[..., 0]
    assert added.sum() * 3 == pytest.approx(-20 * 4 / 3 * np.pi * 6**3, rel=0.02)  # mm³
    z, y, x = found.places[0]
    assert added[z, y, x] == pytest.approx(-20, abs=0.2)
    assert added[z + 1, y, x] < -19  # 3 mm away
    assert added[z + 3, y, x] > -1  # 9 mm away
    np.testing.assert_allclose(contrasts(added, found.places, lesion, np.array([3.0, 1.0, 1.0])), -20, rtol=0.05)
    assert disc((9, 9, 9), (4, 4, 4), 3.0).sum() == pytest.approx(4 / 3 * np.pi * 27, rel=0.01)


def test_what_is_recovered_lost_and_invented_of_known_methods():
    """Methods that keep a known part of lesions, or put some where there are none."""
    planted = [plant(head(i), LESION, seed=0) for i in range(4)]
    lesions = _Lesions(LESION, planted, seed=0)
    random = np.random.default_rng(0)
    for number, one in enumerate(planted):
        plain, present = (record.image[..., 0] for record in (one.absent, one.present))
        added = present - plain
        noises = {"absent": random.normal(0, 5, plain.shape), "again": random.normal(0, 5, plain.shape)}
        for what, part in (("absent", 0), ("again", 0), ("present", 1)):
            noise = noises["absent" if what == "present" else what]
            images = {"truth": plain + part * added, "model": plain + 0.8 * part * added,
                      "loses": plain + 0.4 * part * added, "noisy": plain + part * added + noise,
                      "invents": plain + added + 0.9 * part * added, "brighter": plain - 20 + part * added}
            lesions.add(number, {row: image.astype(np.float32) for row, image in images.items()}, what)
    found = lesions.standings()
    recovery, lost, invented = ({row: one.mean for row, one in found[name].items()} for name in (
        "recovery", "lost", "invented"))
    assert recovery == pytest.approx({"model": 0.8, "loses": 0.4, "noisy": 1.0, "invents": 0.9, "brighter": 1.0}, abs=1e-3)
    assert lost == {"model": 0, "loses": 1, "noisy": 0, "invents": 0, "brighter": 0}
    assert invented == {"model": 0, "loses": 0, "noisy": 0, "invents": 1, "brighter": 0}  # brighter all over is no lesion
    assert found["recovery"]["loses"].difference == pytest.approx(0.4, abs=1e-3)
    assert found["recovery"]["model"].low == pytest.approx(0.8, abs=1e-3)
    least, *_, most = lesions.examples()
    assert least.recovery["model"] <= most.recovery["model"]
    np.testing.assert_allclose(least.present["model"] - least.absent["model"],
                               0.8 * (least.present["truth"] - least.absent["truth"]), atol=1e-3)


def test_images_are_volumes_or_slices():
    volume = head(2, (6, 40, 40))
    assert [one.id for one in images_of([Region(volume, 1, 4)], 2)] == ["head2:z1", "head2:z2", "head2:z3"]
    (whole,) = images_of([Region(volume, 1, 4)], 3)
    np.testing.assert_array_equal(whole.image, volume.image[1:4])


@pytest.mark.parametrize("given", [{"contrasts": ("0",)}, {"contrasts": ("-20", "dark")}, {"contrasts": ("-20", "-20")},
                                   {"diameters_mm": ()}, {"diameters_mm": (4.0, -1.0)}, {"samples": -1}])
def test_what_can_not_be_planted_is_refused(given):
    with pytest.raises(UserError, match="; give "):
        Settings(**given)


TASKS = {
    "denoise": ("unet", {"strength": (0.02, 0.02)}), "superres": ("unet", {"grid": "fine"}),
    "deblur": ("unet", {"size": (1.0, 1.0)}), "inpaint": ("unet", {"keep": 0.7}),
    "ct_lowdose": ("unet", {"measured": False}), "ct_recon": ("unet", {"views": 24, "photons": 1e5}),
    "mri_recon": ("unet", {"acceleration": 1.0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_restoration_is_studied_by_its_contract(name, tmp_path):
    """By networks as they are drawn; what the input keeps of a lesion is known."""
    model, values = TASKS[name]
    config = base.get_config(task=name, model=model, source="phantoms")
    config.task.update(values)
    config.model.update(width=4, depth=2)
    config.references = ("none",)
    config.batch_size, config.data.patch = 2, ()
    kind, size = ("chest", 28.0) if name.startswith("ct") else ("brain", 16.0)
    if kind == "chest":
        config.data.range = (-1000.0, 1000.0)
    elif name == "mri_recon":
        config.data.range = (0.0, 1000.0)
    records = Phantoms(kind=kind, shape=(96, 96), count=6).load()
    regions = [Region.whole(record) for record in records]
    splits = {"train": regions[:2], "val": [], "test": regions[2:]}
    config = resolve(config, splits)
    run = assemble(config)
    rows = {name: np.stack([getattr(record, name) for record in records[:2]]) for name in ("image", "slope", "intercept")}
    batch = {**rows, "count": np.ones(2, np.float32), "id": np.arange(2, dtype=np.uint32),
             "spacing_mm": np.array([record.spacing_mm for record in records[:2]], np.float32)}
    rules = {"model": optimizer(1)}
    state = jax.jit(lambda batch: init_state(run.task, run.objective, rules, 0.0, batch, jax.random.key(0)))(
        jax.tree.map(jnp.asarray, batch))
    found = study_of(run, state, splits, tmp_path, Settings(("-300",) if kind == "chest" else ("-40%",), (size,)))
    (lesions,) = found.kinds
    assert lesions.count >= 2
    assert found.patients >= 1
    recovery = lesions.standings["recovery"]
    assert np.isfinite(recovery["model"].mean)
    if "input" in recovery:
        least = 0.4 if name == "superres" else 0.6
        assert least < recovery["input"].mean < 1.3
    assert lesions.examples[0].present["truth"].shape == lesions.examples[0].absent["model"].shape
    assert found.shown.keys() >= {"model", "truth"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on drawn heads, two of them for the test."""
    workdir = tmp_path_factory.mktemp("lesions") / "run"
    words = [word.replace("(40,40)", "(64,64)") for word in DRAWN]
    code, _, err = command("train.py", *words, f"--workdir={workdir}")
    assert code == 0, err
    return workdir


@pytest.mark.slow
def test_the_command_writes_a_table_numbers_and_a_page(run, tmp_path):
    given = ("--contrasts=-30%,-60%", "--diameters=14", f"--output={tmp_path}")
    code, said, err = command("-m", "medjax.lesions", run, *given)
    assert code == 0, err
    assert f"written: {tmp_path / 'lesions.html'}" in said
    assert f"next: python -m medjax.apply --workdir={run}" in said
    found = json.loads((tmp_path / "lesions.json").read_text())
    assert [kind["asked"] for kind in found["kinds"]] == ["-30%", "-60%"]
    for kind in found["kinds"]:
        assert list(kind["methods"]) == ["input", "median", "model"]
        assert kind["lesions"] >= 2
        assert kind["methods"]["input"]["recovery"]["mean"] == pytest.approx(1, abs=0.15)
        assert kind["contrast"] < 0
    with (tmp_path / "lesions.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [line["method"] for line in table] == ["input", "median", "model"] * 2
    page = (tmp_path / "lesions.html").read_text()
    assert page.count("<svg") >= 3
    assert page.count("data:image/png") >= 2 * 4 * 2
    assert not re.search(r"https?:|url\(|@import|src=\"(?!data)", page.replace("http://www.w3.org", ""))
    code, _, err = command("-m", "medjax.lesions", run, "--diameters=14,big")
    assert (code, err) == (2, "error: --diameters: 14,big; give numbers with commas between, as 4,8\n")
