"""SwinIR (Liang et al., 2021) of the authors' code, as in its state dicts (`params.` before all names).

For images on one grid (denoising, artefacts of compression), not those that enlarge. Tables that follow from the sizes alone
are left out.
"""

import math
from collections.abc import Mapping
from typing import Any

from medjax.weights._table import LINEAR, Row, Shapes, layer, norm

TITLE = "SwinIR"
CONFIG = "configs/quickstart.py:model=swinir"
PREFIXES = ("params.", "params_ema.")
LEFT_OUT = r"\.relative_position_index$|(^|\.)attn_mask$"
PREPARATION = "values in 0 … 1 (config.data.range), as in the original"
MEAN = (0.4488, 0.4371, 0.4040)  # of colour images, as the original subtracts it
BLOCK = "layers.{}.residual_group.blocks.{}"


def settings(shapes: Shapes) -> dict[str, object]:
    """Width, channels, depths, heads, window and expansion."""
    width, channels = shapes["conv_first.weight"][:2]
    first = BLOCK.format(0, 0)
    offsets, heads = shapes[f"{first}.attn.relative_position_bias_table"]
    depths = tuple(shapes.count(f"layers.{i}.residual_group.blocks.{{}}.norm1.weight")
                   for i in range(shapes.count("layers.{}.conv.weight")))
    return {"data.channels": channels, "data.range": (0.0, 1.0), "model.width": width, "model.depths": depths,
            "model.heads": heads, "model.window": (math.isqrt(offsets) + 1) // 2,
            "model.expansion": shapes[f"{first}.mlp.fc1.weight"][0] / width, "model.residual": True,
            "model.mean": MEAN if channels == len(MEAN) else ()}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table."""
    depths = model["depths"]
    last = f"Conv_{len(depths) + 2}"
    found = layer("conv_first", "Conv_0") + norm("patch_embed.norm", "Norm_0") + norm("norm", "Norm_1")
    found += layer("conv_after_body", f"Conv_{len(depths) + 1}") + layer("conv_last", last)
    blocks = [(i, j) for i, depth in enumerate(depths) for j in range(depth)]
    for number, (i, j) in enumerate(blocks):
        there, here = BLOCK.format(i, j), f"SwinBlock_{number}"
        found.append(Row(f"{there}.attn.relative_position_bias_table", f"params/{here}/WindowAttention_0/offsets"))
        found += layer(f"{there}.attn.qkv", f"{here}/WindowAttention_0/Conv_0", layout=LINEAR)
        found += layer(f"{there}.attn.proj", f"{here}/WindowAttention_0/Conv_1", layout=LINEAR)
        found += layer(f"{there}.mlp.fc1", f"{here}/Conv_0", layout=LINEAR)
        found += layer(f"{there}.mlp.fc2", f"{here}/Conv_1", layout=LINEAR)
        found += norm(f"{there}.norm1", f"{here}/Norm_0") + norm(f"{there}.norm2", f"{here}/Norm_1")
    for i in range(len(depths)):
        found += layer(f"layers.{i}.conv", f"Conv_{1 + i}")
    return found
