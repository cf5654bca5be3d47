"""Weights that others trained: files in, runs out, and back; what does not fit is named."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medjax import registry
from medjax.infer.predict import make_predict
from medjax.train.converted import give_back
from medjax.train.run import load_config, lock_workdir, restore_best
from medjax.types import Record, UserError
from medjax.weights import _files as files
from medjax.weights._table import Family, find
from tests.commands import ROOT, command
from tests.converted import convert, output

FAMILIES = registry.modules("weights")


def arrays(**shapes) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name.replace("__", "."): random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def fastmri(width=2, channels=1) -> dict[str, np.ndarray]:
    """A U-Net of fastMRI of two levels, as its package names it."""
    wide = 2 * width
    return arrays(**{
        "down_sample_layers.0.layers.0.weight": (width, channels, 3, 3),
        "down_sample_layers.0.layers.4.weight": (width, width, 3, 3),
        "conv.layers.0.weight": (wide, width, 3, 3), "conv.layers.4.weight": (wide, wide, 3, 3),
        "up_conv.0.0.layers.0.weight": (width, wide, 3, 3), "up_conv.0.0.layers.4.weight": (width, width, 3, 3),
        "up_conv.0.1.weight": (channels, width, 1, 1), "up_conv.0.1.bias": (channels,),
        "up_transpose_conv.0.layers.0.weight": (wide, width, 2, 2)})


@pytest.fixture
def unet(tmp_path) -> Path:
    """Its file."""
    save_file(fastmri(), tmp_path / "unet.safetensors")
    return tmp_path / "unet.safetensors"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_the_contract(name):
    family = find(name)
    assert isinstance(family, Family)
    file = ROOT / family.CONFIG.partition(":")[0]
    assert file.exists(), family.CONFIG
    assert "\n" not in family.PREPARATION


def test_a_file_becomes_a_run_and_the_run_the_file(unet, tmp_path):
    made = convert("fastmri_unet", unet, tmp_path / "run")
    config = load_config(tmp_path / "run")
    assert (config.model.width, config.model.depth, config.data.channels, config.task.name) == (2, 2, 1, "mri_recon")
    assert made.parameters == sum(array.size for array in fastmri().values())
    image = jax.random.normal(jax.random.key(0), (1, 8, 12, 1))
    y = output(tmp_path / "run", image)
    # Each image is standardised: its scale and offset come back.
    np.testing.assert_allclose(output(tmp_path / "run", 3 * image + 7), 3 * y + 7, rtol=1e-3, atol=1e-3)
    give_back(tmp_path / "run", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == fastmri().keys()
    for name, array in fastmri().items():
        np.testing.assert_array_equal(back[name], array)


def test_magnitudes_go_into_fastmris_network_and_come_out(unet, tmp_path):
    convert("fastmri_unet", unet, tmp_path / "run", data__range=(0.0, 1.0))
    run, _ = restore_best(tmp_path / "run")
    rows = jnp.ones((2,), jnp.float32)
    batch = {"image": jax.random.uniform(jax.random.key(0), (2, 16, 12, 1)), "slope": rows, "intercept": 0 * rows,
             "count": rows, "id": jnp.arange(2, dtype=jnp.uint32)}
    example = jax.eval_shape(run.task.example, jax.random.key(1), batch)
    assert example.input.image.shape == example.target.shape == (2, 16, 12, 1)
    with pytest.raises(UserError, match=r"config\.task\.held_out: 0\.1, but k-space does not follow from magnitudes"):
        convert("fastmri_unet", unet, tmp_path / "other", task__held_out=0.1)


def test_what_training_code_puts_around_the_names_is_taken_off(unet, tmp_path):
    wrapped = {f"module.unet.{name}": array for name, array in fastmri().items()} | {"module.loss.w": np.ones(3, np.float32)}
    save_file(wrapped, tmp_path / "wrapped.safetensors")
    convert("fastmri_unet", tmp_path / "wrapped.safetensors", tmp_path / "run")
    image = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
    convert("fastmri_unet", unet, tmp_path / "plain")
    np.testing.assert_array_equal(output(tmp_path / "run", image), output(tmp_path / "plain", image))


FIRST = "down_sample_layers.0.layers.0.weight"
BIAS = "up_conv.0.1.bias"


@pytest.mark.parametrize(("change", "given", "said"), [
    ({}, {"model__width": 4}, rf"{FIRST} has shape (2, 1, 3, 3), and the network needs (4, 1, 3, 3): give "
                              "--config.model.width=2"),
    ({BIAS: None}, {}, f"has no {BIAS}, and the network needs it with shape (1,)"),
    ({BIAS: (3,)}, {}, f"{BIAS} has shape (3,), and the network needs (1,)"),
    ({"head.weight": (5, 4)}, {}, "has head.weight with shape (5, 4), for which the network has no place"),
    ({FIRST: None}, {}, f"has no {FIRST}, so it has no weights of fastMRI's U-Net"),
])
def test_the_first_array_that_differs_is_named(change, given, said, tmp_path):
    found = fastmri()
    for name, shape in change.items():
        found.pop(name, None)
        if shape:
            found[name] = np.zeros(shape, np.float32)
    file = tmp_path / "other.safetensors"
    save_file(found, file)
    with pytest.raises(UserError, match=f"^{re.escape(f'{file}: {said}')}") as caught:
        convert("fastmri_unet", file, tmp_path / "run", **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_weights_are_refused(tmp_path, monkeypatch):
    for name in ("a.safetensors", "a.mpk", "a.pt", "a.onnx"):
        (tmp_path / name).write_bytes(b"hello")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    for name, said in {"a.safetensors": "can't be read as .safetensors", "a.mpk": "can't be read as .mpk",
                       "a.pt": "needs PyTorch to be read: pip install torch, or save the weights as .safetensors",
                       "a.onnx": "is no file of weights; give .safetensors, .pt, .pth, .ckpt, .mpk",
                       "b.pt": "no such file"}.items():
        with pytest.raises(UserError, match=re.escape(said)):
            files.read(tmp_path / name)
    with pytest.raises(UserError, match=r"--to: .*a\.onnx has another ending than \.safetensors, \.mpk"):
        files.write(tmp_path / "a.onnx", {})


def test_runs_of_other_networks_are_not_given_back(unet, tmp_path):
    convert("fastmri_unet", unet, tmp_path / "run")
    with pytest.raises(UserError, match=r"its network has no params/ConvNormAct_0/Conv_0/bias, which goes to conv_0"):
        give_back(tmp_path / "run", tmp_path / "back.safetensors", "monai_basicunet")
    with pytest.raises(UserError, match="unknown 'unet'; choose from cyclegan"):
        give_back(tmp_path / "run", tmp_path / "back.safetensors", "unet")
    with pytest.raises(UserError, match="holds a run already; name another --workdir"):
        convert("fastmri_unet", unet, tmp_path / "run")
    with (pytest.raises(UserError, match=r"converted weights.*--config\.init_workdir="), lock_workdir(tmp_path / "run")):
        pass


def test_generators_have_the_names_of_the_originals_code(tmp_path):
    """pytorch-CycleGAN-and-pix2pix is no package: its names are those of its files of weights."""
    kernels = {"model.1": (2, 3, 7, 7), "model.4": (4, 2, 3, 3), "model.7": (8, 4, 3, 3),
               "model.10.conv_block.1": (8, 8, 3, 3), "model.10.conv_block.5": (8, 8, 3, 3), "model.11": (8, 4, 3, 3),
               "model.14": (4, 2, 3, 3), "model.18": (3, 2, 7, 7)}
    made = {"model.11": 4, "model.14": 2}
    shapes = {f"{name}.weight": shape for name, shape in kernels.items()}
    shapes |= {f"{name}.bias": (made.get(name, shape[0]),) for name, shape in kernels.items()}
    found = arrays(**shapes)
    old = {"model.2.running_mean": np.zeros(2, np.float32)}
    save_file(found | old, tmp_path / "netG.safetensors")
    convert("cyclegan", tmp_path / "netG.safetensors", tmp_path / "run")
    config = load_config(tmp_path / "run")
    assert (config.task.name, config.data.channels, config.model.blocks, tuple(config.data.range)) == (
        "enhance", 3, 1, (0.0, 255.0))
    give_back(tmp_path / "run", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == found.keys()
    assert all(np.array_equal(back[name], found[name]) for name in found)


def test_pix2pix_of_one_contrast_translates(tmp_path):
    """Three levels; the innermost has one normalisation, the finest none."""
    level, inside = "model.model.1.model.", "model.model.1.model.3.model."
    shapes = {"model.model.0.weight": (2, 1, 4, 4), f"{level}1.weight": (4, 2, 4, 4), f"{inside}1.weight": (8, 4, 4, 4),
              f"{inside}3.weight": (8, 4, 4, 4), f"{level}5.weight": (8, 2, 4, 4), "model.model.3.weight": (4, 1, 4, 4),
              "model.model.3.bias": (1,)}
    for name, wide in {f"{level}2": 4, f"{inside}4": 4, f"{level}6": 2}.items():
        shapes |= {f"{name}.{entry}": (wide,) for entry in ("weight", "bias", "running_mean", "running_var")}
    found = arrays(**shapes)
    found |= {name.replace("running_var", "num_batches_tracked"): np.array(9) for name in found if "running_var" in name}
    save_file(found, tmp_path / "netG.safetensors")
    convert("pix2pix", tmp_path / "netG.safetensors", tmp_path / "run", task__source=("T1",), task__target="FLAIR")
    config = load_config(tmp_path / "run")
    assert (config.task.name, config.task.source, config.task.target) == ("translate", ["T1"], "FLAIR")
    assert (config.model.depth, config.model.width) == (3, 2)
    give_back(tmp_path / "run", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == found.keys()
    assert all(np.array_equal(back[name], found[name]) for name in found)


def dncnn() -> dict[str, np.ndarray]:
    """A DnCNN of SCICO of four layers."""
    found = arrays(**{"params/conv_start/kernel": (3, 3, 1, 4), "params/conv_end/kernel": (3, 3, 4, 1)})
    for i in range(2):
        block = f"ConvBNBlock_{i}"
        found |= arrays(**{f"params/{block}/Conv_0/kernel": (3, 3, 4, 4),
                           **{f"params/{block}/BatchNorm_0/{name}": (4,) for name in ("scale", "bias")},
                           **{f"batch_stats/{block}/BatchNorm_0/{name}": (4,) for name in ("mean", "var")}})
    return {name: np.abs(array) if name.endswith("var") else array for name, array in found.items()}


def test_scico_weights_are_written_as_its_code_reads_them(tmp_path):
    found = dncnn()
    files.write(tmp_path / "dncnn.mpk", found)
    convert("scico_dncnn", tmp_path / "dncnn.mpk", tmp_path / "run")
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 1))
    y = output(tmp_path / "run", x)
    np.testing.assert_allclose(output(tmp_path / "run", jnp.roll(x, 2, 1)), jnp.roll(y, 2, 1), atol=1e-5)  # circular
    give_back(tmp_path / "run", tmp_path / "back.mpk")
    back = files.read(tmp_path / "back.mpk")
    assert back.keys() == found.keys()
    assert all(np.array_equal(back[name], found[name]) for name in found)


def test_the_command_says_what_it_has_made_and_what_comes_next(unet, tmp_path):
    code, said, err = command("-m", "medjax.convert", "--from=fastmri_unet", f"--weights={unet}",
                              f"--workdir={tmp_path / 'run'}", "--config.references=('none',)")
    assert code == 0, err
    assert "weights  fastMRI's U-Net, 413 parameters, from" in said
    assert said.endswith(f"written: {tmp_path / 'run'}\nnext: python -m medjax.apply --workdir={tmp_path / 'run'} "
                         "--input=FILE_OR_FOLDER --output=RESULT\n")
    assert load_config(tmp_path / "run").references == ["none"]
    assert json.loads((tmp_path / "run" / "weights.json").read_text())["family"] == "fastmri_unet"


def foam() -> np.ndarray:
    """The phantom of SCICO's `denoise_dncnn_universal.py`, 512 x 512: a disc with 300 round holes.

    xdesign 0.5.5 draws it, `Foam(size_range=[0.075, 0.0025], gap=1e-3, porosity=1)` after `np.random.seed(1234)`; its
    circles are in foam.csv, in 1e-6 of the side. A pixel is the mean of 9 x 9 points.
    """
    size, finer = 512, 9
    at = (np.arange(size * finer) + 0.5) / (size * finer) - 0.5
    image = (np.square(at[:, None]) + np.square(at) <= 0.25).astype(np.float32)
    for x, y, radius in np.loadtxt(Path(__file__).with_name("foam.csv"), delimiter=",", skiprows=1) / 1e6:
        rows, columns = (slice(*np.searchsorted(at, (middle - radius, middle + radius))) for middle in (x, y))
        image[rows, columns][np.square(at[rows, None] - x) + np.square(at[columns] - y) <= radius**2] = 0
    return image.reshape(size, finer, size, finer).mean((1, 3))


def psnr(image, truth) -> float:
    return float(-10 * np.log10(np.mean(np.square(np.asarray(image, float) - truth))))


def test_scico_dncnn_denoises_as_its_authors_say(test_data, tmp_path):
    """SCICO's example prints, for 17L and noise of 0.06: 24.44 dB in, 33.87 dB out, values clipped to 0 … 1."""
    convert("scico_dncnn", test_data / "patients" / "scico" / "dncnn17L.mpk", tmp_path / "run")
    run, state = restore_best(tmp_path / "run")
    truth = foam()
    noisy = truth + 0.06 * np.asarray(jax.random.normal(jax.random.PRNGKey(0), truth.shape))
    found = make_predict(run, state)(Record(noisy[..., None], "foam", "foam"))
    assert psnr(noisy, truth) == pytest.approx(24.44, abs=0.05)
    assert psnr(np.clip(found.image[..., 0], 0, 1), truth) == pytest.approx(33.87, abs=0.05)


PHANTOMS = ("--config.data.source.kind=brain", "--config.data.source.shape=(40,40)", "--config.data.source.count=20",
            "--config.references=('median',)")


@pytest.mark.slow
def test_a_converted_run_is_evaluated_applied_and_trained_on(tmp_path):
    found = dncnn()
    files.write(tmp_path / "dncnn.mpk", found)
    code, _, err = command("-m", "medjax.convert", "--from=scico_dncnn", f"--weights={tmp_path / 'dncnn.mpk'}",
                           f"--workdir={tmp_path / 'run'}", "--config=configs/quickstart.py:model=dncnn,source=phantoms",
                           *PHANTOMS)
    assert code == 0, err
    code, said, err = command("eval.py", f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    assert "evaluating the checkpoint of step 0" in said
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((32, 16), np.float32))
    code, _, err = command("-m", "medjax.apply", f"--workdir={tmp_path / 'run'}", f"--input={tmp_path / 'image.npy'}",
                           f"--output={tmp_path / 'made.npy'}")
    assert code == 0, err
    expected = output(tmp_path / "run", jnp.asarray(np.load(tmp_path / "image.npy"))[None, ..., None])
    np.testing.assert_allclose(np.load(tmp_path / "made.npy"), expected[0, ..., 0], atol=1e-5)
    train = ("train.py", "--config=configs/quickstart.py:model=dncnn,source=phantoms", *PHANTOMS, "--config.steps=1",
             "--config.optim.lr=0.0", "--config.data.patch=(24,24)", f"--config.init_workdir={tmp_path / 'run'}",
             f"--workdir={tmp_path / 'more'}", "--config.task.noise=gaussian", "--config.data.range=(0.0,1.0)")
    code, _, err = command(*train)
    assert code == 2
    assert err.startswith("error: config.init_workdir: model/ConvNormAct_0/Conv_0/bias is nothing there and (64,) in this")
    assert not (tmp_path / "more").exists()
    assert "--config.model.features='(4, 4, 4)'" in err
    assert "--config.model.padding=circular" in err
    model = ("--config.model.features=(4,4,4)", "--config.model.kernels=(3,3,3,3)", "--config.model.bias=False",
             "--config.model.padding=circular")
    code, _, err = command(*train, *model)
    assert code == 0, err
    code, _, err = command("-m", "medjax.convert", "--family=scico_dncnn", f"--workdir={tmp_path / 'more'}",
                           f"--to={tmp_path / 'back.safetensors'}")
    assert code == 0, err
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == found.keys()
    for name, array in found.items():  # a step of length 0 changes the statistics alone
        assert np.allclose(back[name], array, atol=1e-6) == name.startswith("params/"), name
