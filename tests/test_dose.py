"""Dose curves of a low-dose CT run: the command, its files, and what it plants and measures."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medjax.data.pipeline import eval_batches
from medjax.evaluation.dose import Settings
from medjax.evaluation.lesions import Lesion, contrast_to_noise, images_of, plant, region_size, regions, seen
from medjax.evaluation.water_phantom import WaterPhantom
from medjax.measures.detection import channelised_hotelling
from medjax.types import Record, Region, UserError
from tests.commands import SMALL, command


@pytest.fixture(scope="module")
def tissue() -> Record:
    """A body of 50 HU, a lung of -800 HU in it, on pixels of 1 mm."""
    y, x = np.indices((160, 160)) - 80
    image = np.where(np.hypot(y, x) < 75, 50, -1000)
    image[np.hypot(y + 20, x + 20) < 30] = -800
    return Record(image[..., None].astype(np.int16), "body", "someone", spacing_mm=(1.0, 1.0), modality="CT", units="HU")


def test_lesions_are_planted_in_soft_tissue_with_their_contrast(tissue):
    lesion = Lesion(-30.0, 6.0, per_image=8)
    found = plant(tissue, lesion, seed=0)
    assert 3 <= len(found.places) <= 8
    added = found.present.image[..., 0] - found.absent.image[..., 0]
    np.testing.assert_array_equal(found.absent.image[..., 0], tissue.image[..., 0])
    assert found.present.id != found.absent.id == tissue.id  # so that their noise differs
    for y, x in found.places:
        assert added[y, x] == pytest.approx(-30, abs=0.1)
        assert (tissue.image[y - 5:y + 6, x - 5:x + 6] == 50).all()
    # The area of the discs, whatever their edges.
    assert added.sum() == pytest.approx(-30 * np.pi * 3**2 * len(found.places), rel=0.01)
    size = region_size(lesion, 1.0)
    alone = regions(added, found.places, size)
    assert alone.sum((1, 2)) == pytest.approx(-30 * np.pi * 3**2, rel=0.01)  # one lesion in each region
    np.testing.assert_array_equal(plant(tissue, lesion, seed=0).places, found.places)
    assert not np.array_equal(plant(tissue, lesion, seed=1).places, found.places)


def test_a_lesion_is_less_seen_in_more_noise(tissue):
    lesion, random = Lesion(-30.0, 6.0, per_image=8), np.random.default_rng(0)
    planted = [plant(tissue, lesion, seed) for seed in range(12)]
    size = region_size(lesion, 1.0)
    found = []
    for noise in (15.0, 40.0):
        outputs = [np.concatenate([seen(regions(getattr(one, kind).image[..., 0] + random.normal(0, noise, (160, 160)),
                                                one.places, size), lesion, 1.0) for one in planted])
                   for kind in ("present", "absent")]
        found.append(channelised_hotelling(*outputs))
    # In white noise the ideal observer's d' is the root of the signal's energy over the noise.
    assert 0.6 < found[0].d_prime / (30 * np.sqrt(np.pi * 3**2) / 15) < 1.05
    assert found[0].d_prime > 1.8 * found[1].d_prime
    noisy = regions(planted[0].present.image[..., 0] + random.normal(0, 10, (160, 160)), planted[0].places, size)
    assert np.mean(contrast_to_noise(noisy, lesion, 1.0)) == pytest.approx(3, rel=0.15)


def test_what_can_not_be_planted_is_refused(tissue):
    with pytest.raises(UserError, match="--contrast: 0"):
        Lesion(0.0)
    with pytest.raises(UserError, match="at least two pixels"):
        plant(tissue, Lesion(diameter_mm=1.0), 0)
    with pytest.raises(UserError, match="too small for the water phantom"):
        WaterPhantom((64, 64), 1.0, -30.0)


def test_the_phantom_shows_noise_sharpness_and_bias_of_a_filter():
    """Of images that are blurred by a Gaussian of known width, have noise of a known size, and are 3 HU too high."""
    phantom, random = WaterPhantom((256, 256), 0.8, -40.0), np.random.default_rng(0)
    noise = random.normal(0, 20, (6, 256, 256))
    filled, water = ([record.image[..., 0] for record in phantom.records(6, 0, inserts)] for inserts in (True, False))
    sigma_mm = 0.9

    def made(images: list[np.ndarray]) -> np.ndarray:
        blurred = [ndimage.gaussian_filter(image + n, sigma_mm / 0.8) for image, n in zip(images, noise, strict=True)]
        return np.stack(blurred).astype(np.float32) + 3

    found = phantom.measure(made(filled), made(water))
    total = np.hypot(sigma_mm, 0.47)  # the phantom's own sharpness
    for curve in found.transfer.values():
        assert curve.f50 == pytest.approx(np.sqrt(np.log(2) / 2) / np.pi / total, rel=0.04)
    assert found.bias_hu == pytest.approx({"water": 3, "soft tissue": 3, "bone": 3}, abs=0.4)
    # White noise through a Gaussian: its variance times 1 / (4 pi sigma²), sigma in pixels.
    assert found.noise_hu == pytest.approx(20 / np.sqrt(4 * np.pi * (sigma_mm / 0.8) ** 2), rel=0.06)
    # The mean of a region is taken off, and its edges lift the highest frequencies.
    frequency = found.noise_power.frequency[1:]
    power = np.exp(-np.square(2 * np.pi * sigma_mm * frequency))
    assert found.noise_power.mean_frequency == pytest.approx((frequency * power).sum() / power.sum(), rel=0.08)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on drawn chests, two of them for the test."""
    workdir = tmp_path_factory.mktemp("dose") / "run"
    drawn = ("--config.data.source.count=20", "--config.data.source.shape=(96,96)", "--config.data.patch=()")
    code, _, err = command("train.py", "--config=configs/ct_lowdose.py", f"--workdir={workdir}", *SMALL[1:], *drawn)
    assert code == 0, err
    return workdir


def test_a_run_is_evaluated_over_dose(run, tmp_path):
    given = (f"--workdir={run}", "--doses=0.5,0.1", "--contrast=-200", "--diameter=20")
    code, said, err = command("-m", "medjax.dose", *given, f"--output={tmp_path / 'out'}")
    assert code == 0, err
    assert f"written: {tmp_path / 'out' / 'dose.html'}" in said
    assert f"next: python -m medjax.apply --workdir={run}" in said
    found = json.loads((tmp_path / "out" / "dose.json").read_text())
    rows = {(row["dose"], row["method"]): row for row in found["rows"]}
    assert list(rows) == [(dose, method) for dose in (0.1, 0.5) for method in ("input", "median", "model")]
    for method in ("input", "median", "model"):
        low, high = rows[0.1, method], rows[0.5, method]
        assert low["psnr"] < high["psnr"]
        assert low["noise_hu"] > high["noise_hu"] > 0
        power = low["noise_power"]
        assert len(power["frequency"]) == len(power["value"]) > 10
    assert abs(rows[0.5, "input"]["bias_water"]) < 5
    assert rows[0.5, "median"]["noise_hu"] < 0.7 * rows[0.5, "input"]["noise_hu"]
    with (tmp_path / "out" / "dose.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(float(line["dose"]), line["method"]) for line in table] == list(rows)
    assert float(table[0]["psnr"]) == pytest.approx(rows[0.1, "input"]["psnr"])
    page = (tmp_path / "out" / "dose.html").read_text()
    assert page.count("<svg") >= 8
    assert not re.search(r"https?:|url\(|@import|src=", page.replace("http://www.w3.org", ""))
    code, _, err = command("-m", "medjax.dose", *given, "--doses=0.5", f"--output={tmp_path / 'again'}")
    assert code == 0, err
    assert json.loads((tmp_path / "again" / "dose.json").read_text())["rows"] == found["rows"][3:]


def test_what_can_not_be_evaluated_is_said_in_one_line(tmp_path):
    for doses in ((), (0.5, 2.0), (0.5, 0.5), (0.0,)):
        with pytest.raises(UserError, match="give different fractions"):
            Settings(doses, Lesion())
    code, _, err = command("-m", "medjax.dose", f"--workdir={tmp_path}", "--doses=half")
    assert (code, err) == (2, "error: --doses: half; give numbers with commas between, as 0.1,0.25,1\n")


def test_slices_are_named_as_in_an_evaluation(tissue):
    volume = np.stack([tissue.image + z for z in range(5)]).astype(np.int16)
    mask = np.ones((5, 160, 160, 1), bool)
    mask[1] = False
    record = Record(volume, "scan", "someone", slope=2.0, intercept=-1.0, spacing_mm=(3.0, 1.0, 1.0), extras={"mask": mask})
    region = Region(record, 1, 5)
    found = images_of([region], 2)
    evaluated = [name for batch in eval_batches([region], batch_size=2) for name in batch["name"] if name]
    assert [one.id for one in found] == evaluated
    np.testing.assert_array_equal(found[0].image, 2.0 * volume[2] - 1)
    assert found[0].spacing_mm == (1.0, 1.0)
    assert [one.id for one in images_of([region], 2, 1)] == ["scan:z3"]
