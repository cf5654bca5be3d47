"""What networks of other packages make of random weights, for test_originals.py; runs under the peers' Python.

    python originals_child.py FOLDER

For every case writes FOLDER/NAME.npz of a small network in use (`eval`): its weights under their own names (`state/…`), `x`,
`y`, and what else it was given (`given/…`); FOLDER/NAME.json has the package that is missing, for those it can't make.
Of networks with outputs of coarser levels also, in training, each output (`level/0`, the finest, …), what it is multiplied
with (`weight/0`, …), and the gradient of the sum of it all (`grad/x`, `grad/NAME`). FOLDER/sizes.json has the numbers of
parameters of nnU-Net's networks as it plans them.
"""

import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


def module(name: str) -> object:
    """A module of a package."""
    return importlib.import_module(name)


def declare_operators() -> torch.library.Library:
    """torchvision's for GPUs asks for operators of boxes that torch for CPUs has not."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def fastmri_varnet() -> nn.Module:
    return module("fastmri.models").VarNet(num_cascades=2, sens_chans=2, sens_pools=2, chans=3, pools=2, mask_center=False)


def monai(name: str, *args: object, **kwargs: object) -> Callable[[], nn.Module]:
    return lambda: getattr(module("monai.networks.nets"), name)(*args, **kwargs)


def dynunet(ndim: int) -> Callable[[], nn.Module]:
    return monai("DynUNet", ndim, 1, 2, (3,) * 3, (1, 2, 2), (2, 2), filters=(2, 3, 4),
                 norm_name=("INSTANCE", {"affine": True}))


def dynunet_with_heads() -> nn.Module:
    """Of unequal kernels and strides."""
    strides = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 2, 1))
    return monai("DynUNet", 3, 1, 2, ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)), strides, strides[1:],
                 filters=(2, 3, 4, 5), norm_name=("BATCH", {"affine": True}), deep_supervision=True, deep_supr_num=1)()


def nnunet(name: str, ndim: int, *, classes: int = 2, channels: int = 1, widths: tuple[int, ...] = (2, 3, 4, 4),
           kernels: tuple | None = None, strides: tuple | None = None, blocks: tuple[int, ...] = (1, 2, 1, 1),
           decoder: tuple[int, ...] = (2, 1, 1), norm: str = "InstanceNorm") -> Callable[[], nn.Module]:
    """A network of nnU-Net with the arguments that its plans give."""
    def make() -> nn.Module:
        network = getattr(module("dynamic_network_architectures.architectures.unet"), name)
        stages = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
        return network(channels, len(widths), widths, getattr(nn, f"Conv{ndim}d"), kernels or [[3] * ndim] * len(widths),
                       strides or [[1] * ndim, *[[2] * ndim] * (len(widths) - 1)], num_classes=classes, conv_bias=True,
                       n_conv_per_stage_decoder=decoder, norm_op=getattr(nn, f"{norm}{ndim}d"), **{stages: blocks},
                       norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True})
    return make


FLAT = {"kernels": ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)), "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 2, 2))}
HIPPOCAMPUS = {"classes": 3, "widths": (32, 64, 128, 256)}
PLAIN, RESIDUAL = {"blocks": (2, 2, 2, 2), "decoder": (2, 2, 2)}, {"blocks": (1, 3, 4, 6), "decoder": (1, 1, 1)}
PLANNED = {
    "nnunet": nnunet("PlainConvUNet", 2, **HIPPOCAMPUS, **PLAIN),
    "nnunet-3d": nnunet("PlainConvUNet", 3, **HIPPOCAMPUS, **PLAIN),
    "nnunet-residual": nnunet("ResidualEncoderUNet", 2, **HIPPOCAMPUS, **RESIDUAL),
    "nnunet-residual-3d": nnunet("ResidualEncoderUNet", 3, **HIPPOCAMPUS, **RESIDUAL),
}


def ldct(name: str, *args: object) -> Callable[[], nn.Module]:
    return lambda: module(f"ldctbench.methods.{name}.network").Model(Namespace(), *args)


def vision(name: str, classes: int) -> Callable[[], nn.Module]:
    return lambda: getattr(module("torchvision.models"), name)(num_classes=classes)


def restorer(place: str, name: str, *args: object, **kwargs: object) -> Callable[[], nn.Module]:
    return lambda: getattr(module(f"spandrel.architectures.{place}"), name)(*args, **kwargs)


def restormer(norm: str) -> Callable[[], nn.Module]:
    return lambda: module("deepinv.models.restormer").Restormer(1, 1, 8, (1, 2, 1, 1), 1, (1, 2, 2, 4), pretrained=None,
                                                                LayerNorm_type=norm)


def picture(*shape: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(shape),)


def kspace() -> tuple[Tensor, ...]:
    mask = torch.rand(1, 1, 1, 16, 1) < 0.6
    return torch.randn(1, 3, 16, 16, 2) * mask, mask


# name -> (a network, what it is given)
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "fastmri_unet": (lambda: module("fastmri.models").Unet(1, 1, 4, 2), picture(1, 1, 16, 24)),
    "fastmri_varnet": (fastmri_varnet, kspace),
    "ldct_redcnn": (ldct("redcnn", 4), picture(1, 1, 24, 28)),
    "ldct_cnn10": (ldct("cnn10"), picture(1, 1, 16, 12)),
    "ldct_resnet": (ldct("resnet", 16, 2), picture(1, 1, 16, 12)),
    "monai_basicunet": (monai("BasicUNet", 2, 1, 2, (2, 2, 4, 8, 16, 2)), picture(1, 1, 32, 32)),
    "monai_basicunet-3d": (monai("BasicUNet", 3, 1, 2, (2, 2, 4, 8, 16, 2)), picture(1, 1, 32, 32, 32)),
    "monai_dynunet": (dynunet(2), picture(1, 1, 16, 8)),
    "monai_dynunet-3d": (dynunet(3), picture(1, 1, 4, 4, 8)),
    "monai_dynunet-heads": (dynunet_with_heads, picture(2, 1, 8, 16, 16)),
    "monai_segresnet": (monai("SegResNet", 2, blocks_down=(1, 2, 1), blocks_up=(1, 1)), picture(1, 1, 16, 12)),
    "monai_segresnet-3d": (monai("SegResNet", 3, blocks_down=(1, 2), blocks_up=(1,)), picture(1, 1, 4, 6, 8)),
    "nafnet": (restorer("NAFNet.__arch.NAFNet_arch", "NAFNet", img_channel=1, width=4, middle_blk_num=1, enc_blk_nums=[1, 2],
                        dec_blk_nums=[2, 1]), picture(1, 1, 16, 12)),
    "restormer": (restormer("BiasFree"), picture(1, 1, 16, 24)),
    "restormer-centred": (restormer("WithBias"), picture(1, 1, 16, 24)),
    "swinir": (restorer("SwinIR.__arch.SwinIR", "SwinIR", img_size=8, in_chans=1, embed_dim=8, depths=[2, 3],
                        num_heads=[2, 2], window_size=4, mlp_ratio=2), picture(1, 1, 16, 12)),
    "swinir-colour": (restorer("SwinIR.__arch.SwinIR", "SwinIR", img_size=8, in_chans=3, embed_dim=8, depths=[2],
                               num_heads=[2], window_size=4, mlp_ratio=2), picture(1, 3, 8, 8)),
    "nnunet": (nnunet("PlainConvUNet", 2, channels=2), picture(2, 2, 16, 24)),
    "nnunet-3d": (nnunet("PlainConvUNet", 3, **FLAT), picture(2, 1, 4, 16, 24)),
    "nnunet-residual": (nnunet("ResidualEncoderUNet", 2, norm="BatchNorm"), picture(2, 1, 16, 24)),
    "nnunet-residual-3d": (nnunet("ResidualEncoderUNet", 3, **FLAT), picture(2, 1, 4, 16, 24)),
    "torchvision_resnet-18": (vision("resnet18", 3), picture(1, 3, 64, 72)),
    "torchvision_resnet-50": (vision("resnet50", 3), picture(1, 3, 64, 72)),
    "torchvision_vgg-11": (vision("vgg11", 3), picture(1, 3, 224, 224)),
    "torchvision_vgg-11-bn": (vision("vgg11_bn", 3), picture(1, 3, 224, 224)),
}


def randomised(network: nn.Module) -> nn.Module:
    """No array is left at 0 or 1, where exchanged ones would look alike."""
    for value in network.state_dict().values():
        if value.ndim == 1 and value.is_floating_point():
            value.uniform_(0.5, 1.5)
        elif value.ndim == 0:
            value.fill_(7)
    return network.eval()


def at_all_levels(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The outputs that learn in training, weights for them, and the gradient; nothing for networks with one output."""
    network.train()
    if hasattr(network, "deep_supervision_heads"):  # MONAI interpolates them to the finest grid
        finest = network(x)[:, 0]
        outputs = [finest, *network.heads]
    elif hasattr(network, "decoder"):
        network.decoder.deep_supervision = True
        outputs = network(x)[:-1]  # the lowest has no weight
    else:
        return {}
    weights = [torch.randn_like(output) for output in outputs]
    sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True)).backward()
    named = {f"level/{i}": output for i, output in enumerate(outputs)} | {f"weight/{i}": w for i, w in enumerate(weights)}
    grads = {f"grad/{name}": torch.zeros_like(value) if value.grad is None else value.grad
             for name, value in network.named_parameters(remove_duplicate=False)}
    return named | grads | {"grad/x": x.grad}


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    library = declare_operators()
    for name, (network, drawn) in CASES.items():
        try:
            made = randomised(network())
        except ImportError as error:
            (folder / f"{name}.json").write_text(json.dumps(str(error)))
            continue
        given = drawn()
        with torch.inference_mode():
            y = made(*given)
        state = {f"state/{key}": value.numpy() for key, value in made.state_dict().items()}
        state = {key: value.copy() for key, value in state.items()}  # batch statistics change in training
        arrays = {"x": given[0], "y": y, **{f"given/{i}": value for i, value in enumerate(given[1:])}}
        arrays |= at_all_levels(made, given[0].clone().requires_grad_())
        np.savez(folder / f"{name}.npz", **state, **{key: value.detach().numpy() for key, value in arrays.items()},
                 parameters=sum(value.numel() for value in made.parameters()))
    write_sizes(folder)
    write_checkpoints(folder)
    del library


def write_sizes(folder: Path) -> None:
    """sizes.json, of no networks where nnU-Net's package is missing."""
    try:
        with torch.device("meta"):
            sizes = {name: sum(value.numel() for value in make().parameters()) for name, make in PLANNED.items()}
    except ImportError:
        sizes = {}
    (folder / "sizes.json").write_text(json.dumps(sizes))


def write_checkpoints(folder: Path) -> None:
    """lightning.ckpt as Lightning saves it and checkpoint_final.pth as nnU-Net, their weights in checkpoint.npz, and
    model.pt, pickled whole.
    """
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    state = {f"unet.{name}": value for name, value in model.state_dict().items()}
    state["unet.0.weight"] = state["unet.0.weight"].bfloat16()
    torch.save({"epoch": 3, "state_dict": state, "hyper_parameters": {"chans": 2}, "optimizer_states": [{}]},
               folder / "lightning.ckpt")
    noted = {"train_losses": [np.float32(0.5)], "mean_fg_dice": [np.float64(0.5)], "lrs": [0.01]}
    torch.save({"network_weights": state, "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(2)}}},
                "logging": noted, "_best_ema": np.float64(0.5), "current_epoch": 1000, "trainer_name": "nnUNetTrainer",
                "init_args": {"plans": {"dataset_name": "Dataset004_Hippocampus"}, "device": torch.device("cuda", 0)}},
               folder / "checkpoint_final.pth")
    torch.save(model, folder / "model.pt")
    np.savez(folder / "checkpoint.npz", **{name: value.float().numpy() for name, value in state.items()})


if __name__ == "__main__":
    main()
