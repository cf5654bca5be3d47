"""NAFNet (Chen et al., 2022) of the authors' code, as in BasicSR's state dicts (`params.` before all names)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from medjax.weights._table import Layout, Row, Shapes, before_shuffle, layer, norm

TITLE = "NAFNet"
CONFIG = "configs/quickstart.py:model=nafnet"
PREFIXES = ("params.", "params_ema.")
PREPARATION = "values in 0 … 1 (config.data.range), as in the original"
SCALE = Layout(np.ravel, lambda array: array[None, :, None, None])


def settings(shapes: Shapes) -> dict[str, object]:
    """Width, channels and blocks."""
    width, channels = shapes["intro.weight"][:2]
    levels = shapes.count("downs.{}.weight")
    blocks = {part: tuple(shapes.count(f"{part}s.{level}.{{}}.conv1.weight") for level in range(levels))
              for part in ("encoder", "decoder")}
    return {"data.channels": channels, "data.range": (0.0, 1.0), "model.width": width, "model.encoder": blocks["encoder"],
            "model.decoder": blocks["decoder"], "model.middle": shapes.count("middle_blks.{}.conv1.weight")}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table."""
    levels = len(model["encoder"])
    names = [f"encoders.{level}.{i}" for level, count in enumerate(model["encoder"]) for i in range(count)]
    names += [f"middle_blks.{i}" for i in range(model["middle"])]
    names += [f"decoders.{level}.{i}" for level, count in enumerate(model["decoder"]) for i in range(count)]
    found = layer("intro", "Conv_0") + layer("ending", f"Conv_{2 * levels + 1}")
    for level in range(levels):
        found += layer(f"downs.{level}", f"Conv_{1 + level}")
        found += layer(f"ups.{level}.0", f"Conv_{1 + levels + level}", False, before_shuffle()[0])
    for i, there in enumerate(names):
        here = f"NAFBlock_{i}"
        found += [Row(f"{there}.beta", f"params/{here}/first", SCALE), Row(f"{there}.gamma", f"params/{here}/second", SCALE)]
        for j, name in enumerate(("conv1", "conv2", "sca.1", "conv3", "conv4", "conv5")):
            found += layer(f"{there}.{name}", f"{here}/Conv_{j}")
        for j in range(2):
            found += norm(f"{there}.norm{1 + j}", f"{here}/Norm_{j}")
    return found
