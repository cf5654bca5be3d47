"""nnU-Net's networks: its files of weights, whose layers are written again here, its plans, and settings that don't fit."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from jax import lax
from safetensors.numpy import load_file, save_file

from medjax import registry
from medjax.train.converted import give_back
from medjax.train.run import load_config, restore_best
from medjax.types import UserError
from medjax.weights._table import find
from tests.commands import command
from tests.converted import convert

CHANNELS, CLASSES, WIDTHS = 2, 3, (2, 3, 4, 4)
KERNELS = ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))
STRIDES = ((1, 1, 1), (1, 2, 2), (2, 2, 1), (1, 2, 2))
BLOCKS, DECODER = (1, 2, 1, 1), (1, 2, 1)  # of each stage, the finest first
DEPTH = len(WIDTHS)
RANDOM = np.random.default_rng(0)


def unit(wide_in: int, wide: int, kernel: tuple[int, ...], bias: bool = True) -> dict[str, np.ndarray]:
    """A convolution with its normalisation, which the original has under two names."""
    arrays = {"weight": RANDOM.normal(size=(wide, wide_in, *kernel)) / np.sqrt(wide_in * np.prod(kernel))}
    arrays |= {"bias": RANDOM.normal(size=wide)} if bias else {}
    normal = {"weight": RANDOM.uniform(0.5, 1.5, wide), "bias": RANDOM.normal(size=wide)}
    return {f"{name}.{key}": value for name, found in (("conv", arrays), ("norm", normal), ("all_modules.0", arrays),
                                                       ("all_modules.1", normal)) for key, value in found.items()}


def below(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}.{key}": value for key, value in arrays.items()}


def weights(encoder: str) -> dict[str, np.ndarray]:
    """Those of a network, as `network_weights` of nnU-Net's checkpoints has them."""
    inside, wide_in = {}, CHANNELS
    if encoder == "residual":
        inside |= below("stem.convs.0", unit(CHANNELS, WIDTHS[0], KERNELS[0]))
        wide_in = WIDTHS[0]
    for level, (wide, kernel, count) in enumerate(zip(WIDTHS, KERNELS, BLOCKS, strict=True)):
        for i in range(count):
            if encoder == "plain":
                inside |= below(f"stages.{level}.0.convs.{i}", unit(wide_in, wide, kernel))
            else:
                block = below("conv1", unit(wide_in, wide, kernel)) | below("conv2", unit(wide, wide, kernel))
                if wide_in != wide:
                    block |= below("skip.1", unit(wide_in, wide, (1, 1, 1), bias=False))
                inside |= below(f"stages.{level}.blocks.{i}", block)
            wide_in = wide
    decoder = {}
    for there, level in enumerate(reversed(range(DEPTH - 1))):
        wide, step = WIDTHS[level], STRIDES[level + 1]
        for i in range(DECODER[level]):
            decoder |= below(f"stages.{there}.convs.{i}", unit(wide if i else 2 * wide, wide, KERNELS[level]))
        decoder |= {f"transpconvs.{there}.weight": RANDOM.normal(size=(WIDTHS[level + 1], wide, *step)),
                    f"transpconvs.{there}.bias": RANDOM.normal(size=wide),
                    f"seg_layers.{there}.weight": RANDOM.normal(size=(CLASSES, wide, 1, 1, 1)),
                    f"seg_layers.{there}.bias": RANDOM.normal(size=CLASSES)}
    found = below("encoder", inside) | below("decoder.encoder", inside) | below("decoder", decoder)
    return {name: value.astype(np.float32) for name, value in found.items()}


class Original:
    """The network on images `(B, C, D, H, W)`, in JAX's own functions."""

    def __init__(self, state: dict[str, np.ndarray]):
        self.state = state

    def conv(self, name, x, stride=(1, 1, 1)):
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        y = lax.conv_general_dilated(x, weight, stride, [((k - 1) // 2,) * 2 for k in weight.shape[2:]])
        return y if bias is None else y + bias.reshape(1, -1, 1, 1, 1)

    def unit(self, name, x, stride=(1, 1, 1), active=True):
        x = self.conv(f"{name}.conv", x, stride)
        x = (x - x.mean((2, 3, 4), keepdims=True)) / jnp.sqrt(x.var((2, 3, 4), keepdims=True) + 1e-5)
        scale, bias = (self.state[f"{name}.norm.{key}"].reshape(1, -1, 1, 1, 1) for key in ("weight", "bias"))
        x = x * scale + bias
        return jnp.where(x > 0, x, 0.01 * x) if active else x

    def block(self, name, x, stride):
        y = self.unit(f"{name}.conv2", self.unit(f"{name}.conv1", x, stride), active=False)
        b, c, d, h, w = x.shape
        sd, sh, sw = stride
        x = x.reshape(b, c, d // sd, sd, h // sh, sh, w // sw, sw).mean((3, 5, 7))
        if f"{name}.skip.1.conv.weight" in self.state:
            x = self.unit(f"{name}.skip.1", x, active=False)
        return jnp.where(x + y > 0, x + y, 0.01 * (x + y))

    def up(self, name, x):
        y = jnp.einsum("bcdhw,coxyz->bodxhywz", x, self.state[f"{name}.weight"])
        return (y.reshape(*y.shape[:2], *(y.shape[i] * y.shape[i + 1] for i in (2, 4, 6)))
                + self.state[f"{name}.bias"].reshape(1, -1, 1, 1, 1))

    def __call__(self, x):
        """The outputs of all levels of the decoder, the finest first."""
        residual, skips, outputs = "encoder.stem.convs.0.conv.weight" in self.state, [], []
        if residual:
            x = self.unit("encoder.stem.convs.0", x)
        for level in range(DEPTH):
            for i in range(BLOCKS[level]):
                stride = (1, 1, 1) if i else STRIDES[level]
                name = f"encoder.stages.{level}"
                x = self.block(f"{name}.blocks.{i}", x, stride) if residual else self.unit(f"{name}.0.convs.{i}", x, stride)
            skips.append(x)
        skips.pop()
        for there, level in enumerate(reversed(range(DEPTH - 1))):
            x = jnp.concatenate([self.up(f"decoder.transpconvs.{there}", x), skips.pop()], 1)
            for i in range(DECODER[level]):
                x = self.unit(f"decoder.stages.{there}.convs.{i}", x)
            outputs.insert(0, self.conv(f"decoder.seg_layers.{there}", x))
        return outputs


def last(array):
    return np.moveaxis(array, 1, -1)


def model_of(workdir):
    run, state = restore_best(workdir)
    params, variables = state.for_use()
    return run.objective.model, {"params": params["model"], **variables["model"]}


@pytest.mark.parametrize("encoder", ["plain", "residual"])
def test_files_of_nnunet_become_runs_with_all_their_levels_and_go_back(encoder, tmp_path):
    state = weights(encoder)
    save_file(below("module", state), tmp_path / "weights.safetensors")
    made = convert("nnunet", tmp_path / "weights.safetensors", tmp_path / "run")
    assert made.parameters == sum(value.size for name, value in state.items()
                                  if not name.startswith("decoder.encoder") and "all_modules" not in name)
    model, variables = model_of(tmp_path / "run")
    x = RANDOM.normal(size=(1, CHANNELS, 4, 16, 8)).astype(np.float32)
    expected = jax.jit(Original(state))(x)

    @jax.jit
    def both(variables, x):
        return (model.apply(variables, x), *model.apply(variables, x, train=True, mutable=["coarse"]))

    used, finest, sown = both(variables, last(x))
    levels = [finest, *(output.image for output in sown["coarse"]["outputs"])]
    assert len(levels) == DEPTH - 2  # the lowest of the decoder has no weight in training
    for found, original in zip([used, *levels], [expected[0], *expected], strict=False):
        np.testing.assert_allclose(found, last(original), rtol=0, atol=1e-4 * np.abs(original).max())
    give_back(tmp_path / "run", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert list(back) == sorted(state)
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def plans(**changes) -> dict:
    """Of nnU-Net, for the plain network, beside other configurations."""
    given = {"n_stages": DEPTH, "features_per_stage": WIDTHS, "kernel_sizes": KERNELS, "strides": STRIDES,
             "n_conv_per_stage": BLOCKS, "n_conv_per_stage_decoder": DECODER[::-1], "conv_bias": True,
             "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin": "torch.nn.LeakyReLU",
             "nonlin_kwargs": {"inplace": True}}
    name = "dynamic_network_architectures.architectures.unet.PlainConvUNet"

    def configuration(patch: tuple[int, ...], **others) -> dict:
        return {"patch_size": patch, "normalization_schemes": ["CTNormalization"],
                "architecture": {"network_class_name": name, "arch_kwargs": given | changes | others}}

    return {"configurations": {"2d": configuration((32, 32), kernel_sizes=((3, 3),) * DEPTH),
                               "3d_lowres": configuration((8, 16, 16)), "3d_fullres": configuration((4, 16, 8)),
                               "3d_cascade_fullres": {"inherits_from": "3d_fullres"}},
            "foreground_intensity_properties_per_channel": {"0": {"mean": 40.0, "std": 60.0}}}


def trained_by_nnunet(folder: Path, said: dict, encoder: str = "plain") -> Path:
    """Its folder of results; the file of weights."""
    folder = folder / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(said))
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "posterior": 2, "anterior": 1}}))
    save_file(weights(encoder), folder / "fold_0" / "checkpoint_final.safetensors")
    return folder / "fold_0" / "checkpoint_final.safetensors"


def test_plans_near_the_weights_say_what_shapes_do_not(tmp_path):
    convert("nnunet", trained_by_nnunet(tmp_path, plans(nonlin="torch.nn.ReLU")), tmp_path / "run")
    config = load_config(tmp_path / "run")
    assert config.model.act == "relu"
    assert (config.data.patch, config.data.range) == ([4, 16, 8], [40.0, 100.0])
    assert config.task.classes == ["background", "anterior", "posterior"]


@pytest.mark.parametrize(("changes", "said"), [
    ({"features_per_stage": (8, 8, 8, 8)}, "plans.json: none of its configurations (2d, 3d_lowres, 3d_fullres) has the "
                                           "network of checkpoint_final.safetensors"),
    ({"nonlin": "torch.nn.GELU"}, "plans.json: its network has GELU(None) and a normalisation with eps 1e-05; nnunet has"),
    ({"nonlin_first": True}, "plans.json: its network has LeakyReLU(0.01) and a normalisation with eps 1e-05, after the"),
    ({"norm_op_kwargs": {"eps": 1e-3}}, "plans.json: its network has LeakyReLU(0.01) and a normalisation with eps 0.001;"),
])
def test_plans_of_other_networks_are_refused(changes, said, tmp_path):
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        convert("nnunet", trained_by_nnunet(tmp_path, plans(**changes)), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_file_with_other_blocks_is_refused(tmp_path):
    state = weights("residual") | below("encoder.stages.0.blocks.0.conv3", unit(2, 2, (1, 1, 1)))
    save_file({name: np.float32(value) for name, value in state.items()}, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"BottleneckD.*nnunet has those of two"):
        convert("nnunet", tmp_path / "weights.safetensors", tmp_path / "run")


@pytest.mark.parametrize(("changes", "said"), [
    ({"deep_supervision": 0}, "deep_supervision: 0, and nnU-Net's files have an output for each coarser level of the "
                              "decoder; give 2"),
    ({"deep_supervision": 2, "norm": "group"}, "norm: group; nnU-Net's files have instance or batch"),
])
def test_networks_that_nnunets_files_cannot_have_are_named(changes, said):
    with pytest.raises(UserError, match=f"^config.model.{said}"):
        find("nnunet").rows(registry.spec("models", "nnunet", **changes))


@pytest.mark.parametrize(("settings", "said"), [
    ({"depth": 1}, "depth: 1; give 2 or more"),
    ({"encoder": "swin"}, "encoder: unknown 'swin'; choose from plain, residual"),
    ({"widths": (4, 8)}, "widths: (4, 8) for 3 stages; give 3 numbers from 1, or ()"),
    ({"blocks": (1, 0, 1)}, "blocks: (1, 0, 1) for 3 stages"),
    ({"decoder_blocks": (1,)}, "decoder_blocks: (1,) for 2 stages"),
    ({"kernels": (3, 2, 3)}, "kernels: (3, 2, 3); give odd numbers"),
    ({"kernels": ((1, 3, 3),) * 3}, "kernels: ((1, 3, 3), (1, 3, 3), (1, 3, 3)) for 3 stages; give for each of them a "
                                    "number from 1, or 2, or ()"),
    ({"strides": (2, 2, 2)}, "strides: (2, 2) in the first stage; give 1 there"),
    ({"deep_supervision": 2}, "deep_supervision: 2 coarser levels with an output, and a network of this depth can have 1; "
                              "give 0 to 1, or a larger depth"),
])
def test_settings_that_do_not_fit_are_named(settings, said):
    model = registry.build("models", registry.spec("models", "nnunet", **({"depth": 3, "width": 2} | settings)), ndim=2,
                           channels=1, scale=(1, 1))
    with pytest.raises(UserError, match="^" + re.escape(f"config.model.{said}")):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


@pytest.mark.slow
def test_a_network_of_nnunets_is_trained_at_all_levels_goes_out_and_comes_back(tmp_path):
    for i in range(5):
        label = np.zeros((14, 18, 12), np.uint8)
        label[4:8, 4:8, 4:8], label[4:8, 9:13, 4:8] = 1, 2
        image = np.random.default_rng(i).random(label.shape, np.float32) + label
        for kind, values in (("images", image), ("labels", label)):
            (tmp_path / kind).mkdir(exist_ok=True)
            nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / kind / f"{i}.nii.gz")
    data = (f"--config.data.path={tmp_path}", "--config.steps=2", "--config.data.patch=(8,16,16)", "--config.optim.warmup=0",
            "--config.eval_every=2", "--config.log_every=1", "--config.references=('none',)")
    network = ("--config.model.encoder=residual", "--config.model.depth=4", "--config.model.width=2",
               "--config.model.deep_supervision=2", "--config.model.strides=((1,1,1),(1,2,2),(2,2,2),(1,2,2))")
    code, _, err = command("train.py", "--config=configs/hippocampus.py:model=nnunet", *data, *network,
                           f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"train/model/dice", "train/model/dice_coarser1"} <= set(logged[0])
    assert "train/model/dice_coarser2" not in logged[0]
    weights = tmp_path / "nnunet.safetensors"
    code, _, err = command("-m", "medjax.convert", "--from=nnunet", f"--workdir={tmp_path / 'run'}", f"--to={weights}")
    assert code == 0, err
    back = tmp_path / "back"
    code, said, err = command("-m", "medjax.convert", "--from=nnunet", f"--weights={weights}", f"--workdir={back}")
    assert code == 0, err
    assert "network  nnunet: encoder=residual, depth=4" in said
    for (path, a), (_, b) in zip(*(jax.tree_util.tree_leaves_with_path(model_of(folder)[1])
                                   for folder in (tmp_path / "run", back)), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=str(path))
    code, _, err = command("-m", "medjax.apply", f"--workdir={back}", f"--input={tmp_path / 'images' / '0.nii.gz'}",
                           f"--output={tmp_path / 'made.nii.gz'}", "--accept=values")
    assert code == 0, err
    code, _, err = command("-m", "medjax.export", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'exported'}",
                           "--formats=stablehlo")
    assert code == 0, err
