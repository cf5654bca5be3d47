"""The layers every family is made of. Images are `(B, *space, C)` with two or three spatial axes.

Parameters are float32; `dtype` is what a layer computes in.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from medjax.ops import conv as ops
from medjax.types import Array, CoarseOutput, UserError

# Slopes for what is negative.
LEAKS = {"none": 1.0, "relu": 0.0, "leaky_relu": 0.2, "leaky_relu_0.1": 0.1, "leaky_relu_0.01": 0.01}
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "leaky_relu": partial(nn.leaky_relu, negative_slope=LEAKS["leaky_relu"]),
    "leaky_relu_0.1": partial(nn.leaky_relu, negative_slope=LEAKS["leaky_relu_0.1"]),
    "leaky_relu_0.01": partial(nn.leaky_relu, negative_slope=LEAKS["leaky_relu_0.01"]),
    "prelu": lambda x: PReLU()(x),
    "prelu_channel": lambda x: PReLU(per_channel=True)(x),
    "silu": nn.silu,
    "gelu": nn.gelu,
}


def activation(name: str) -> Callable[[Array], Array]:
    """The activation called `name`, for use in a compact method: some have parameters."""
    if name not in ACTIVATIONS:
        raise UserError("config.model.act", f"no activation {name!r}; there is {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


class Conv(nn.Module):
    """Convolution with bias and, where `act` names one, an activation, by `medjax.ops.conv`; in `groups` of channels."""

    features: int
    kernel: int | Sequence[int] = 3
    stride: int | Sequence[int] = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"
    bias: bool = True
    scale: float = 2.0
    act: str = "none"
    groups: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n = x.ndim - 2
        kernel = (self.kernel,) * n if isinstance(self.kernel, int) else tuple(self.kernel)
        init = nn.initializers.variance_scaling(self.scale, "fan_in", "truncated_normal")
        w = self.param("kernel", init, (*kernel, x.shape[-1] // self.groups, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.bias else None
        y = ops.conv(x.astype(self.dtype), w.astype(self.dtype), bias=bias, stride=self.stride, padding=self.padding,
                     groups=self.groups, leak=LEAKS.get(self.act, 1.0))
        return y if self.act in LEAKS else activation(self.act)(y)


class ConvTranspose(nn.Module):
    """Transposed convolution: the adjoint of a `Conv` with this kernel, stride and padding."""

    features: int
    kernel: int | Sequence[int] = 3
    stride: int | Sequence[int] = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"
    bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = (self.kernel,) * (x.ndim - 2) if isinstance(self.kernel, int) else tuple(self.kernel)
        init = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
        w = self.param("kernel", init, (*kernel, self.features, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.bias else None
        return ops.conv_transpose(x.astype(self.dtype), w.astype(self.dtype), bias=bias, stride=self.stride,
                                  padding=self.padding)


class PReLU(nn.Module):
    """Leaky ReLU whose slope is learned (He et al., 2015): one for the layer, or one for each channel."""

    per_channel: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1] if self.per_channel else 1,))
        return jnp.where(x > 0, x, slope.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,)) * x)


WITHOUT_BIAS = ("none", "instance_plain")  # normalisations that have none, so that a convolution before them needs one


class Norm(nn.Module):
    """Normalisation by name: "none", "batch", "group" (8 groups), "instance" or "layer" (over channels); `epsilon` is added
    to variances. "layer_scale" divides by the standard deviation over channels, without centring and without a bias.

    "instance_plain" has no parameters, the others a scale, which starts at `scale`, and a bias for each channel.
    One pass over the data gives both moments, in float32: on CPU flax's two-pass forms cost a quarter of a U-Net step.
    """

    kind: str = "group"
    dtype: Any = jnp.float32
    epsilon: float = 1e-5
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        if self.kind == "none":
            return x
        if self.kind not in ("batch", "group", "instance", "instance_plain", "layer", "layer_scale"):
            raise UserError("config.model.norm", f"no {self.kind!r}; there is none, batch, group, instance, instance_plain, "
                            "layer, layer_scale")
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.kind == "instance_plain":
            mean, var = self._sample_moments(x)
            return ((x - mean) * lax.rsqrt(var + self.epsilon)).astype(self.dtype)
        channels = x.shape[-1]
        row = (1,) * (x.ndim - 1) + (channels,)
        scale = self.param("scale", nn.initializers.constant(self.scale), (channels,)).reshape(row)
        if self.kind == "layer_scale":
            return (x * (scale * lax.rsqrt(_moments(x, (-1,))[1] + self.epsilon))).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,)).reshape(row)
        mean, var = self._batch_moments(x, train) if self.kind == "batch" else self._sample_moments(x)
        gain = scale * lax.rsqrt(var + self.epsilon)
        return (x * gain + (bias - mean * gain)).astype(self.dtype)

    def _sample_moments(self, x: Array) -> tuple[Array, Array]:
        if self.kind == "layer":
            return _moments(x, (-1,))
        mean, var = _moments(x, tuple(range(1, x.ndim - 1)))
        if self.kind in ("instance", "instance_plain"):
            return mean, var
        channels = x.shape[-1]
        groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
        grouped = (*mean.shape[:-1], groups, channels // groups)
        means, within = mean.reshape(grouped), var.reshape(grouped).mean(-1, keepdims=True)
        middle = means.mean(-1, keepdims=True)
        between = jnp.square(means - middle).mean(-1, keepdims=True)
        whole = [jnp.broadcast_to(v, grouped).reshape(*var.shape) for v in (middle, within + between)]
        return whole[0], whole[1]

    def _batch_moments(self, x: Array, train: bool) -> tuple[Array, Array]:
        channels = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        row = (1,) * (x.ndim - 1) + (channels,)
        if not train:
            return mean.value.reshape(row), var.value.reshape(row)
        now_mean, now_var = _moments(x, tuple(range(x.ndim - 1)))
        if not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * now_mean.reshape(-1)
            var.value = 0.9 * var.value + 0.1 * now_var.reshape(-1)
        return now_mean, now_var


def _moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and variance over `axes`, in one pass over the data less the mean of one slice (Chan et al., 1983).

    That mean lies within `sqrt(n)` standard deviations of the whole one, `n` the length of the last axis: the variance is
    good to about `n` roundings, whatever the mean.
    """
    near = lax.index_in_dim(x, x.shape[axes[-1]] // 2, axes[-1]).mean(axes, keepdims=True)
    near = lax.stop_gradient(near)
    away = x - near
    shift = away.mean(axes, keepdims=True)
    return near + shift, jnp.maximum(jnp.square(away).mean(axes, keepdims=True) - jnp.square(shift), 0)


class ConvNormAct(nn.Module):
    """Convolution, normalisation, activation.

    Without normalisation the convolution has a bias; with `bias` it has one in any case, as some published networks do.
    """

    features: int
    kernel: int | Sequence[int] = 3
    stride: int | Sequence[int] = 1
    norm: str = "group"
    act: str = "relu"
    dtype: Any = jnp.float32
    bias: bool = False
    padding: str | Sequence[tuple[int, int]] = "SAME"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        if self.norm == "none":
            return Conv(self.features, self.kernel, self.stride, self.padding, act=self.act, dtype=self.dtype)(x)
        x = Conv(self.features, self.kernel, self.stride, self.padding, self.bias, dtype=self.dtype)(x)
        wide = jnp.promote_types(self.dtype, jnp.float32)  # through the activation: one pass less
        x = Norm(self.norm, wide)(x, train)
        return activation(self.act)(x).astype(self.dtype)


def both_sides(kernel: int | Sequence[int], ndim: int) -> tuple[tuple[int, int], ...]:
    """Padding by `kernel // 2` on both sides: where a stride is 2, "SAME" pads only the far side of even sizes."""
    return tuple((k // 2,) * 2 for k in ((kernel,) * ndim if isinstance(kernel, int) else kernel))


def pad_to_multiple(x: Array, multiple: int | Sequence[int]) -> tuple[Array, tuple[slice, ...]]:
    """Edge-pads the spatial axes to a multiple, one for all or one each; the slices cut the result back."""
    sizes = x.shape[1:-1]
    multiples = (multiple,) * len(sizes) if isinstance(multiple, int) else multiple
    pads = [(0, 0), *((0, -size % m) for size, m in zip(sizes, multiples, strict=True)), (0, 0)]
    cut = (slice(None), *(slice(0, size) for size in sizes))
    return (jnp.pad(x, pads, mode="edge") if any(hi for _, hi in pads) else x), cut


def sow_coarse(module: nn.Module, outputs: Sequence[CoarseOutput]) -> None:
    """Leaves a network's outputs of coarser levels, the finest first, where objectives find them (`Model`)."""
    if outputs and not module.is_initializing():
        module.sow("coarse", "outputs", tuple(outputs), init_fn=tuple, reduce_fn=lambda _, now: now)


def coarse_output(image: Array, factors: Sequence[int], space: Sequence[int]) -> CoarseOutput:
    """The output on a grid that is `factors` times coarser, without what padding of an image of sizes `space` made."""
    cut = (slice(None), *(slice(0, -(-size // f)) for size, f in zip(space, factors, strict=True)))
    return CoarseOutput(image[cut].astype(jnp.float32), tuple(factors))


def check_deep_supervision(levels: int, most: int) -> None:
    """Raises UserError where a decoder hasn't as many coarser levels that may have an output."""
    if not 0 <= levels <= most:
        raise UserError("config.model.deep_supervision", f"{levels} coarser levels with an output, and a network of this "
                        f"depth can have {most}; give {'0 to ' if most else ''}{most}, or a larger depth")


def check_ndim(x: Array, ndim: int) -> None:
    """Raises UserError where `x` is not a batch of images with `ndim` spatial axes."""
    if x.ndim != ndim + 2:
        raise UserError("config.data.ndim", f"the model is {ndim}-D and the images are {x.ndim - 2}-D")


def check_same_grid(name: str, scale: Sequence[int]) -> None:
    """Raises UserError where a model that keeps the grid is asked to change it."""
    if any(s != 1 for s in scale):
        raise UserError("config.model.name", f"{name} keeps the grid and the task enlarges it by {tuple(scale)}; "
                        "use --config.task.grid=fine or a model with pixel shuffle (edsr)")
