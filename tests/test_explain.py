"""The command that explains results: of a classifier, of a restoration, and what can't be asked."""

import csv
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medjax.data.sources.chest_findings import ChestFindings
from medjax.infer.explanation import Question
from medjax.report.explain import Shown, overlay, picture
from medjax.types import UserError
from tests.commands import DRAWN, command


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("explain") / "run"
    code, _, err = command("train.py", *DRAWN, f"--workdir={workdir}")
    assert code == 0, err
    return workdir


@pytest.mark.slow
def test_a_region_of_a_restored_volume_is_explained(denoiser, tmp_path):
    volume = np.random.default_rng(0).integers(200, 700, (30, 32, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-2.0, -2.0, 3.0, 1.0])), tmp_path / "scan.nii.gz")
    out = tmp_path / "out"
    code, said, err = command("-m", "medjax.explain", denoiser, tmp_path / "scan.nii.gz", "--at=4,16,15", "--diameter=10",
                              "--accept=spacing,values", f"--output={out}")
    assert code == 0, err
    assert f"next: python -m medjax.lesions {denoiser}" in said
    (image,) = json.loads((out / "explain.json").read_text())["images"]
    assert image["explained"] == "the mean of the region"
    assert image["slice"] == 4
    assert image["completeness"] < 0.05
    maps = image["maps"]
    assert list(maps) == ["gradient", "integrated-gradients", "occlusion", "random"]
    # A network of a few layers looks at the region: random voxels say less.
    assert maps["integrated-gradients"]["deletion"] < maps["random"]["deletion"]
    assert maps["integrated-gradients"]["insertion"] > maps["random"]["insertion"]
    assert 0 <= image["receptive_radii"]["50 %"] <= image["receptive_radii"]["95 %"] < 60
    made = nibabel.load(out / "scan_integrated-gradients.nii.gz")
    assert made.get_data_dtype() == np.int16
    values = np.asarray(made.dataobj)
    assert values.shape == volume.shape
    assert values.max() == 100
    assert [z for z in range(6) if values[..., z].any()] == [4]
    np.testing.assert_allclose(made.affine, np.diag([-2.0, -2.0, 3.0, 1.0]))
    with Image.open(out / "scan_occlusion_over.png") as shown:
        assert shown.mode == "RGB"
    page = (out / "explain.html").read_text()
    assert page.count("data:image/png") == 5
    assert page.count("<svg") == 2
    assert not re.search(r"https?:|url\(|@import|src=\"(?!data)", page.replace("http://www.w3.org", ""))
    code, said, err = command("-m", "medjax.explain", denoiser, tmp_path / "scan.nii.gz", "--at=4,16,15", "--lesion=-200",
                              "--accept=spacing,values", f"--output={out}")
    assert code == 0, err
    (image,) = json.loads((out / "explain.json").read_text())["images"]
    assert image["explained"] == "the lesion's contrast"
    code, _, err = command("-m", "medjax.explain", denoiser)
    assert (code, err) == (2, "error: medjax.explain: give the folder of a run, and files or folders of images\n")
    for words, says in ((("--at=4,16",), "error: --at: 4,16 is no voxel of scan, of 6 x 32 x 30; give 3 numbers from 0"),
                        (("--class=tumour",), "error: --class: is for classifiers; a run of denoise makes images")):
        code, _, err = command("-m", "medjax.explain", denoiser, tmp_path / "scan.nii.gz", *words, "--accept=spacing,values")
        assert (code, err.splitlines()[-1]) == (2, says)


@pytest.mark.slow
def test_what_was_taken_beside_noise_is_written_and_shown(denoiser, tmp_path):
    """By a network that has learnt next to nothing."""
    assert "beyond the noise" in (denoiser / "eval" / "report.html").read_text()
    image = np.random.default_rng(0).integers(100, 900, (40, 40)).astype(np.int16)
    np.save(tmp_path / "scan.npy", image)
    code, said, err = command("-m", "medjax.apply", f"--workdir={denoiser}", f"--input={tmp_path / 'scan.npy'}", "--removed",
                              f"--output={tmp_path / 'clean.npy'}", "--accept=values")
    assert code == 0, err
    assert str(tmp_path / "clean_removed.npy") in said
    made = np.load(tmp_path / "clean_removed.npy")
    assert made.shape == image.shape
    assert made.dtype == image.dtype
    found = json.loads((tmp_path / "clean_check.json").read_text())
    assert found["false_discovery_rate"] == 0.05
    assert (made > 0).mean() == pytest.approx(found["significant_share"][0], abs=0.02)
    assert found["noise_excess"][0] < 1  # most of the noise is left in


@pytest.mark.slow
def test_the_class_of_pictures_is_explained(tmp_path):
    workdir, out = tmp_path / "run", tmp_path / "out"
    code, _, err = command("train.py", "--config=configs/xray_classify.py:model=classifier", f"--workdir={workdir}",
                           "--config.model.widths=(4,4)", "--config.model.convs=(1,1)", "--config.model.dense=()",
                           "--config.data.source.count=30", "--config.data.source.size=48", "--config.steps=2",
                           "--config.log_every=1", "--config.eval_every=2", "--config.checkpoint_every=2")
    assert code == 0, err
    for record in ChestFindings(size=48, count=2).load():
        np.save(tmp_path / f"{record.id}.npy", record.image[..., 0])
    names = sorted(tmp_path.glob("*.npy"))
    code, said, err = command("-m", "medjax.explain", workdir, *names, "--class=effusion", "--baseline=blur",
                              f"--output={out}")
    assert code == 0, err
    assert "next: python eval.py" in said
    images = json.loads((out / "explain.json").read_text())["images"]
    assert [image["explained"] for image in images] == ["the logit of effusion"] * 2
    assert set(images[0]["maps"]) == {"gradient", "integrated-gradients", "occlusion", "grad-cam", "random"}
    assert images[0]["receptive_radii"] == {"50 %": None, "95 %": None}
    made = np.load(out / f"1_{names[0].stem}_grad-cam.npy")
    assert made.shape == (48, 48)
    assert made.max() == 100
    with (out / "explain.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 10
    code, _, err = command("-m", "medjax.explain", workdir, names[0], "--class=fracture")
    assert (code, err.splitlines()[-1]) == (
        2, "error: --class: unknown 'fracture'; choose from clear, consolidation, effusion")


def test_maps_are_drawn_over_their_image():
    image, values = np.full((8, 10), 50.0), np.zeros((8, 10))
    values[2, 3], values[5, 6] = 1.0, -1.0
    drawn = overlay(image, values, (0, 100))
    assert drawn[0, 0] == pytest.approx([127.5] * 3)
    assert drawn[2, 3, 0] > drawn[2, 3, 2] + 50  # orange: for
    assert drawn[5, 6, 2] > drawn[5, 6, 0] + 50  # blue: against
    shown = Shown("one", image, {"map": values}, {}, [], (0, 100), (2.0, 1.0))
    assert picture(shown, "map").startswith(b"\x89PNG")


def test_what_can_not_be_asked_is_refused():
    with pytest.raises(UserError, match="--diameter"):
        Question(diameter_mm=0)
