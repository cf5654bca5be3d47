"""Values of each image on a scale of its own: the same numbers in training and use, and results in the file's units."""

import nibabel
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from configs import base
from medjax import apply
from medjax.data.normalise import UNITS, normalised
from medjax.train.loop import train
from medjax.train.run import load_config, load_splits
from medjax.types import Record, UserError


def scanned(gain: float, seed: int = 0, size: int = 20) -> np.ndarray:
    """A smooth head `(size, size, size)` float32 from a scanner of a certain gain."""
    place = np.linalg.norm(np.stack(np.meshgrid(*(np.linspace(-1, 1, size),) * 3, indexing="ij")), axis=0)
    return np.float32(gain * (np.maximum(1 - place, 0) + 0.05 * np.random.default_rng(seed).random(place.shape)))


def record(values: np.ndarray, **given) -> Record:
    return Record(values[..., None], "a", "a", **given)


def test_a_volume_has_the_same_values_whatever_its_gain_and_goes_back():
    one, back = normalised(record(scanned(3.0)), "volume")
    other, _ = normalised(record(scanned(1e6), slope=-2.0, intercept=7.0), "volume")
    np.testing.assert_allclose(np.percentile(one.in_units(), (1, 99)), (0, 1), atol=1e-4)
    np.testing.assert_allclose(other.in_units(), 1 - one.in_units(), atol=0.02)  # its own percentiles, from the other end
    np.testing.assert_allclose(back(one.in_units()), scanned(3.0)[..., None], rtol=1e-4, atol=1e-4)
    assert one.units == other.units == UNITS
    same, identity = normalised(record(scanned(3.0)), "none")
    assert not same.units
    assert identity(np.ones(2)).tolist() == [1, 1]


def test_the_mask_says_what_counts_and_a_nearly_empty_image_has_its_own_range():
    mask = np.zeros((20, 20, 20, 1), bool)
    mask[5:15, 5:15, 5:15] = True
    padded = np.where(mask[..., 0], scanned(3.0), -2000)
    found, _ = normalised(record(padded, extras={"mask": mask}), "volume")
    assert np.percentile(found.in_units()[mask], 1) == pytest.approx(0, abs=1e-4)
    sparse = np.zeros((20, 20, 20), np.float32)
    sparse[4, 4, 4] = 8
    found, _ = normalised(record(sparse), "volume")
    assert (found.in_units().min(), found.in_units().max()) == (0, 1)


MISTAKES = {
    "another word": (record(scanned(1.0)), "slice", "config.data.normalise: unknown 'slice'"),
    "one value": (record(np.ones((4, 4, 4), np.float32)), "volume", "a: has the value 1 everywhere"),
    "raw data": (record(scanned(1.0), extras={"kspace": np.ones((4, 4, 4, 2))}), "volume", "a is a kspace"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case):
    given, how, line = MISTAKES[case]
    with pytest.raises(UserError, match=line):
        normalised(given, how)


def test_a_run_takes_scans_of_any_gain_and_gives_results_in_their_units(tmp_path):
    data = tmp_path / "scans"
    data.mkdir()
    for i in range(4):
        nibabel.Nifti1Image(scanned(10.0**i, i), np.eye(4)).to_filename(data / f"{i}.nii.gz")
    config = base.get_config(task="denoise", model="unet", source="files")
    config.update({"steps": 2, "batch_size": 2, "eval_every": 2, "eval_samples": 1, "checkpoint_every": 2,
                   "references": ("none",)})
    config.model.update({"width": 4, "depth": 2, "norm": "none"})
    config.mesh.data = 1
    config.data.update({"patch": (16, 16), "path": str(data), "normalise": "volume", "fractions": (0.5, 0.25, 0.25)})
    values = [region.record.in_units() for regions in load_splits(config).values() for region in regions]
    assert max(v.max() for v in values) < 2
    train(config, tmp_path / "run")
    low, high = load_config(tmp_path / "run").data.range
    assert -0.5 < low < high < 2

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    found = []
    for gain in (1.0, 1e5):  # 1e5 is in no training image
        source, target = (tmp_path / f"{name}{gain:g}.nii.gz" for name in ("in", "out"))
        nibabel.Nifti1Image(scanned(gain, 9), np.eye(4)).to_filename(source)
        with flagsaver.flagsaver(workdir=str(tmp_path / "run"), input=[str(source)], output=str(target)):
            apply.main()
        found.append(np.asarray(nibabel.nifti1.load(target).dataobj) / gain)
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
    assert np.corrcoef(found[0].ravel(), scanned(1.0, 9).ravel())[0, 1] > 0.9
