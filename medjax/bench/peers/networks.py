"""medjax's networks in PyTorch, layer for layer: channels first, float32 parameters."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS = {"relu": functional.relu, "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
               "silu": functional.silu, "gelu": lambda x: functional.gelu(x, approximate="tanh")}


def build(name: str, ndim: int, channels: int, scale: tuple[int, ...], dtype: Any = None, **values: Any) -> nn.Module:
    """The equal of medjax's model `name` with these config values. NotImplementedError where there is none."""
    networks = {"unet": UNet, "redcnn": REDCNN, "edsr": EDSR}
    if name not in networks:
        raise NotImplementedError(f"torch has no equal of {name}; there is {', '.join(networks)}")
    return networks[name](ndim, channels, scale, **values)


def _only(what: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise NotImplementedError(f"torch has no equal for {what}={value}; there is {', '.join(map(str, allowed))}")
    return value


def _conv(ndim: int, wide_in: int, wide_out: int, kernel: int = 3, bias: bool = True) -> nn.Module:
    return (nn.Conv2d, nn.Conv3d)[ndim - 2](wide_in, wide_out, kernel, padding=kernel // 2, bias=bias)


def _conv_transpose(ndim: int, wide_in: int, wide_out: int, kernel: int) -> nn.Module:
    return (nn.ConvTranspose2d, nn.ConvTranspose3d)[ndim - 2](wide_in, wide_out, kernel, padding=kernel // 2)


class ConvNormAct(nn.Module):
    """Convolution, group norm, activation."""

    def __init__(self, ndim: int, wide_in: int, wide_out: int, norm: str, act: str):
        super().__init__()
        self.conv = _conv(ndim, wide_in, wide_out, bias=norm == "none")
        groups = next(g for g in (8, 4, 2, 1) if wide_out % g == 0)
        self.norm = nn.Identity() if norm == "none" else nn.GroupNorm(groups, wide_out)
        self.act = ACTIVATIONS[act]

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class UNet(nn.Module):
    """medjax.models.unet with plain blocks, for sizes that divide."""

    def __init__(self, ndim: int, channels: int, scale: tuple[int, ...], width: int = 32, depth: int = 4,
                 norm: str = "group", act: str = "relu", block: str = "plain", residual: bool = True, dropout: float = 0.0):
        super().__init__()
        _only("norm", norm, ("group", "none"))
        _only("block", block, ("plain",))
        _only("dropout", dropout, (0.0,))
        widths = [width * 2**level for level in range(depth)]

        def pair(wide_in: int, wide_out: int) -> nn.Module:
            return nn.Sequential(ConvNormAct(ndim, wide_in, wide_out, norm, act),
                                 ConvNormAct(ndim, wide_out, wide_out, norm, act))

        self.down = nn.ModuleList(pair(a, b) for a, b in zip([channels, *widths[:-1]], widths, strict=True))
        self.lift = nn.ModuleList(_conv(ndim, 2 * w, w, 1) for w in widths[:-1])
        self.up = nn.ModuleList(pair(2 * w, w) for w in widths[:-1])
        self.head = _conv(ndim, width, channels, 1)
        self.pool = (nn.MaxPool2d, nn.MaxPool3d)[ndim - 2](2)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        h, skips = x, []
        for level, block in enumerate(self.down):
            if level:
                skips.append(h)
                h = self.pool(h)
            h = block(h)
        for lift, block in zip(reversed(self.lift), reversed(self.up), strict=True):
            h = functional.interpolate(lift(h), scale_factor=2, mode="nearest")
            h = block(torch.cat([skips.pop(), h], 1))
        out = self.head(h).to(x.dtype)
        return x + out if self.residual else out


class REDCNN(nn.Module):
    """medjax.models.redcnn."""

    def __init__(self, ndim: int, channels: int, scale: tuple[int, ...], width: int = 96, depth: int = 5, kernel: int = 5):
        super().__init__()
        self.encode = nn.ModuleList(_conv(ndim, width if i else channels, width, kernel) for i in range(depth))
        self.decode = nn.ModuleList(_conv_transpose(ndim, width, width if i else channels, kernel)
                                    for i in reversed(range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        h, shortcuts = x, []
        for i, layer in enumerate(self.encode):
            if i % 2 == 0:
                shortcuts.append(h)
            h = functional.relu(layer(h))
        for i, layer in zip(reversed(range(len(self.decode))), self.decode, strict=True):
            h = layer(h)
            if i % 2 == 0:
                h = h + shortcuts.pop()
            h = functional.relu(h) if i else h
        return h.to(x.dtype)


class EDSR(nn.Module):
    """medjax.models.edsr without normalisation, in 2-D or without enlarging."""

    def __init__(self, ndim: int, channels: int, scale: tuple[int, ...], width: int = 64, blocks: int = 8,
                 norm: str = "none", act: str = "relu", block_scale: float = 1.0):
        super().__init__()
        _only("norm", norm, ("none",))
        self.factor = max(scale)
        _only("scale", tuple(scale), ((1,) * ndim, *([(self.factor,) * 2] if ndim == 2 else [])))
        self.head = _conv(ndim, channels, width)
        self.blocks = nn.ModuleList(nn.ModuleList(_conv(ndim, width, width) for _ in range(2)) for _ in range(blocks))
        self.body = _conv(ndim, width, width)
        self.enlarge = _conv(ndim, width, width * self.factor**2) if self.factor > 1 else nn.Identity()
        self.tail = _conv(ndim, width, channels)
        self.act, self.block_scale = ACTIVATIONS[act], block_scale

    def forward(self, x: Tensor) -> Tensor:
        head = h = self.head(x)
        for first, second in self.blocks:
            r = second(self.act(first(h)))
            h = h + (r if self.block_scale == 1 else self.block_scale * r)
        h = self.enlarge(self.body(h) + head)
        if self.factor > 1:
            h = functional.pixel_shuffle(h, self.factor)
            x = functional.interpolate(x, scale_factor=self.factor, mode="nearest")
        return x + self.tail(h).to(x.dtype)
