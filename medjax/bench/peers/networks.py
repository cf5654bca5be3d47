"""medjax's networks in PyTorch, layer for layer and with the same initialisation; channels first, float32 parameters."""

import inspect
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
    "silu": functional.silu,
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
}
TRUNCATED_STD = 0.87962566103423978  # of a standard normal distribution cut off at -2 and 2


def build(name: str, ndim: int, channels: int, scale: Sequence[int], **values: Any) -> nn.Module:
    """medjax's model `name` with all its config values but `dtype`.

    Raises NotImplementedError for a model, a key or a value that has no equal here.
    """
    networks = {"unet": UNet, "redcnn": REDCNN, "edsr": EDSR}
    _only("model", name, tuple(networks))
    known = set(inspect.signature(networks[name]).parameters) - {"ndim", "channels", "scale"}
    if known != set(values):
        differing = ", ".join(sorted(known ^ set(values)))
        raise NotImplementedError(f"PyTorch's {name} and medjax's differ in the keys {differing}; "
                                  "mend medjax/bench/peers/networks.py")
    return networks[name](ndim, channels, scale, **values)


def _only(what: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise NotImplementedError(f"PyTorch has no equal of {what}={value}; choose from {', '.join(map(str, allowed))}")


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    _only("act", name, tuple(ACTIVATIONS))
    return ACTIVATIONS[name]


def _conv(ndim: int, wide_in: int, wide_out: int, kernel: int = 3, bias: bool = True, scale: float = 2.0,
          stride: int = 1) -> nn.Module:
    """A convolution that keeps the size, or takes whole steps of `stride` without padding.

    Its weights start with variance `scale` over the inputs of an output.
    """
    layer = (nn.Conv2d, nn.Conv3d)[ndim - 2](wide_in, wide_out, kernel, stride=stride,
                                             padding=kernel // 2 if stride == 1 else 0, bias=bias)
    return _initialised(layer, scale / (wide_in * kernel**ndim))


def _conv_transpose(ndim: int, wide_in: int, wide_out: int, kernel: int) -> nn.Module:
    layer = (nn.ConvTranspose2d, nn.ConvTranspose3d)[ndim - 2](wide_in, wide_out, kernel, padding=kernel // 2)
    return _initialised(layer, 2.0 / (wide_in * kernel**ndim))


def _initialised(layer: nn.Module, variance: float) -> nn.Module:
    """Weights from a normal distribution cut off at two standard deviations, biases 0."""
    std = math.sqrt(variance) / TRUNCATED_STD
    if std:
        nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    else:
        nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ChannelNorm(nn.LayerNorm):
    """Normalises each voxel over its channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def _norm(ndim: int, kind: str, width: int) -> nn.Module:
    """As in medjax: eps 1e-5, up to 8 groups, running averages with weight 0.1 (of the unbiased variance, in PyTorch)."""
    _only("norm", kind, ("none", "batch", "group", "instance", "layer"))
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return (nn.BatchNorm2d, nn.BatchNorm3d)[ndim - 2](width)
    if kind == "group":
        return nn.GroupNorm(next(g for g in (8, 4, 2, 1) if width % g == 0), width)
    return nn.GroupNorm(width, width) if kind == "instance" else ChannelNorm(width)


class ConvNormAct(nn.Module):
    """Convolution, with a bias where no normalisation follows; normalisation; activation."""

    def __init__(self, ndim: int, wide_in: int, wide_out: int, norm: str, act: str):
        super().__init__()
        self.conv = _conv(ndim, wide_in, wide_out, bias=norm == "none")
        self.norm = _norm(ndim, norm, wide_out)
        self.act = _activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Plain(nn.Module):
    """Two convolutions with normalisation and activation."""

    def __init__(self, ndim: int, wide_in: int, wide_out: int, norm: str, act: str):
        super().__init__()
        self.first = ConvNormAct(ndim, wide_in, wide_out, norm, act)
        self.second = ConvNormAct(ndim, wide_out, wide_out, norm, act)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class Residual(nn.Module):
    """Two convolutions around a 1x1 shortcut; the second activation comes after the sum."""

    def __init__(self, ndim: int, wide_in: int, wide_out: int, norm: str, act: str):
        super().__init__()
        self.first = ConvNormAct(ndim, wide_in, wide_out, norm, act)
        self.second = _conv(ndim, wide_out, wide_out)
        self.norm = _norm(ndim, norm, wide_out)
        self.shortcut = _conv(ndim, wide_in, wide_out, 1)
        self.act = _activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.second(self.first(x))) + self.shortcut(x))


class UNet(nn.Module):
    """medjax.models.unet; a volume has no stride."""

    def __init__(self, ndim: int, channels: int, scale: Sequence[int], width: int, depth: int, norm: str, act: str,
                 block: str, residual: bool, out_scale: float, dropout: float, stride: int, widths: Sequence[int], pool: str,
                 up: str, bias: bool, standardise: bool, deep_supervision: int):
        super().__init__()
        blocks = {"plain": Plain, "residual": Residual}
        _only("block", block, tuple(blocks))
        for what, value, default in (("pool", pool, "max"), ("up", up, "repeat"), ("bias", bias, False),
                                     ("standardise", standardise, False), ("deep_supervision", deep_supervision, 0)):
            _only(what, value, (default,))
        if ndim == 3:
            _only("stride of volumes", stride, (1,))
        self.stride = stride
        widths = list(widths) or [width * 2**level for level in range(depth)]
        self.enter = _conv(ndim, channels, widths[0], stride, stride=stride) if stride > 1 else nn.Identity()
        finer = [widths[0] if stride > 1 else channels, *widths[:-1]]
        self.down = nn.ModuleList(blocks[block](ndim, a, b, norm, act) for a, b in zip(finer, widths, strict=True))
        self.dropout = nn.Dropout(dropout)
        self.lift = nn.ModuleList(_conv(ndim, coarse, w, 1) for w, coarse in pairwise(widths))
        self.up = nn.ModuleList(blocks[block](ndim, 2 * w, w, norm, act) for w in widths[:-1])
        self.head = _conv(ndim, widths[0], channels * stride**ndim, 1, scale=out_scale)
        self.pool = (nn.MaxPool2d, nn.MaxPool3d)[ndim - 2](2)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        h, skips = self.enter(_pad(x, self.stride * 2 ** (len(self.down) - 1))), []
        for level, block in enumerate(self.down):
            if level:
                skips.append(h)
                h = self.pool(h)
            h = block(h)
        h = self.dropout(h)
        for lift, block in zip(reversed(self.lift), reversed(self.up), strict=True):
            h = functional.interpolate(lift(h), scale_factor=2, mode="nearest")
            h = block(torch.cat([skips.pop(), h], 1))
        inside = (..., *(slice(0, size) for size in x.shape[2:]))
        h = self.head(h)
        out = (functional.pixel_shuffle(h, self.stride) if self.stride > 1 else h)[inside].to(x.dtype)
        return x + out if self.residual else out


def _pad(x: Tensor, multiple: int) -> Tensor:
    """Repeats the edge at the end of each spatial axis, up to a multiple."""
    pads = [pad for size in reversed(x.shape[2:]) for pad in (0, -size % multiple)]
    return functional.pad(x, pads, mode="replicate") if any(pads) else x


class REDCNN(nn.Module):
    """medjax.models.redcnn, whose `final_relu` is of the published form alone."""

    def __init__(self, ndim: int, channels: int, scale: Sequence[int], width: int, depth: int, kernel: int,
                 published: bool, final_relu: bool):
        super().__init__()
        _only("published", published, (False,))
        if kernel % 2 == 0:
            raise NotImplementedError(f"PyTorch has no equal of kernel={kernel}; choose an odd one")
        self.encode = nn.ModuleList(_conv(ndim, width if i else channels, width, kernel) for i in range(depth))
        self.decode = nn.ModuleList(_conv_transpose(ndim, width, width, kernel) for _ in range(depth - 1))
        self.tail = _conv(ndim, width, channels, kernel, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        h, shortcuts = x, []
        for i, layer in enumerate(self.encode):
            if i % 2 == 0:
                shortcuts.append(h)
            h = functional.relu(layer(h))
        for i, layer in zip(reversed(range(1, len(self.encode))), self.decode, strict=True):
            h = layer(h)
            if i % 2 == 0:
                h = h + shortcuts.pop()
            h = functional.relu(h)
        return (self.tail(h) + shortcuts.pop()).to(x.dtype)


class EDSR(nn.Module):
    """medjax.models.edsr in 2-D, or without enlarging."""

    def __init__(self, ndim: int, channels: int, scale: Sequence[int], width: int, blocks: int, norm: str, act: str,
                 block_scale: float):
        super().__init__()
        self.factor = max(scale)
        _only("scale", tuple(scale), ((1,) * ndim, *([(self.factor,) * 2] if ndim == 2 else [])))
        self.head = _conv(ndim, channels, width)
        self.blocks = nn.ModuleList(ResidualBlock(ndim, width, norm, act, block_scale) for _ in range(blocks))
        self.body = _conv(ndim, width, width)
        self.enlarge = _conv(ndim, width, width * self.factor**2) if self.factor > 1 else nn.Identity()
        self.tail = _conv(ndim, width, channels, scale=0.1)

    def forward(self, x: Tensor) -> Tensor:
        head = h = self.head(x)
        for block in self.blocks:
            h = block(h)
        h = self.enlarge(self.body(h) + head)
        if self.factor > 1:
            h = functional.pixel_shuffle(h, self.factor)
            x = functional.interpolate(x, scale_factor=self.factor, mode="nearest")
        return x + self.tail(h).to(x.dtype)


class ResidualBlock(nn.Module):
    """EDSR's: nothing follows the sum."""

    def __init__(self, ndim: int, width: int, norm: str, act: str, scale: float):
        super().__init__()
        self.first = ConvNormAct(ndim, width, width, norm, act)
        self.second = _conv(ndim, width, width, scale=0.2)
        self.norm = _norm(ndim, norm, width)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        r = self.norm(self.second(self.first(x)))
        return x + (r if self.scale == 1 else self.scale * r)
