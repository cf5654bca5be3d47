"""U-Net (Ronneberger et al., 2015; Çiçek et al., 2016 in 3-D) for restoration and segmentation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import (
    Conv,
    ConvNormAct,
    ConvTranspose,
    Norm,
    activation,
    check_deep_supervision,
    check_ndim,
    check_same_grid,
    coarse_output,
    pad_to_multiple,
    sow_coarse,
)
from medjax.ops.resample import max_pool, mean_pool, nearest, pixel_shuffle, upsample
from medjax.types import Array, CoarseOutput, Context, UserError

# With width 32 and depth 5 the U-Net of fastMRI (Zbontar et al., 2018).
FASTMRI: dict[str, Any] = {"norm": "instance_plain", "act": "leaky_relu", "residual": False, "pool": "mean",
                           "up": "transposed_norm"}


class UNet(nn.Module):
    """`depth` levels, `width` channels at the finest and twice as many at each coarser one.

    Any image size: it is padded to a multiple of `stride` * 2^(depth - 1) inside, and cut again. `stride` > 1 makes the
    finest level that much coarser than the image: a strided convolution leads there, pixel shuffle (Shi et al., 2016) back.
    `block` is "plain" (two convolutions) or "residual"; `residual` predicts what to add to the input. `out_scale` is the
    variance that the last layer starts with: how large the output of an untrained network is.

    `widths` are the channels of each level, where they do not double. `pool` is "max" or "mean"; `up` "repeat",
    "transposed" (a 2x2 transposed convolution), or "transposed_norm" (with normalisation and activation). `bias` gives one
    to convolutions before a normalisation, too. With `standardise` the network works on images of mean 0 and standard
    deviation 1, each by its own, clipped at 6 of these as fastMRI does, and its output gets them back: the scale of an
    image does not matter. In training as many coarser levels as `deep_supervision` says have an output, too, at most all
    of the way up but the lowest. Published settings are in docs/models.md: fastMRI (Zbontar et al., 2018), MONAI's
    BasicUNet (Falk et al., 2019).
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 32
    depth: int = 4
    norm: str = "group"
    act: str = "relu"
    block: str = "plain"
    residual: bool = True
    out_scale: float = 0.1
    dropout: float = 0.0
    stride: int = 1
    widths: Sequence[int] = ()
    pool: str = "max"
    up: str = "repeat"
    bias: bool = False
    standardise: bool = False
    deep_supervision: int = 0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("unet", self.scale)
        widths = self._checked_widths()
        given, space = x, x.shape[1:-1]
        if self.standardise:
            axes = tuple(range(1, x.ndim))
            mean = x.mean(axes, keepdims=True)
            std = jnp.sqrt(x.var(axes, keepdims=True, ddof=1)) + 1e-11
            x = jnp.clip((x - mean) / std, -6, 6)
        h, cut = pad_to_multiple(x.astype(self.dtype), self.stride * 2 ** (self.depth - 1))
        if self.stride > 1:
            h = Conv(widths[0], kernel=self.stride, stride=self.stride, padding="VALID", dtype=self.dtype)(h)
        skips = []
        for level, width in enumerate(widths):
            if level:
                skips.append(h)
                h = max_pool(h) if self.pool == "max" else mean_pool(h)
            h = self._block(h, width, train)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        coarse: list[CoarseOutput] = []
        for level, width in reversed(list(enumerate(widths[:-1]))):
            if self.up == "repeat":
                # A 1x1 convolution before the repeat is 2^ndim times less work than after it, and the same function.
                h = upsample(Conv(width, kernel=1, dtype=self.dtype)(h))
            else:
                h = self._transposed(h, width, train)
            h = self._block(jnp.concatenate([skips.pop(), h], -1), width, train)
            if 0 < level <= self.deep_supervision and (train or self.is_initializing()):
                factors = (self.stride * 2**level,) * self.ndim
                out = Conv(self.channels, 1, scale=self.out_scale, dtype=self.dtype, name=f"head{level}")(h)
                coarse.insert(0, coarse_output(out, factors, space))
        out = Conv(self.channels * self.stride**self.ndim, kernel=1, scale=self.out_scale, dtype=self.dtype)(h)
        out = (pixel_shuffle(out, self.stride) if self.stride > 1 else out)[cut].astype(x.dtype)

        def scaled(out: Array, given: Array) -> Array:
            if self.standardise:
                out = out * std if self.residual else out * std + mean
            return given[..., : self.channels] + out if self.residual else out

        sow_coarse(self, [replace(found, image=scaled(found.image, nearest(given, found.factors))) for found in coarse])
        return scaled(out, given)

    def _checked_widths(self) -> tuple[int, ...]:
        """The channels of each level. Raises UserError for settings that there are not."""
        known_values = {"block": ("plain", "residual"), "pool": ("max", "mean"),
                        "up": ("repeat", "transposed", "transposed_norm")}
        for key, known in known_values.items():
            value = getattr(self, key)
            if value not in known:
                raise UserError(f"config.model.{key}", f"no {value!r}; there is {', '.join(known)}")
        if self.widths and len(self.widths) != self.depth:
            raise UserError("config.model.widths", f"{len(self.widths)} levels and a depth of {self.depth}; make them equal")
        check_deep_supervision(self.deep_supervision, max(self.depth - 3, 0))
        return tuple(self.widths) or tuple(self.width * 2**level for level in range(self.depth))

    def _transposed(self, x: Array, width: int, train: bool) -> Array:
        bias = self.bias or self.norm == "none"
        h = ConvTranspose(width, kernel=2, stride=2, bias=bias, dtype=self.dtype)(x)
        return activation(self.act)(Norm(self.norm, self.dtype)(h, train)) if self.up == "transposed_norm" else h

    def _block(self, x: Array, width: int, train: bool) -> Array:
        h = ConvNormAct(width, 3, 1, self.norm, self.act, self.dtype, self.bias)(x, train)
        if self.block == "plain":
            return ConvNormAct(width, 3, 1, self.norm, self.act, self.dtype, self.bias)(h, train)
        h = Norm(self.norm, self.dtype)(Conv(width, dtype=self.dtype)(h), train)
        return activation(self.act)(h + Conv(width, kernel=1, dtype=self.dtype)(x))
