"""Runs side by side: evaluated on the same patients and on scans that none has seen."""

import csv
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.commands import SMALL, command

COMMON = [*SMALL, "--config.steps=2", "--config.eval_every=2"]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> Path:
    """Twelve people with a slab of four slices each."""
    folder, random = tmp_path_factory.mktemp("clinic") / "in", np.random.default_rng(0)
    for person in range(12):
        (folder / f"sub-{person:02d}").mkdir(parents=True)
        values = random.integers(50, 250, (7, 7, 4)).repeat(5, 0).repeat(5, 1)
        nibabel.Nifti1Image(values.astype(np.uint8), np.eye(4)).to_filename(folder / f"sub-{person:02d}" / "t1.nii.gz")
    return folder


@pytest.fixture(scope="module")
def runs(clinic, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    data = (f"--config.data.path={clinic}", "--config.data.fractions=(0.5,0.25,0.25)")
    for name, *more in (("one",), ("wide", "--config.model.width=8")):
        code, _, err = command("train.py", *COMMON, *data, *more, f"--workdir={folder / name}")
        assert code == 0, err
    return folder


@pytest.mark.slow
def test_runs_are_ranked_on_the_same_patients(runs, tmp_path):
    code, said, err = command("-m", "medjax.compare", runs / "one", runs / "wide", f"--output={tmp_path / 'out'}")
    assert code == 0, err
    assert "over 3 patients" in said
    found = json.loads((tmp_path / "out" / "ranking.json").read_text())
    methods = [method["method"] for method in found["methods"]]
    assert sorted(methods) == ["input", "median", "one", "wide"]
    means = {row: json.loads((runs / row / "eval" / "metrics.json").read_text())["standings"]["psnr"]["model"]["mean"]
             for row in ("one", "wide")}
    for method in found["methods"]:
        if method["method"] in means:
            assert method["mean"] == pytest.approx(means[method["method"]], abs=1e-3)
            assert method["flops"] > 0 < method["seconds"]
    assert methods == sorted(methods, key=lambda m: -next(row["mean"] for row in found["methods"] if row["method"] == m))
    sizes = {method["method"]: method["parameters"] for method in found["methods"] if method["method"] in means}
    assert sizes["wide"] > 3 * sizes["one"]
    page = tmp_path / "out" / "comparison.html"
    assert said.endswith(f"{page} opens in a browser, from disk\n")
    table = json.loads(re.search(r'id="scores">(.*?)</script>', page.read_text(), re.DOTALL)[1])
    best, other = [row for row in methods if row in means]
    for row in ("one", "wide"):
        with (runs / row / "eval" / "per_sample.csv").open() as file:
            known = [float(line["psnr"]) for line in csv.DictReader(file) if line["row"] == "model"]
        np.testing.assert_allclose(table["rows"][row]["psnr"], known, atol=1e-3)
    np.testing.assert_allclose(table["rows"][f"{best} − {other}"]["psnr"], np.subtract(
        table["rows"][best]["psnr"], table["rows"][other]["psnr"]), atol=1e-4)
    shown = json.loads(re.search(r'id="shown">(.*?)</script>', page.read_text(), re.DOTALL)[1])
    assert list(shown["samples"][0]["images"]) == [other, best, "input", "median", "truth"]
    apart = np.abs(table["rows"][f"{best} − {other}"]["psnr"])
    farthest = [table["names"][i] for i in np.argsort(-apart, kind="stable")[:4]]
    assert [one["name"] for one in shown["samples"][:4]] == farthest
    assert not [name for name in table["names"] if "sub-" in name]
    with (tmp_path / "out" / "ranking.csv").open() as file:
        assert [row[0] for row in csv.reader(file)][1:] == methods
    with Image.open(tmp_path / "out" / "ranking.png") as picture:
        assert picture.size[0] > 500
    code, _, err = command("-m", "medjax.compare", runs / "one")
    assert (code, err) == (2, "error: medjax.compare: give the folders of at least two runs\n")


@pytest.mark.slow
def test_a_run_is_evaluated_on_scans_that_it_has_never_seen(runs, clinic, tmp_path):
    for person in range(2):
        (tmp_path / "new" / f"sub-new{person}").mkdir(parents=True)
        values = np.random.default_rng(person + 50).integers(50, 250, (7, 7, 4)).repeat(5, 0).repeat(5, 1)
        values[:, :, 0] *= person  # one slice of air
        nibabel.Nifti1Image(values.astype(np.uint8), np.eye(4)).to_filename(
            tmp_path / "new" / f"sub-new{person}" / "t1.nii.gz")
    code, said, err = command("eval.py", f"--workdir={runs / 'one'}", f"--data={tmp_path / 'new'}")
    assert code == 0, err
    assert "took part" not in said
    found = json.loads((runs / "one" / "eval_data" / "metrics.json").read_text())
    assert (found["n"], found["patients"]) == (8, 2)
    names = ("psnr", "psnr_foreground", "psnr_background", "ssim", "nmse")
    assert found["undefined"] == dict.fromkeys(names, 1)  # it shows nothing
    assert "1 of 8 samples have no PSNR, and are left out of its mean" in said
    assert max(row["nmse"] for row in found["rows"].values()) < 10
    assert found["strengths"] == json.loads((runs / "one" / "eval" / "metrics.json").read_text())["strengths"]
    code, said, err = command("eval.py", f"--workdir={runs / 'one'}", f"--data={clinic}")
    assert code == 0, err
    assert "9 of the subjects took part in the run's training or validation" in said
    nibabel.Nifti1Image(np.ones((30, 30, 4), np.float32) * np.arange(4) * 1e4, np.eye(4)).to_filename(tmp_path / "ct.nii.gz")
    code, _, err = command("eval.py", f"--workdir={runs / 'one'}", f"--data={tmp_path / 'ct.nii.gz'}")
    assert code == 2
    assert "error: ct: its values are" in err
