"""Restormer (Zamir et al., 2022) of the authors' code, as in BasicSR's state dicts (`params.` before all names)."""

from collections.abc import Iterator, Mapping
from typing import Any

from medjax.types import UserError
from medjax.weights._table import PER_CHANNEL, Row, Shapes, before_shuffle, layer

TITLE = "Restormer"
CONFIG = "configs/quickstart.py:model=restormer"
PREFIXES = ("params.", "params_ema.")
PREPARATION = "values in 0 … 1 (config.data.range), as in the original"
LEVELS = 4
BLOCK = "{}.{{}}.attn.temperature"


def settings(shapes: Shapes) -> dict[str, object]:
    """Width, channels, blocks, heads and the kind of normalisation. Raises UserError where the network has biases."""
    width, channels = shapes["patch_embed.proj.weight"][:2]
    for name in ("output.bias", "patch_embed.proj.bias"):
        if name in shapes:
            raise UserError("--weights", f"has {name}, and ours has no biases in convolutions; give weights with bias=False")
    names = [*(f"encoder_level{1 + level}" for level in range(LEVELS - 1)), "latent"]
    return {"data.channels": channels, "data.range": (0.0, 1.0), "model.width": width,
            "model.blocks": tuple(shapes.count(BLOCK.format(name)) for name in names),
            "model.heads": tuple(shapes[BLOCK.format(name).format(0)][0] for name in names),
            "model.refinement": shapes.count(BLOCK.format("refinement")),
            "model.norm": "layer" if "latent.0.norm1.body.bias" in shapes else "layer_scale"}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table."""
    if len(model["blocks"]) != LEVELS:
        raise UserError("config.model.blocks", f"has {len(model['blocks'])} levels, and the original {LEVELS}")
    shuffled = before_shuffle()[0]
    found = layer("patch_embed.proj", "Conv_0", False) + layer("output", f"Conv_{3 * LEVELS - 3}", False)
    for level in range(1, LEVELS):
        found += layer(f"down{level}_{level + 1}.body.0", f"Conv_{level}", False)
        found += layer(f"up{level + 1}_{level}.body.0", f"Conv_{LEVELS + 2 * (LEVELS - 1 - level)}", False, shuffled)
        if level > 1:
            found += layer(f"reduce_chan_level{level}", f"Conv_{LEVELS + 1 + 2 * (LEVELS - 1 - level)}", False)
    for i, there in enumerate(_names(model)):
        here = f"ChannelAttention_{i}"
        found.append(Row(f"{there}.attn.temperature", f"params/{here}/temperature", PER_CHANNEL))
        for j, name in enumerate(("qkv", "qkv_dwconv", "project_out")):
            found += layer(f"{there}.attn.{name}", f"{here}/Conv_{j}", False)
        for j, name in enumerate(("project_in", "dwconv", "project_out")):
            found += layer(f"{there}.ffn.{name}", f"GatedFeedForward_{i}/Conv_{j}", False)
        for j in range(2):
            found.append(Row(f"{there}.norm{1 + j}.body.weight", f"params/Norm_{2 * i + j}/scale"))
            if model["norm"] == "layer":
                found.append(Row(f"{there}.norm{1 + j}.body.bias", f"params/Norm_{2 * i + j}/bias"))
    return found


def _names(model: Mapping[str, Any]) -> Iterator[str]:
    """The blocks in the order in which they are called."""
    parts = [*(f"encoder_level{1 + level}" for level in range(LEVELS - 1)), "latent",
             *(f"decoder_level{1 + level}" for level in reversed(range(LEVELS - 1))), "refinement"]
    counts = [*model["blocks"], *reversed(model["blocks"][:-1]), model["refinement"]]
    return (f"{part}.{i}" for part, count in zip(parts, counts, strict=True) for i in range(count))
