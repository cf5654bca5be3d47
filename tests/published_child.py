"""What the published networks in PyTorch make of random weights, for test_published.py; runs under the peers' Python.

    python published_child.py FOLDER

For every case writes FOLDER/NAME.npz of a small network: `x`, `y`, `cotangent`, the gradient of
their inner product (`grad/x`), what else it was given (`given/0`, …), of every layer in the order of calls its class, its
arrays and their gradients (`0.Conv2d/weight`, `grad/0.Conv2d/weight`), both also by their names in the network
(`state/NAME`, `grad/state/NAME`); and of the network of published size the number of
parameters (`size`).
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import published_torch as nets
import torch
from torch import Tensor, nn

BASIC, WIDTHS = (32, 32, 64, 128, 256), (32, 64, 128, 256)


def given(*shape: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(shape),)


# name -> (a network, its settings at the published size, those of a small one, what that is given)
CASES: dict[str, tuple[Callable[..., nn.Module], tuple, tuple, Callable[[], tuple[Tensor, ...]]]] = {
    "fastmri-unet": (nets.FastMRI, (1, 1, 32, 4), (2, 2, 4, 2), given(2, 2, 16, 24)),
    "varnet": (nets.VarNet, (12, 8, 18, 4), (2, 2, 2, 1), nets.coils),
    "patchgan": (nets.patchgan, (6, 64), (2, 2), given(2, 2, 32, 40)),
    "pix2pix": (nets.pix2pix, (3, 3, 64, 8, 0.5), (2, 1, 2, 4, 0), given(2, 2, 32, 32)),
    "cyclegan": (nets.cyclegan, (3, 3, 64, 9), (2, 1, 2, 1), given(2, 2, 12, 16)),
    "dcgan-generator": (nets.dcgan_generator, (100, 64, 3), (5, 2, 1), given(2, 5)),
    "dcgan-critic": (nets.dcgan_critic, (3, 64), (1, 2), given(2, 1, 64, 64)),
    "srresnet": (nets.srresnet, (3, 64, 16), (1, 2, 1), given(2, 1, 6, 8)),
    "rrdb": (nets.rrdb, (3, 64, 32, 23), (1, 4, 2, 1), given(2, 1, 6, 8)),
    "redcnn": (nets.REDCNN, (96,), (4,), given(2, 1, 24, 28)),
    "basic-unet": (nets.basic_unet, (2, (*BASIC, 32)), (2, (2, 2, 4, 8, 16, 2)), given(2, 1, 32, 32)),
    "basic-unet-3d": (nets.basic_unet, (3, (*BASIC, 32)), (3, (2, 2, 4, 8, 16, 2)), given(1, 1, 32, 32, 32)),
    "dynunet": (nets.dynunet, (2, (*WIDTHS, 512, 512, 512)), (2, (2, 3, 4)), given(2, 1, 16, 8)),
    "dynunet-3d": (nets.dynunet, (3, (*WIDTHS, 320, 320)), (3, (2, 3, 4)), given(2, 1, 4, 4, 8)),
    "vgg16": (nets.VGG, (3, 64, 4096, 224, 1000), (1, 2, 3, 64, 4), given(2, 1, 64, 64)),
    "resnet152": (nets.resnet, ((3, 8, 36, 3), 64, 3, 1000), ((1, 1, 1, 1), 2, 1, 3), given(2, 1, 64, 72)),
    "fcn8s": (nets.FCN8s, (3, 64, 4096, 21), (1, 2, 3, 2), given(2, 1, 32, 64)),
    "voxelmorph-1": (nets.VoxelMorph, (3, 16, (*[32] * 4, 8, 8)), (3, 2, (*[4] * 4, 1, 1)), given(1, 2, 16, 32, 16)),
    "voxelmorph-2": (nets.VoxelMorph, (3, 16, (*[32] * 5, 16, 16)), (3, 2, (*[4] * 5, 2, 2)), given(1, 2, 16, 16, 32)),
    "modl": (nets.MoDL, (2, 64, 5, 10, 10), (2, 4, 3, 2, 2), lambda: nets.measured(2)),
    "primal-dual": (nets.PrimalDual, (32, 5, 10), (4, 3, 2), lambda: nets.measured(1)),
    "segresnet": (nets.segresnet, (2, (1, 2, 2, 4)), (2, (1, 1)), given(2, 1, 16, 12)),
    "segresnet-3d": (nets.segresnet, (3, (1, 2, 2, 4)), (3, (1, 1)), given(2, 1, 4, 6, 8)),
}


def randomised(network: nn.Module) -> nn.Module:
    """No array is left at 0 or 1, where exchanged ones would look alike."""
    for value in network.state_dict().values():
        if value.ndim == 1 and value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return network


def answer(network: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    """In training; batch statistics are those before it."""
    layers: list[nn.Module] = []

    def met(layer: nn.Module, _: object) -> None:
        if layer not in layers and any(True for _ in layer.parameters(recurse=False)):
            layers.append(layer)

    for module in network.modules():
        module.register_forward_pre_hook(met)
    state = {id(value): value.clone() for value in network.state_dict(keep_vars=True).values()}
    x, *rest = inputs
    x.requires_grad_()
    y = network(x, *rest)
    cotangent = torch.randn_like(y)
    (y * cotangent).sum().backward()
    found = {"x": x, "y": y, "cotangent": cotangent, "grad/x": x.grad, **{f"given/{i}": r for i, r in enumerate(rest)}}
    for number, layer in enumerate(layers):
        label = f"{number}.{type(layer).__name__}"
        own = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
        found |= {f"{label}/{name}": state[id(value)] for name, value in own.items() if value.ndim}
        found |= {f"grad/{label}/{name}": value.grad for name, value in layer.named_parameters(recurse=False)}
    found |= {f"state/{name}": state[id(value)] for name, value in network.state_dict(keep_vars=True).items()}
    found |= {f"grad/state/{name}": value.grad for name, value in network.named_parameters(remove_duplicate=False)}
    return {name: value.detach().numpy() for name, value in found.items()}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, (network, published, small, drawn) in CASES.items():
        with torch.device("meta"):
            size = sum(value.numel() for value in network(*published).parameters())
        np.savez(Path(sys.argv[1]) / f"{name}.npz", size=size, **answer(randomised(network(*small)).train(), drawn()))


if __name__ == "__main__":
    main()
