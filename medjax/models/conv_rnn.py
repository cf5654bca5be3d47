"""Recurrent convolutional networks over slices or frames: ConvLSTM (Shi et al., 2015), ConvGRU (Ballas et al., 2016)."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Conv, activation, check_ndim
from medjax.ops.resample import pixel_shuffle, upsample
from medjax.types import Array, Context, UserError

PLANE = (1, 3, 3)  # a convolution within each frame


class Step(nn.Module):
    """One frame of a recurrence, from its state (one image, with an LSTM two) and what the frame adds to the gates."""

    features: int
    cell: str
    peepholes: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, state: tuple[Array, ...], gates: Array) -> tuple[tuple[Array, ...], Array]:
        if self.cell == "gru":
            (h,) = state
            update, reset, new = jnp.split(gates, 3, -1)
            from_h = Conv(2 * self.features, bias=False, scale=0.5, dtype=self.dtype)(h)
            from_update, from_reset = jnp.split(from_h, 2, -1)
            update, reset = nn.sigmoid(update + from_update), nn.sigmoid(reset + from_reset)
            new = nn.tanh(new + Conv(self.features, bias=False, scale=0.5, dtype=self.dtype)(reset * h))
            h = update * h + (1 - update) * new
            return (h,), h
        h, memory = state
        gates = gates + Conv(4 * self.features, bias=False, scale=0.5, dtype=self.dtype)(h)
        enter, forget, leave, new = jnp.split(gates, 4, -1)
        if self.peepholes:
            weights = self.param("peepholes", nn.initializers.zeros, (3, self.features)).astype(gates.dtype)
            to_enter, to_forget, to_leave = weights.reshape(3, *(1,) * (h.ndim - 1), self.features)
            enter, forget = enter + to_enter * memory, forget + to_forget * memory
        memory = nn.sigmoid(forget + 1) * memory + nn.sigmoid(enter) * nn.tanh(new)
        if self.peepholes:
            leave = leave + to_leave * memory
        h = nn.sigmoid(leave) * nn.tanh(memory)
        return (h, memory), h


class ConvRNN(nn.Module):
    """Restores stacks `(B, T, H, W, C)`: convolutions within frames, `layers` recurrences over the first axis.

    `cell` is "gru" or "lstm"; `both_ways` runs one recurrence from either end and takes both. The frames may be slices or
    times, as many as there are. With `peepholes` the gates of an LSTM see its memory, as in Shi et al.; one weight for each
    channel, where theirs has one for each pixel, so that any image size will do. Pixel shuffle by `scale` makes more voxels
    of each frame, or more frames.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 24
    layers: int = 1
    cell: str = "gru"
    both_ways: bool = True
    peepholes: bool = False
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        if self.ndim != 3:
            raise UserError("config.data.ndim", "conv_rnn goes along the first axis of volumes or series; set it to 3")
        if self.cell not in ("gru", "lstm"):
            raise UserError("config.model.cell", f"no {self.cell!r}; there is gru, lstm")
        if self.peepholes and self.cell != "lstm":
            raise UserError("config.model.peepholes", f"a {self.cell} has no memory to look at; "
                            "set it to False, or config.model.cell=lstm")
        check_ndim(x, self.ndim)
        h = Conv(self.width, PLANE, act="relu", dtype=self.dtype)(x)
        h = head = Conv(self.width, PLANE, act="relu", dtype=self.dtype)(h)
        for _ in range(self.layers):
            ways = [self._recur(h, reverse) for reverse in ((False, True) if self.both_ways else (False,))]
            h = h + Conv(self.width, (1, 1, 1), dtype=self.dtype)(jnp.concatenate(ways, -1))
        h = Conv(self.width, PLANE, act="relu", dtype=self.dtype)(jnp.concatenate([h, head], -1))
        if math.prod(self.scale) > 1:
            h = pixel_shuffle(Conv(self.width * math.prod(self.scale), PLANE, dtype=self.dtype)(h), self.scale)
            h = activation("relu")(h)
        out = Conv(self.channels, PLANE, scale=0.1, dtype=self.dtype)(h).astype(x.dtype)
        return upsample(x[..., : self.channels], self.scale) + out

    def _recur(self, x: Array, reverse: bool) -> Array:
        """The states of a recurrence along axis 1. What frames add to the gates is one convolution for all of them."""
        parts = 3 if self.cell == "gru" else 4
        gates = Conv(parts * self.width, PLANE, scale=0.5, dtype=self.dtype)(x)
        zero = jnp.zeros((x.shape[0], *x.shape[2:-1], self.width), gates.dtype)
        scan = nn.scan(Step, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1,
                       reverse=reverse)
        _, states = scan(self.width, self.cell, self.peepholes, self.dtype)((zero,) * (parts - 2), gates)
        return states
