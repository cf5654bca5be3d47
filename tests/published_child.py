"""What the published networks in PyTorch make of random weights, for test_published.py; runs under the peers' Python.

    python published_child.py FOLDER

For every case of published_torch.py writes FOLDER/NAME.npz of a small network: `x`, `y`, `cotangent`, the gradient of
their inner product (`grad/x`), what else it was given (`given/0`, …), of every layer in the order of calls its class, its
arrays and their gradients (`0.Conv2d/weight`, `grad/0.Conv2d/weight`); and of the network of published size the number of
parameters (`size`).
"""

import sys
from pathlib import Path

import numpy as np
import torch
from published_torch import CASES
from torch import Tensor, nn


def randomised(network: nn.Module) -> nn.Module:
    """No array is left at 0 or 1, where exchanged ones would look alike."""
    for value in network.state_dict().values():
        if value.ndim == 1 and value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return network


def answer(network: nn.Module, given: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    """In training; batch statistics are those before it."""
    layers: list[nn.Module] = []

    def met(layer: nn.Module, _: object) -> None:
        if layer not in layers and any(True for _ in layer.parameters(recurse=False)):
            layers.append(layer)

    for module in network.modules():
        module.register_forward_pre_hook(met)
    state = {id(value): value.clone() for value in network.state_dict(keep_vars=True).values()}
    x, *rest = given
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
    return {name: value.detach().numpy() for name, value in found.items()}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, (published, small, given) in CASES.items():
        with torch.device("meta"):
            size = sum(value.numel() for value in published().parameters())
        np.savez(Path(sys.argv[1]) / f"{name}.npz", size=size, **answer(randomised(small()).train(), given()))


if __name__ == "__main__":
    main()
