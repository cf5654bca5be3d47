"""The published networks in PyTorch, for test_published.py; runs under the peers' Python.

    python published_child.py FOLDER

MONAI's networks are its own; the others are written here as their authors' code has them, channels first. For every case in
CASES writes FOLDER/NAME.npz of a small one with random weights: `x`, `y`, `cotangent`, the gradient of their inner product
(`grad/x`), of every layer in the order of calls its class, its arrays and their gradients (`0.Conv2d/weight`,
`grad/0.Conv2d/weight`); and of the one of published size the number of parameters (`size`).
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class FastMRI(nn.Module):
    """The U-Net of fastMRI (Zbontar et al., 2018)."""

    def __init__(self, wide_in: int, wide_out: int, width: int, pools: int):
        super().__init__()
        widths = [width * 2**level for level in range(pools + 1)]
        self.down = nn.ModuleList(self.convs(a, b) for a, b in zip([wide_in, *widths[:-1]], widths, strict=True))
        self.lift = nn.ModuleList(self.unit(nn.ConvTranspose2d(2 * w, w, 2, 2, bias=False)) for w in widths[:-1])
        self.up = nn.ModuleList(self.convs(2 * w, w) for w in widths[:-1])
        self.head = nn.Conv2d(width, wide_out, 1)

    @staticmethod
    def unit(conv: nn.Module) -> nn.Module:
        return nn.Sequential(conv, nn.InstanceNorm2d(conv.out_channels), nn.LeakyReLU(0.2))

    @classmethod
    def convs(cls, wide_in: int, wide_out: int) -> nn.Module:
        return nn.Sequential(*(cls.unit(nn.Conv2d(w, wide_out, 3, padding=1, bias=False)) for w in (wide_in, wide_out)))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            if level:
                skips.append(x)
                x = functional.avg_pool2d(x, 2)
            x = block(x)
        for lift, block in zip(reversed(self.lift), reversed(self.up), strict=True):
            x = block(torch.cat([lift(x), skips.pop()], 1))
        return self.head(x)


class Standardised(nn.Module):
    """fastMRI's NormUnet on complex images `(B, 1, H, W)`."""

    def __init__(self, width: int, pools: int):
        super().__init__()
        self.unet = FastMRI(2, 2, width, pools)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x.real, x.imag], 1)
        mean, std = x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True)
        x = self.unet((x - mean) / std) * std + mean
        return torch.complex(x[:, :1], x[:, 1:])


def fft(x: Tensor, inverse: bool = False) -> Tensor:
    transform = torch.fft.ifft2 if inverse else torch.fft.fft2
    return torch.fft.fftshift(transform(torch.fft.ifftshift(x, (-2, -1)), norm="ortho"), (-2, -1))


class VarNetBlock(nn.Module):
    def __init__(self, width: int, pools: int):
        super().__init__()
        self.model = Standardised(width, pools)
        self.dc_weight = nn.Parameter(torch.ones(1))

    def forward(self, now: Tensor, measured: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
        reduced = (fft(now, True) * maps.conj()).sum(1, keepdim=True)
        return now - torch.where(mask, now - measured, 0) * self.dc_weight - fft(self.model(reduced) * maps)


class VarNet(nn.Module):
    """Of Sriram et al. (2020), with its low-resolution coil images given; the coils are combined by their sensitivities.

    `x`: real and imaginary parts of the k-space of all coils `(B, coils, H, W, 2)`.
    """

    def __init__(self, cascades: int, sens_width: int, width: int, pools: int):
        super().__init__()
        self.sens_net = Standardised(sens_width, pools)
        self.cascades = nn.ModuleList(VarNetBlock(width, pools) for _ in range(cascades))

    def forward(self, x: Tensor, coils: Tensor, mask: Tensor) -> Tensor:
        measured, coils = torch.view_as_complex(x), torch.view_as_complex(coils)
        maps = self.sens_net(coils.flatten(0, 1)[:, None]).view(coils.shape)
        maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
        kspace = measured
        for cascade in self.cascades:
            kspace = cascade(kspace, measured, mask, maps)
        y = (fft(kspace, True) * maps.conj()).sum(1)
        return torch.stack([y.real, y.imag], 1)


def varnet_input() -> tuple[Tensor, ...]:
    mask = torch.rand(1, 1, 16, 16) < 0.5
    return torch.randn(2, 3, 16, 16, 2) * mask[..., None], torch.randn(2, 3, 16, 16, 2), mask


# name -> (the network of published size, a small one, what that is given)
CASES = {
    "fastmri-unet": (lambda: FastMRI(1, 1, 32, 4), lambda: FastMRI(2, 2, 4, 2), lambda: (torch.randn(2, 2, 16, 24),)),
    "varnet": (lambda: VarNet(12, 8, 18, 4), lambda: VarNet(2, 2, 2, 1), varnet_input),
}


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
