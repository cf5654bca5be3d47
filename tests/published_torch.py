"""The published networks in PyTorch, channels first: MONAI's own, the others written as their authors' code has them.

Generators of images in unit range have that in front and behind, as medjax's: the originals work in -1 … 1.
"""

from functools import partial

import torch
from monai.networks import nets
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


def leaky_conv(wide_in: int, wide_out: int, stride: int, bias: bool, norm: bool = True) -> list[nn.Module]:
    """PatchGAN's and DCGAN's: 4x4, leaky ReLU."""
    conv = nn.Conv2d(wide_in, wide_out, 4, stride, 1, bias=bias)
    return [conv, *([nn.BatchNorm2d(wide_out)] if norm else []), nn.LeakyReLU(0.2)]


def patchgan(wide_in: int, width: int) -> nn.Module:
    """The discriminator of pix2pix that sees 70 pixels (Isola et al., 2017)."""
    return nn.Sequential(*leaky_conv(wide_in, width, 2, True, norm=False), *leaky_conv(width, 2 * width, 2, False),
                         *leaky_conv(2 * width, 4 * width, 2, False), *leaky_conv(4 * width, 8 * width, 1, False),
                         nn.Conv2d(8 * width, 1, 4, 1, 1))


def dcgan_critic(channels: int, width: int) -> nn.Module:
    """Of 64 pixels (Radford et al., 2016)."""
    return nn.Sequential(*leaky_conv(channels, width, 2, False, norm=False), *leaky_conv(width, 2 * width, 2, False),
                         *leaky_conv(2 * width, 4 * width, 2, False), *leaky_conv(4 * width, 8 * width, 2, False),
                         nn.Conv2d(8 * width, 1, 4, bias=False), nn.Flatten())


class UnitRange(nn.Module):
    """A network in -1 … 1, for images in 0 … 1; or only what it makes."""

    def __init__(self, *layers: nn.Module, enters: bool = True):
        super().__init__()
        self.layers, self.enters = nn.Sequential(*layers, nn.Tanh()), enters

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 + 0.5 * self.layers(2 * x - 1 if self.enters else x)


def dcgan_generator(noise: int, width: int, channels: int) -> nn.Module:
    """Of 64 pixels (Radford et al., 2016)."""
    layers = [nn.Unflatten(1, (noise, 1, 1)), nn.ConvTranspose2d(noise, 8 * width, 4, bias=False)]
    for wide, wide_out in ((8 * width, 4 * width), (4 * width, 2 * width), (2 * width, width), (width, channels)):
        layers += [nn.BatchNorm2d(wide), nn.ReLU(), nn.ConvTranspose2d(wide, wide_out, 4, 2, 1, bias=False)]
    return UnitRange(*layers, enters=False)


class Skip(nn.Module):
    """A level of pix2pix's U-Net around the coarser ones."""

    def __init__(self, wide_in: int, wide: int, inside: nn.Module | None, dropout: float):
        super().__init__()
        up = wide if inside is None else 2 * wide
        self.layers = nn.Sequential(
            nn.LeakyReLU(0.2), nn.Conv2d(wide_in, wide, 4, 2, 1, bias=False),
            *([nn.BatchNorm2d(wide), inside] if inside else []),
            nn.ReLU(), nn.ConvTranspose2d(up, wide_in, 4, 2, 1, bias=False), nn.BatchNorm2d(wide_in), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], 1)


def pix2pix(wide_in: int, wide_out: int, width: int, depth: int, dropout: float) -> nn.Module:
    """The U-Net of 2^depth pixels (Isola et al., 2017)."""
    block = None
    for level in reversed(range(1, depth)):
        wide, share = [width * min(2**at, 8) for at in (level - 1, level)], dropout if 4 <= level < depth - 1 else 0
        block = Skip(*wide, block, share)
    return UnitRange(nn.Conv2d(wide_in, width, 4, 2, 1, bias=False), block, nn.ReLU(),
                     nn.ConvTranspose2d(2 * width, wide_out, 4, 2, 1))


class Sum(nn.Module):
    """What layers make of an image is added to it."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def cyclegan(wide_in: int, wide_out: int, width: int, blocks: int) -> nn.Module:
    """The generator of residual blocks (Zhu et al., 2017)."""
    def normal(conv: nn.Module) -> list[nn.Module]:
        return [conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU()]

    def residual() -> nn.Module:
        return Sum(*(layer for act in (True, False) for layer in
                     (nn.ReflectionPad2d(1), *normal(nn.Conv2d(4 * width, 4 * width, 3))[: 3 if act else 2])))

    return UnitRange(
        nn.ReflectionPad2d(3), *normal(nn.Conv2d(wide_in, width, 7)), *normal(nn.Conv2d(width, 2 * width, 3, 2, 1)),
        *normal(nn.Conv2d(2 * width, 4 * width, 3, 2, 1)), *(residual() for _ in range(blocks)),
        *normal(nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1)),
        *normal(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1)), nn.ReflectionPad2d(3), nn.Conv2d(width, wide_out, 7))


def srresnet(channels: int, width: int, blocks: int) -> nn.Module:
    """Four times finer (Ledig et al., 2017)."""
    def conv(wide_out: int = width) -> nn.Module:
        return nn.Conv2d(width, wide_out, 3, padding=1)

    return nn.Sequential(
        nn.Conv2d(channels, width, 9, padding=4), nn.PReLU(),
        Sum(*(Sum(conv(), nn.BatchNorm2d(width), nn.PReLU(), conv(), nn.BatchNorm2d(width)) for _ in range(blocks)),
            conv(), nn.BatchNorm2d(width)),
        *(layer for _ in range(2) for layer in (conv(4 * width), nn.PixelShuffle(2), nn.PReLU())),
        nn.Conv2d(width, channels, 9, padding=4))


class Dense(nn.Module):
    """A dense block of ESRGAN."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width + i * growth, growth if i < 4 else width, 3, padding=1) for i in range(5))

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in self.convs[:4]:
            seen = torch.cat([seen, functional.leaky_relu(conv(seen), 0.2)], 1)
        return x + 0.2 * self.convs[4](seen)


class Scaled(Sum):
    """A residual block of ESRGAN around its dense ones."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.layers(x)


def rrdb(channels: int, width: int, growth: int, blocks: int) -> nn.Module:
    """The generator of ESRGAN, four times finer (Wang et al., 2018)."""
    def conv() -> nn.Module:
        return nn.Conv2d(width, width, 3, padding=1)

    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        Sum(*(Scaled(*(Dense(width, growth) for _ in range(3))) for _ in range(blocks)), conv()),
        *(layer for _ in range(2) for layer in (nn.Upsample(scale_factor=2), conv(), nn.LeakyReLU(0.2))),
        conv(), nn.LeakyReLU(0.2), nn.Conv2d(width, channels, 3, padding=1))


class REDCNN(nn.Module):
    """Of Chen et al. (2017)."""

    def __init__(self, width: int):
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(width if i else 1, width, 5) for i in range(5))
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, width if i < 4 else 1, 5) for i in range(5))

    def forward(self, x: Tensor) -> Tensor:
        first = x
        x = functional.relu(self.down[0](x))
        x = second = functional.relu(self.down[1](x))
        x = functional.relu(self.down[2](x))
        x = third = functional.relu(self.down[3](x))
        x = functional.relu(self.down[4](x))
        x = functional.relu(self.up[0](x) + third)
        x = functional.relu(self.up[1](x))
        x = functional.relu(self.up[2](x) + second)
        x = functional.relu(self.up[3](x))
        return functional.relu(self.up[4](x) + first)


def basic_unet(ndim: int, features: tuple[int, ...]) -> nn.Module:
    return nets.BasicUNet(ndim, 1, 2, features)


def nnunet(ndim: int, widths: tuple[int, ...]) -> nn.Module:
    """nnU-Net's as MONAI has it: no bias but in the last layer."""
    strides = (1,) + (2,) * (len(widths) - 1)
    return nets.DynUNet(ndim, 1, 2, (3,) * len(widths), strides, strides[1:], filters=widths,
                        norm_name=("INSTANCE", {"affine": True}))


def images(*shape: int) -> tuple[Tensor]:
    return (torch.randn(shape),)


WIDTHS = (32, 64, 128, 256)
# name -> (the network of published size, a small one, what that is given)
CASES = {
    "fastmri-unet": (lambda: FastMRI(1, 1, 32, 4), lambda: FastMRI(2, 2, 4, 2), partial(images, 2, 2, 16, 24)),
    "varnet": (lambda: VarNet(12, 8, 18, 4), lambda: VarNet(2, 2, 2, 1), varnet_input),
    "patchgan": (lambda: patchgan(6, 64), lambda: patchgan(2, 2), partial(images, 2, 2, 32, 40)),
    "pix2pix": (lambda: pix2pix(3, 3, 64, 8, 0.5), lambda: pix2pix(2, 1, 2, 4, 0), partial(images, 2, 2, 32, 32)),
    "cyclegan": (lambda: cyclegan(3, 3, 64, 9), lambda: cyclegan(2, 1, 2, 1), partial(images, 2, 2, 12, 16)),
    "dcgan-generator": (lambda: dcgan_generator(100, 64, 3), lambda: dcgan_generator(5, 2, 1), partial(images, 2, 5)),
    "dcgan-critic": (lambda: dcgan_critic(3, 64), lambda: dcgan_critic(1, 2), partial(images, 2, 1, 64, 64)),
    "srresnet": (lambda: srresnet(3, 64, 16), lambda: srresnet(1, 2, 1), partial(images, 2, 1, 6, 8)),
    "rrdb": (lambda: rrdb(3, 64, 32, 23), lambda: rrdb(1, 4, 2, 1), partial(images, 2, 1, 6, 8)),
    "redcnn": (lambda: REDCNN(96), lambda: REDCNN(4), lambda: (torch.rand(2, 1, 24, 28),)),
    "basic-unet": (lambda: basic_unet(2, (32, 32, 64, 128, 256, 32)), lambda: basic_unet(2, (2, 2, 4, 8, 16, 2)),
                   partial(images, 2, 1, 32, 32)),
    "basic-unet-3d": (lambda: basic_unet(3, (32, 32, 64, 128, 256, 32)), lambda: basic_unet(3, (2, 2, 4, 8, 16, 2)),
                      partial(images, 1, 1, 32, 32, 32)),
    "nnunet": (lambda: nnunet(2, (*WIDTHS, 512, 512, 512)), lambda: nnunet(2, (2, 3, 4)), partial(images, 2, 1, 16, 8)),
    "nnunet-3d": (lambda: nnunet(3, (*WIDTHS, 320, 320)), lambda: nnunet(3, (2, 3, 4)), partial(images, 2, 1, 4, 4, 8)),
}
