"""nnU-Net's networks: plain (Isensee et al., 2021) and with a residual encoder (Isensee et al., 2024)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import (
    Conv,
    ConvNormAct,
    ConvTranspose,
    Norm,
    activation,
    both_sides,
    check_deep_supervision,
    check_ndim,
    check_same_grid,
    coarse_output,
    pad_to_multiple,
    sow_coarse,
)
from medjax.ops.resample import mean_pool
from medjax.types import Array, CoarseOutput, Context, UserError, check_choice

PerStage = Sequence[int | Sequence[int]]
Sizes = tuple[int, ...]


class NNUNet(nn.Module):
    """A U-Net of `depth` stages, the first `width` channels wide and each coarser one twice as wide.

    `widths` are the channels of each stage where that is not so: nnU-Net's have at most 512, and 320 in 3-D. `kernels` (3)
    and `strides` (2, the first 1) are those of each stage, a number or one for each axis: with unequal voxels as in
    nnU-Net's plans. `encoder` is "plain", with `blocks` convolutions in each stage (2), or "residual", with as many residual
    blocks (1, 3, 4, 6, 6, …); the decoder has `decoder_blocks` convolutions in each stage, from the finest on (2; 1 beside
    a residual encoder), with kernels `decoder_kernels` (those of the encoder's stage). Any image size: it is padded to a
    multiple of the strides inside.

    `deep_supervision` coarser levels have an output, too, at most `depth` - 2, which are those of nnU-Net's files. In
    training they are used but for the lowest level's, which nnU-Net gives no weight; in use none is computed.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    encoder: str = "plain"
    width: int = 32
    depth: int = 4
    widths: Sequence[int] = ()
    kernels: PerStage = ()
    strides: PerStage = ()
    blocks: Sequence[int] = ()
    decoder_blocks: Sequence[int] = ()
    decoder_kernels: PerStage = ()
    norm: str = "instance"
    act: str = "leaky_relu_0.01"
    bias: bool = True
    deep_supervision: int = 0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("nnunet", self.scale)
        check_choice("config.model.encoder", self.encoder, ("plain", "residual"))
        widths, blocks, decoder_blocks = sizes(vars(self)).values()
        check_deep_supervision(self.deep_supervision, self.depth - 2)
        residual, finest = self.encoder == "residual", self.depth - 1
        kernels = self._per_axis("kernels", [3] * self.depth, self.depth)
        decoder_kernels = self._per_axis("decoder_kernels", kernels[:-1], finest)
        strides = self._per_axis("strides", [1, *[2] * finest], self.depth)
        if set(strides[0]) != {1}:
            raise UserError("config.model.strides", f"{strides[0]} in the first stage; give 1 there: the output has the "
                            "input's grid")
        factors = [tuple(math.prod(axis) for axis in zip(*strides[:level + 1], strict=True)) for level in range(self.depth)]
        h, cut = pad_to_multiple(x.astype(self.dtype), factors[-1])
        if residual:
            h = self._unit(widths[0], kernels[0], 1, "stem")(h, train)
        skips = []
        for level, width in enumerate(widths):
            for i in range(blocks[level]):
                stride = 1 if i else strides[level]
                make = self._residual if residual else self._unit
                h = make(width, kernels[level], stride, f"encoder{level}_{i}")(h, train)
            skips.append(h)
        skips.pop()
        coarse: list[CoarseOutput] = []
        for level in reversed(range(finest)):
            step = strides[level + 1]
            up = ConvTranspose(widths[level], step, step, bias=self.bias, dtype=self.dtype, name=f"up{level}")(h)
            h = jnp.concatenate([up, skips.pop()], -1)
            for i in range(decoder_blocks[level]):
                h = self._unit(widths[level], decoder_kernels[level], 1, f"decoder{level}_{i}")(h, train)
            used = train and level < finest - 1
            if 0 < level <= self.deep_supervision and (used or self.is_initializing()):
                coarse.insert(0, coarse_output(self._head(level)(h), factors[level], x.shape[1:-1]))
        sow_coarse(self, coarse)
        return self._head(0)(h)[cut].astype(x.dtype)

    def _unit(self, width: int, kernel: Sizes, stride: int | Sizes, name: str) -> ConvNormAct:
        return ConvNormAct(width, kernel, stride, self.norm, self.act, self.dtype, self.bias, both_sides(kernel, self.ndim),
                           name=name)

    def _residual(self, width: int, kernel: Sizes, stride: int | Sizes, name: str) -> "ResidualBlock":
        return ResidualBlock(width, kernel, stride, self.norm, self.act, self.bias, self.dtype, name=name)

    def _head(self, level: int) -> Conv:
        return Conv(self.channels, kernel=1, scale=0.1, dtype=self.dtype, name=f"head{level}")

    def _per_axis(self, key: str, default: PerStage, count: int) -> list[Sizes]:
        """For each of `count` stages a number for each axis; kernels are odd."""
        given = tuple(getattr(self, key)) or tuple(default)
        found = [(size,) * self.ndim if isinstance(size, int) else tuple(size) for size in given]
        if len(found) != count or any(len(size) != self.ndim or min(size) < 1 for size in found):
            raise UserError(f"config.model.{key}", f"{given} for {count} stages; give for each of them a number from 1, "
                            f"or {self.ndim}, or ()")
        if key != "strides" and any(size % 2 == 0 for sizes in found for size in sizes):
            raise UserError(f"config.model.{key}", f"{given}; give odd numbers")
        return found


def sizes(model: Mapping[str, Any]) -> dict[str, Sizes]:
    """`widths`, `blocks` and `decoder_blocks` of a network with these keys. Raises UserError for what can't be."""
    depth, residual = model["depth"], model["encoder"] == "residual"
    if depth < 2:
        raise UserError("config.model.depth", f"{depth}; give 2 or more")
    usual = {"widths": tuple(model["width"] * 2**level for level in range(depth)),
             "blocks": (1, 3, 4, *[6] * depth)[:depth] if residual else (2,) * depth,
             "decoder_blocks": (1 if residual else 2,) * (depth - 1)}
    found = {key: tuple(model[key]) or default for key, default in usual.items()}
    for key, default in usual.items():
        if len(found[key]) != len(default) or min(found[key]) < 1:
            raise UserError(f"config.model.{key}", f"{found[key]} for {len(default)} stages; give {len(default)} numbers "
                            "from 1, or ()")
    return found


class ResidualBlock(nn.Module):
    """Two convolutions, to whose result the input is added, as a mean where the grid gets coarser (He et al., 2019)."""

    features: int
    kernel: Sizes
    stride: int | Sizes
    norm: str
    act: str
    bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        wide, padding = jnp.promote_types(self.dtype, jnp.float32), both_sides(self.kernel, x.ndim - 2)
        first = ConvNormAct(self.features, self.kernel, self.stride, self.norm, self.act, self.dtype, self.bias, padding)
        h = first(x, train)
        bias = self.bias or self.norm == "none"
        h = Conv(self.features, self.kernel, padding=padding, bias=bias, dtype=self.dtype)(h)
        h = Norm(self.norm, wide, scale=0.0)(h, train)  # as in nnU-Net, so that a block begins as its shortcut
        if self.stride != 1:
            x = mean_pool(x, self.stride)
        if x.shape[-1] != self.features:
            x = Norm(self.norm, wide)(Conv(self.features, kernel=1, bias=False, dtype=self.dtype)(x), train)
        return activation(self.act)(h + x).astype(self.dtype)
