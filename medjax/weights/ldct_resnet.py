"""The residual network of the package ldct-benchmark: `ldctbench.methods.resnet`; images as for `ldct_redcnn`."""

from collections.abc import Mapping
from typing import Any

from medjax.weights._table import Row, Shapes, layer, norm
from medjax.weights.ldct_redcnn import PREPARATION as PREPARATION
from medjax.weights.ldct_redcnn import RANGE

TITLE = "ResNet of ldct-benchmark"
CONFIG = "configs/ct_lowdose.py:source=files,model=denoising_resnet"
PREFIXES = ()
BLOCK = "blocks.{}.layers"


def settings(shapes: Shapes) -> dict[str, object]:
    """Width, blocks and groups."""
    width, channels = shapes["in_conv.weight"][:2]
    grouped = shapes[f"{BLOCK.format(0)}.3.weight"]
    return {"data.channels": channels, "data.range": RANGE, "model.width": width, "model.norm": "batch",
            "model.blocks": shapes.count(f"{BLOCK}.0.weight"), "model.groups": width // grouped[1]}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table."""
    blocks = model["blocks"]
    found = layer("in_conv", "Conv_0") + layer("out_conv", f"Conv_{2 * blocks + 1}")
    for i in range(blocks):
        name = BLOCK.format(i)
        found += layer(f"{name}.0", f"ConvNormAct_{i}/Conv_0") + norm(f"{name}.1", f"ConvNormAct_{i}/Norm_0", True)
        found += layer(f"{name}.3", f"Conv_{2 * i + 1}") + norm(f"{name}.4", f"Norm_{i}", True)
        found += layer(f"{name}.6", f"Conv_{2 * i + 2}")
    return found
