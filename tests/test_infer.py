"""Whole images through tiles, and files through the command."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medjax.infer.progress import Progress
from medjax.infer.tiling import tiled
from tests.commands import command

SPACE = {2: (37, 50), 3: (19, 23, 12)}


@pytest.mark.parametrize("ndim", [2, 3])
def test_tiles_of_an_identity_make_the_image_again(ndim):
    image = np.random.default_rng(0).normal(size=(*SPACE[ndim], 2)).astype(np.float32)
    seen = []
    made = tiled(lambda tile: seen.append(tile["image"].shape) or tile, {"image": image}, (16,) * ndim)
    np.testing.assert_allclose(made["image"], image, atol=1e-5)
    assert set(seen) == {(*(16,) * ndim, 2)}


def test_tiles_of_an_enlargement_lie_where_the_whole_would():
    image = np.random.default_rng(0).normal(size=(30, 21, 1)).astype(np.float32)
    def enlarge(tile):
        return tile.repeat(2, 0).repeat(3, 1)
    made = tiled(lambda tile: {"image": enlarge(tile["image"])}, {"image": image}, (16, 16))
    np.testing.assert_allclose(made["image"], enlarge(image), atol=1e-5)


def apply(workdir: Path, source: Path, target: Path, *flags: str) -> tuple[int, str]:
    code, _, err = command("-m", "medjax.apply", f"--workdir={workdir}", f"--input={source}", f"--output={target}", *flags)
    return code, err


def test_nifti_and_pictures_keep_place_geometry_and_type(trained, tmp_path):
    folder = tmp_path / "in"
    (folder / "sub-01").mkdir(parents=True)
    affine = np.array([[-1.5, 0.1, 0, 3], [0.1, 1.5, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1.0]])
    volume = np.random.default_rng(0).integers(0, 200, (30, 26, 4)).astype(np.int16)
    nibabel.Nifti1Image(volume, affine).to_filename(folder / "sub-01" / "t1.nii.gz")
    Image.fromarray(volume[:, :, 0].astype(np.uint8)).save(folder / "xray.png")
    code, err = apply(trained, folder, tmp_path / "out")
    assert code == 2
    assert "its voxels are 3 x 1.5 x 1.5 mm, and the model was trained on 1 mm; resample it, or --accept=spacing" in err
    code, err = apply(trained, folder, tmp_path / "accepted", "--accept=spacing")
    assert code == 0, err
    made = nibabel.load(tmp_path / "accepted" / "sub-01" / "t1.nii.gz")
    np.testing.assert_allclose(made.affine, affine, atol=1e-5)
    assert made.get_data_dtype() == np.int16
    assert np.corrcoef(np.asarray(made.dataobj).ravel(), volume.ravel())[0, 1] > 0.9
    with Image.open(tmp_path / "accepted" / "xray.png") as picture:
        assert picture.size == (26, 30)


def test_what_is_done_stays_and_the_same_command_does_the_rest(trained, tmp_path):
    folder, target = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    grey = np.zeros((20, 20), np.uint8) + np.arange(20, dtype=np.uint8) * 9
    Image.fromarray(grey).save(folder / "a.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)).save(folder / "colour.png")
    code, err = apply(trained, folder, target)
    assert code == 2
    assert "skipped: colour: has 3 channels and the model was trained on 1" in err
    assert f"error: {target}: 1 of 2 studies were skipped" in err
    assert sorted(p.name for p in target.iterdir()) == ["a.png", "apply.json"]
    done = (target / "a.png").stat().st_mtime_ns
    Image.fromarray(grey.T).save(folder / "colour.png")
    code, err = apply(trained, folder, target)
    assert code == 0, err
    assert sorted(p.name for p in target.iterdir()) == ["a.png", "apply.json", "colour.png"]
    assert (target / "a.png").stat().st_mtime_ns == done
    assert "colour" not in (target / "apply.json").read_text()
    code, err = apply(trained, folder, target, "--rescale=range")
    assert code == 2
    assert "holds results of another run or of other flags" in err


@pytest.mark.slow
def test_one_file_gets_the_name_it_is_given_and_nothing_is_replaced(trained, tmp_path):
    Image.fromarray(np.zeros((20, 20), np.uint8) + np.arange(20, dtype=np.uint8) * 9).save(tmp_path / "a.png")
    code, err = apply(trained, tmp_path / "a.png", tmp_path / "a.nii")
    assert code == 2
    assert "ends in .png" in err
    code, err = apply(trained, tmp_path / "a.png", tmp_path / "a.png")
    assert code == 2
    assert "a.png: is there already; name a new file or folder" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]


def test_progress_is_told_of_every_part_of_parts():
    told, progress = [], Progress()
    progress.restart(told.append)
    for _ in progress.parts(["a", "b"]):
        for _ in progress.parts(range(2)):
            image = np.zeros((20, 5, 1), np.float32)
            tiled(lambda tile: tile, {"image": image}, (16, 16), progress=progress)
    np.testing.assert_allclose([share for i, share in enumerate(told) if share not in told[:i]], np.arange(1, 9) / 8)
    assert told == sorted(told)
