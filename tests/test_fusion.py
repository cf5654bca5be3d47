"""Several contrasts of one subject: reading them, fusing them, and what a fused image keeps."""

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from skimage.measure import shannon_entropy

from medjax.classical import fuse as classical
from medjax.data.sources.icbm152_contrasts import Icbm152Contrasts, spin_echo
from medjax.data.sources.multicontrast import MultiContrast
from medjax.infer import inputs
from medjax.measures import fusion
from medjax.models.fusion import Fusion
from medjax.objectives.supervised import Supervised
from medjax.tasks.fuse import Fuse
from medjax.tasks.fuse_image import FuseImage
from medjax.tasks.translate import Translate
from medjax.types import Example, NetworkInput, Record, Region, UserError
from tests.test_gan import KEY, RANGE, learn, make_batch

NAMES = ("T1", "T2", "FLAIR")


def write(path, shape=(6, 7, 8), affine=None, seed=0):
    values = np.random.default_rng(seed).integers(0, 200, shape).astype(np.uint8)
    nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine).to_filename(path)
    return values


def test_files_of_one_grid_become_the_channels_of_a_record(tmp_path):
    for subject in ("anna", "ben"):
        (tmp_path / subject).mkdir()
        stored = [write(tmp_path / subject / f"{name}.nii.gz", seed=i) for i, name in enumerate(NAMES)]
    records = MultiContrast(str(tmp_path / "*" / "{contrast}.nii.gz"), NAMES).load()
    assert [r.subject for r in records] == ["anna", "ben"]
    assert records[0].image.shape == (8, 7, 6, 3)
    assert records[0].contrasts == NAMES
    units = records[1].image[..., 1] * records[1].slope
    expected = stored[1].transpose(2, 1, 0)[:, :, ::1] / np.percentile(stored[1], 99.9)
    np.testing.assert_allclose(units, expected, atol=2e-4)


def test_contrasts_on_other_grids_and_missing_ones_are_named(tmp_path):
    source = MultiContrast(str(tmp_path / "{contrast}.nii.gz"), ("T1", "T2"))
    with pytest.raises(UserError, match=r"no file .*T1\.nii\.gz"):
        source.load()
    write(tmp_path / "T1.nii.gz")
    with pytest.raises(UserError, match=r"T2\.nii\.gz: no such file"):
        source.load()
    write(tmp_path / "T2.nii.gz", affine=np.diag([1, 1, 1.1, 1]))
    with pytest.raises(UserError, match="not on the grid of T1"):
        source.load()
    with pytest.raises(UserError, match="pattern"):
        MultiContrast(str(tmp_path)).load()


def test_the_built_in_head_shows_fluid_dark_in_flair_and_bright_in_t2():
    (record,) = Icbm152Contrasts(("T2", "FLAIR")).load()
    fluid = record.image[95, 85:125, 90:107]  # the lateral ventricles
    assert fluid[..., 0].max() * record.slope > 0.9
    assert fluid[..., 1].min() * record.slope < 0.35
    with pytest.raises(UserError, match="CT"):
        Icbm152Contrasts(("CT",)).load()
    # An inversion time of T1 * ln 2 nulls a tissue that recovers wholly.
    assert spin_echo(1e9, 0, inversion=1400 * np.log(2))[0] == pytest.approx(0, abs=1e-9)


def test_real_contrasts_are_one_record(test_data):
    (record,) = MultiContrast(str(test_data / "nifti" / "stroke_{contrast}.nii.gz"), NAMES).load()
    assert record.image.shape == (140, 160, 124, 3)
    assert record.id == "stroke"


def splits(channels: int, *contrasts: str):
    record = Record(np.zeros((20, 8, 8, channels), np.uint8), "a", "a", contrasts=contrasts)
    return {"train": [Region.whole(record)]}


def test_contrasts_are_known_by_name():
    assert Fuse(RANGE, 2).resolve_from_data(splits(3, *NAMES)) == {"contrasts": NAMES}
    assert Translate(RANGE, 2, ("0",), "1").resolve_from_data(splits(2))["contrasts"] == ("0", "1")
    with pytest.raises(UserError, match="no contrast FLAIR; they have T1, PD"):
        Translate(RANGE, 2).resolve_from_data(splits(2, "T1", "PD"))
    with pytest.raises(UserError, match="among the sources"):
        Translate(RANGE, 2, ("T1",), "T1").resolve_from_data(splits(2, "T1", "PD"))
    with pytest.raises(UserError, match="leave one"):
        Fuse(RANGE, 2, absent=NAMES).resolve_from_data(splits(3, *NAMES))


def test_an_input_that_is_not_given_is_named_with_what_to_type(tmp_path):
    task = Translate(RANGE, 2, ("T1", "T2"), "PD")
    with pytest.raises(UserError, match=r"^--input: 'a\.nii'; the model takes T1, T2: give --input=NAME:PATH for each, and "
                       "--missing=NAME"):
        inputs.parse(["a.nii"], task)
    with pytest.raises(UserError, match=r"^--input: nothing is given for T2; give --input=T2:PATH, or say .*--missing=T2$"):
        inputs.gather(inputs.parse([f"T1:{tmp_path}"], task), task, ())


def test_the_intensity_curve_finds_a_function_of_intensity():
    image = np.tile(np.arange(256, dtype=np.uint8)[:, None, None, None], (1, 8, 8, 2))
    image[..., 1] = 255 - image[..., 0]
    task = Translate((0.0, 255.0), 2, ("a",), "b")
    resolved = task.resolve_from_data({"train": [Region.whole(Record(image, "x", "x", contrasts=("a", "b")))]})
    task = Translate((0.0, 255.0), 2, ("a",), "b", **resolved)
    x = np.linspace(0, 1, 11, dtype=np.float32).reshape(1, 1, 11, 1)
    example = Example(NetworkInput(x), 1 - x, np.ones(x.shape, bool), np.zeros(1, np.uint32), np.full((1, 2), np.nan))
    np.testing.assert_allclose(task.references()["curve"].run(example, 1.0), 1 - x, atol=0.02)


def test_some_contrasts_are_missing_in_training_but_never_all():
    batch = make_batch((8, 8), channels=3, count=64)
    task = Fuse(RANGE, 2, strength=0.0, missing=0.7, absent=("T2",), contrasts=NAMES)
    there = np.asarray((task.example(KEY, batch).input.image != 0).any((1, 2)))
    assert there.any(1).all()
    assert 0.25 < there.mean() < 0.5
    evaluated = task.evaluation_example(KEY, batch)
    np.testing.assert_array_equal((evaluated.input.image != 0).any((1, 2)), np.tile([True, False, True], (64, 1)))
    np.testing.assert_array_equal(evaluated.target[..., 0], batch["image"][..., 2])


@pytest.mark.slow
@pytest.mark.parametrize(("fusion", "ndim", "dtype"), [("early", 2, "float32"), ("late", 3, "bfloat16"),
                                                       ("attention", 2, "float32")])
def test_fusion_overfits_a_batch(fusion, ndim, dtype):
    task = Fuse(RANGE, ndim, missing=0.0, contrasts=("a", "FLAIR"))
    model = Fusion(ndim, 1, (1,) * ndim, modalities=2, fusion=fusion, width=4, depth=1, dtype=dtype)
    *_, logs = learn(task, Supervised(task, model), make_batch((16,) * ndim, channels=2), 40, lr=1e-2)
    assert logs[-1]["model/loss"] < 0.2 * logs[0]["model/loss"]


def test_late_fusion_gives_a_missing_contrast_no_weight():
    model = Fusion(2, 1, (1, 1), modalities=2, fusion="late", width=4, depth=1)
    x = make_batch((8, 8), channels=2)["image"]
    params = jax.jit(model.init)(KEY, x)
    apply = jax.jit(model.apply)
    both = apply(params, x)
    alone = [apply(params, x * (jnp.arange(2) == m).reshape(1, 1, 1, 2)) for m in range(2)]
    np.testing.assert_allclose(both, (alone[0] + alone[1]) / 2, atol=1e-5)


def test_more_contrasts_than_the_model_fuses_are_refused():
    with pytest.raises(UserError, match="fuses 2 contrasts and the images have 3"):
        jax.eval_shape(Fusion(2, 1, (1, 1), modalities=2).init, KEY, jnp.zeros((1, 8, 8, 3)))


@pytest.mark.slow
def test_fusion_scores_agree_with_their_definitions():
    random = np.random.default_rng(0)
    fused, other = random.random((2, 1, 40, 40, 1)).astype(np.float32)
    other = (0.7 * fused + 0.3 * other).astype(np.float32)
    binned = np.floor(fused * 64)
    assert float(fusion.entropy(fused)[0]) == pytest.approx(shannon_entropy(binned), abs=1e-3)
    joint, _, _ = np.histogram2d(fused.ravel(), other.ravel(), 64, ((0, 1), (0, 1)))
    p = joint / joint.sum()
    expected = np.nansum(p * np.log2(np.where(p > 0, p, np.nan) / np.outer(p.sum(1), p.sum(0))))
    assert float(fusion.mutual_information(fused, other)[0]) == pytest.approx(expected, abs=2e-2)
    same = np.concatenate([fused, fused], -1)
    assert float(fusion.structure(fused, same)[0]) == pytest.approx(1, abs=1e-5)
    assert float(fusion.edges(fused, same)[0]) == pytest.approx(0.98, abs=0.02)
    flat = np.full_like(fused, 0.5)
    assert float(fusion.edges(flat, same)[0]) < 0.01
    mask = np.ones(fused.shape, bool)
    mask[:, 20:] = False
    half = fusion.entropy(fused[:, :20])
    np.testing.assert_allclose(fusion.entropy(fused, mask), half, atol=1e-4)


@pytest.mark.parametrize("name", ["average", "maximum", "wavelet"])
def test_classical_fusion_of_equal_images_is_that_image(name):
    image = np.random.default_rng(0).random((15, 17, 1)).astype(np.float32)
    np.testing.assert_allclose(getattr(classical, name)(np.repeat(image, 3, -1)), image, atol=1e-5)


def test_a_picture_of_all_contrasts_lowers_its_losses():
    task = FuseImage(RANGE, 2)
    model = Fusion(2, 1, (1, 1), modalities=2, fusion="early", width=4, depth=1)
    *_, logs = learn(task, Supervised(task, model, "intensity + edges"), make_batch((16, 16), channels=2), 40, lr=1e-2)
    assert logs[-1]["model/intensity"] < 0.2 * logs[0]["model/intensity"]
