"""The published networks in PyTorch, channels first: MONAI's own, the others written as their authors' code has them.

Those of which medjax converts weights (`medjax/weights`) have the names of their authors' code.
Generators of images in unit range have that in front and behind, as medjax's: the originals work in -1 … 1.
"""

from itertools import pairwise

import torch
from monai.networks import nets
from torch import Tensor, nn
from torch.nn import functional


class FastMRI(nn.Module):
    """The U-Net of fastMRI (Zbontar et al., 2018)."""

    def __init__(self, wide_in: int, wide_out: int, width: int, pools: int):
        super().__init__()
        widths = [width * 2**level for level in range(pools + 1)]
        self.down_sample_layers = nn.ModuleList(Units.of(a, b) for a, b in pairwise([wide_in, *widths[:-1]]))
        self.conv = Units.of(*widths[-2:])
        rising = widths[-2::-1]
        self.up_transpose_conv = nn.ModuleList(Units(nn.ConvTranspose2d(2 * w, w, 2, 2, bias=False)) for w in rising)
        self.up_conv = nn.ModuleList(Units.of(2 * w, w) for w in rising)
        self.up_conv[-1] = nn.Sequential(self.up_conv[-1], nn.Conv2d(width, wide_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down_sample_layers:
            skips.append(block(x))
            x = functional.avg_pool2d(skips[-1], 2)
        x = self.conv(x)
        for lift, block in zip(self.up_transpose_conv, self.up_conv, strict=True):
            x = block(torch.cat([lift(x), skips.pop()], 1))
        return x


class Units(nn.Module):
    """Convolutions with normalisation and activation; at the place of dropout nothing."""

    def __init__(self, *convs: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*(layer for conv in convs for layer in (
            conv, nn.InstanceNorm2d(conv.out_channels), nn.LeakyReLU(0.2), nn.Identity())))

    @classmethod
    def of(cls, wide_in: int, wide_out: int) -> nn.Module:
        return cls(*(nn.Conv2d(w, wide_out, 3, padding=1, bias=False) for w in (wide_in, wide_out)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


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
        self.sens_net = nn.ModuleDict({"norm_unet": Standardised(sens_width, pools)})
        self.cascades = nn.ModuleList(VarNetBlock(width, pools) for _ in range(cascades))

    def forward(self, x: Tensor, coils: Tensor, mask: Tensor) -> Tensor:
        measured, coils = torch.view_as_complex(x), torch.view_as_complex(coils)
        maps = self.sens_net["norm_unet"](coils.flatten(0, 1)[:, None]).view(coils.shape)
        maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
        kspace = measured
        for cascade in self.cascades:
            kspace = cascade(kspace, measured, mask, maps)
        y = (fft(kspace, True) * maps.conj()).sum(1)
        return torch.stack([y.real, y.imag], 1)


def coils() -> tuple[Tensor, ...]:
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
        self.model, self.enters = nn.Sequential(*layers, nn.Tanh()), enters

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 + 0.5 * self.model(2 * x - 1 if self.enters else x)


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
        self.model = nn.Sequential(
            nn.LeakyReLU(0.2), nn.Conv2d(wide_in, wide, 4, 2, 1, bias=False),
            *([nn.BatchNorm2d(wide), inside] if inside else []),
            nn.ReLU(), nn.ConvTranspose2d(up, wide_in, 4, 2, 1, bias=False), nn.BatchNorm2d(wide_in), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], 1)


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


class Residual(nn.Module):
    """A residual block of CycleGAN."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def cyclegan(wide_in: int, wide_out: int, width: int, blocks: int) -> nn.Module:
    """The generator of residual blocks (Zhu et al., 2017)."""
    def normal(conv: nn.Module) -> list[nn.Module]:
        return [conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU()]

    def residual() -> nn.Module:
        return Residual(*(layer for act in (True, False) for layer in
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
        for i in range(5):
            self.add_module(f"conv{i + 1}", nn.Conv2d(width if i else 1, width, 5))
            self.add_module(f"tconv{i + 1}", nn.ConvTranspose2d(width, width if i < 4 else 1, 5))

    def forward(self, x: Tensor) -> Tensor:
        first = x
        x = functional.relu(self.conv1(x))
        x = second = functional.relu(self.conv2(x))
        x = functional.relu(self.conv3(x))
        x = third = functional.relu(self.conv4(x))
        x = functional.relu(self.conv5(x))
        x = functional.relu(self.tconv1(x) + third)
        x = functional.relu(self.tconv2(x))
        x = functional.relu(self.tconv3(x) + second)
        x = functional.relu(self.tconv4(x))
        return functional.relu(self.tconv5(x) + first)


def basic_unet(ndim: int, features: tuple[int, ...]) -> nn.Module:
    return nets.BasicUNet(ndim, 1, 2, features)


def dynunet(ndim: int, widths: tuple[int, ...]) -> nn.Module:
    """nnU-Net's as MONAI has it: no bias but in the last layer."""
    strides = (1,) + (2,) * (len(widths) - 1)
    return nets.DynUNet(ndim, 1, 2, (3,) * len(widths), strides, strides[1:], filters=widths,
                        norm_name=("INSTANCE", {"affine": True}))


def vgg16(channels: int, width: int) -> nn.ModuleList:
    """The convolutions of each stage (Simonyan & Zisserman, 2015)."""
    widths = [channels, *(width * factor for factor in (1, 2, 4, 8, 8))]
    found = nn.ModuleList()
    for count, (wide_in, wide) in zip((2, 2, 3, 3, 3), pairwise(widths), strict=True):
        found.append(nn.Sequential(*(layer for i in range(count) for layer in
                                     (nn.Conv2d(wide if i else wide_in, wide, 3, padding=1), nn.ReLU()))))
    return found


class VGG(nn.Module):
    """VGG-16 for images of `size` pixels, without dropout."""

    def __init__(self, channels: int, width: int, dense: int, size: int, classes: int):
        super().__init__()
        self.features = nn.Sequential(*(layer for stage in vgg16(channels, width) for layer in (*stage, nn.MaxPool2d(2))))
        self.classifier = nn.Sequential(
            nn.Linear(8 * width * (size // 32) ** 2, dense), nn.ReLU(), nn.Identity(),
            nn.Linear(dense, dense), nn.ReLU(), nn.Identity(), nn.Linear(dense, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class FCN8s(nn.Module):
    """Of Long et al. (2015), padded by 3 instead of 100 pixels."""

    def __init__(self, channels: int, width: int, dense: int, classes: int):
        super().__init__()
        self.stages = vgg16(channels, width)
        self.dense = nn.Sequential(nn.Conv2d(8 * width, dense, 7, padding=3), nn.ReLU(),
                                   nn.Conv2d(dense, dense, 1), nn.ReLU())
        self.coarse, self.fourth, self.third = (nn.Conv2d(wide, classes, 1) for wide in (dense, 8 * width, 4 * width))
        self.up, self.up_again = (nn.ConvTranspose2d(classes, classes, 4, 2, 1, bias=False) for _ in range(2))
        self.last = nn.ConvTranspose2d(classes, classes, 16, 8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = []
        for stage in self.stages:
            x = functional.max_pool2d(stage(x), 2)
            pooled.append(x)
        x = self.up(self.coarse(self.dense(x))) + self.fourth(pooled[3])
        return self.last(self.up_again(x) + self.third(pooled[2]))


def resnet(blocks: tuple[int, ...], width: int, channels: int, classes: int) -> nn.Module:
    """MONAI's with bottlenecks, without the bias that it gives to shortcuts for compatibility."""
    return nets.ResNet("bottleneck", list(blocks), [width * 2**i for i in range(4)], 2, channels, 7, 2, num_classes=classes,
                       bias_downsample=False)


class VoxelMorph(nn.Module):
    """The networks of Balakrishnan et al. (2018, 2019); Keras pads the far side of strided convolutions."""

    def __init__(self, ndim: int, width: int, decoder: tuple[int, ...]):
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[ndim - 2]
        wide, twice = width, 2 * width
        self.ndim = ndim
        self.encoder = nn.ModuleList(conv(a, b, 3, 2) for a, b in ((2, wide), (wide, twice), (twice, twice), (twice, twice)))
        seen = (twice, decoder[0] + twice, decoder[1] + twice, decoder[2] + wide, decoder[3], decoder[4] + 2, *decoder[5:-1])
        self.decoder = nn.ModuleList(conv(a, b, 3, padding=1) for a, b in zip(seen, decoder, strict=True))
        self.flow = conv(decoder[-1], ndim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for conv in self.encoder:
            seen.append(functional.leaky_relu(conv(functional.pad(seen[-1], (0, 1) * self.ndim)), 0.2))
        x = seen.pop()
        for i, conv in enumerate(self.decoder):
            x = functional.leaky_relu(conv(x), 0.2)
            if i in (0, 1, 2, 4):
                x = torch.cat([functional.interpolate(x, scale_factor=2, mode="nearest"), seen.pop()], 1)
        return self.flow(x)


class MoDL(nn.Module):
    """Of Aggarwal et al. (2019), where a `matrix` along the rows is what measures `y`."""

    def __init__(self, channels: int, width: int, layers: int, iterations: int, cg_iterations: int):
        super().__init__()
        self.log_weight = nn.Parameter(torch.zeros(1))
        wide = [channels, *[width] * (layers - 1), channels]
        units = [layer for a, b in pairwise(wide) for layer in
                 (nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())]
        self.denoiser = Sum(*units[:-1])
        self.iterations, self.cg_iterations = iterations, cg_iterations

    def forward(self, x: Tensor, y: Tensor, matrix: Tensor) -> Tensor:
        def normal(image: Tensor) -> Tensor:
            return matrix.T @ (matrix @ image) + self.log_weight.exp() * image

        for _ in range(self.iterations):
            near = self.denoiser(x)
            residual = matrix.T @ y + self.log_weight.exp() * near - normal(near)
            x, direction = near, residual
            energy = residual.square().sum((1, 2, 3), keepdim=True)
            for _ in range(self.cg_iterations):
                applied = normal(direction)
                length = energy / (direction * applied).sum((1, 2, 3), keepdim=True)
                x, residual = x + length * direction, residual - length * applied
                before, energy = energy, residual.square().sum((1, 2, 3), keepdim=True)
                direction = residual + energy / before * direction
        return x


class PrimalDual(nn.Module):
    """Learned primal-dual (Adler & Öktem, 2018), where a `matrix` along the rows is what measures `y`."""

    def __init__(self, width: int, memory: int, iterations: int):
        super().__init__()
        self.memory = memory

        def network(given: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(memory + given, width, 3, padding=1), nn.PReLU(width),
                                 nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width),
                                 nn.Conv2d(width, memory, 3, padding=1))

        self.dual = nn.ModuleList(network(2) for _ in range(iterations))
        self.primal = nn.ModuleList(network(1) for _ in range(iterations))

    def forward(self, x: Tensor, y: Tensor, matrix: Tensor) -> Tensor:
        primal, dual = x.repeat(1, self.memory, 1, 1), torch.zeros_like(y).repeat(1, self.memory, 1, 1)
        for in_dual, in_primal in zip(self.dual, self.primal, strict=True):
            dual = dual + in_dual(torch.cat([dual, matrix @ primal[:, 1:2], y], 1))
            primal = primal + in_primal(torch.cat([primal, matrix.T @ dual[:, :1]], 1))
        return primal[:, :1]


def segresnet(ndim: int, down: tuple[int, ...]) -> nn.Module:
    """MONAI's (Myronenko, 2019)."""
    return nets.SegResNet(ndim, blocks_down=down, blocks_up=(1,) * (len(down) - 1))


def measured(channels: int) -> tuple[Tensor, ...]:
    return torch.randn(2, channels, 8, 6), torch.randn(2, channels, 5, 6), torch.randn(5, 8) / 4
