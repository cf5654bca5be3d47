"""Whole images through tiles, and files through the command."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medjax.infer.tiling import tiled
from tests.commands import SMALL, command

SPACE = {2: (37, 50), 3: (19, 23, 12)}


@pytest.mark.parametrize("ndim", [2, 3])
def test_tiles_of_an_identity_make_the_image_again(ndim):
    image = np.random.default_rng(0).normal(size=(*SPACE[ndim], 2)).astype(np.float32)
    seen = []
    made = tiled(lambda tile: seen.append(tile.shape) or tile, image, (16,) * ndim)
    np.testing.assert_allclose(made, image, atol=1e-5)
    assert set(seen) == {(*(16,) * ndim, 2)}


def test_tiles_of_an_enlargement_lie_where_the_whole_would():
    image = np.random.default_rng(0).normal(size=(30, 21, 1)).astype(np.float32)
    def enlarge(tile):
        return tile.repeat(2, 0).repeat(3, 1)
    np.testing.assert_allclose(tiled(enlarge, image, (16, 16)), enlarge(image), atol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A network that has just begun: what it makes is near its input."""
    workdir = tmp_path_factory.mktemp("runs") / "begun"
    code, _, err = command("train.py", *SMALL, "--config.steps=1", f"--workdir={workdir}")
    assert code == 0, err
    return workdir


def apply(workdir: Path, source: Path, target: Path) -> tuple[int, str]:
    code, _, err = command("-m", "medjax.apply", f"--workdir={workdir}", f"--input={source}", f"--output={target}")
    return code, err


def test_nifti_and_pictures_keep_place_geometry_and_type(trained, tmp_path):
    folder = tmp_path / "in"
    (folder / "sub-01").mkdir(parents=True)
    affine = np.array([[-1.5, 0.1, 0, 3], [0.1, 1.5, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1.0]])
    volume = np.random.default_rng(0).integers(0, 200, (30, 26, 4)).astype(np.int16)
    nibabel.Nifti1Image(volume, affine).to_filename(folder / "sub-01" / "t1.nii.gz")
    Image.fromarray(volume[:, :, 0].astype(np.uint8)).save(folder / "xray.png")
    code, err = apply(trained, folder, tmp_path / "out")
    assert code == 0, err
    made = nibabel.load(tmp_path / "out" / "sub-01" / "t1.nii.gz")
    np.testing.assert_allclose(made.affine, affine, atol=1e-5)
    assert made.get_data_dtype() == np.int16
    assert np.corrcoef(np.asarray(made.dataobj).ravel(), volume.ravel())[0, 1] > 0.9
    with Image.open(tmp_path / "out" / "xray.png") as picture:
        assert picture.size == (26, 30)


def test_a_failure_leaves_nothing_behind(trained, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8) + np.arange(20, dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)).save(folder / "colour.png")
    code, err = apply(trained, folder, tmp_path / "out")
    assert code == 2
    assert "error: colour: has 3 channels and the model was trained on 1" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
    code, err = apply(trained, folder / "a.png", tmp_path / "a.nii")
    assert code == 2
    assert "ends in .png" in err
