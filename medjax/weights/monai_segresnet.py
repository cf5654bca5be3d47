"""MONAI's `SegResNet` (Myronenko, 2019) in 2-D or 3-D, one block on each level of the way up. Images as for
`monai_basicunet`.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from medjax.weights._segmentation import PREPARATION as PREPARATION
from medjax.weights._segmentation import of_images
from medjax.weights._table import Row, Shapes, layer, norm

TITLE = "MONAI's SegResNet"
CONFIG = "configs/brain_segment.py:model=segresnet"
PREFIXES = ("model.", "net.")
DOWN = "down_layers.{}.{}"


def settings(shapes: Shapes) -> dict[str, object]:
    """Width, blocks, channels and classes."""
    first = shapes["convInit.conv.weight"]
    levels = 1 + shapes.count("up_samples.{}.0.conv.weight")
    down = tuple(shapes.count(f"down_layers.{level}.{{}}.conv1.conv.weight", 1) for level in range(levels))
    return {**of_images(first, shapes["conv_final.2.conv.weight"]), "model.width": first[0], "model.down": down,
            "model.norm": "group"}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table. Blocks on the way up follow those on the way down in our numbers of layers."""
    conv = itertools.count()
    normal = itertools.count()

    def block(name: str) -> list[Row]:
        found = []
        for i in (1, 2):
            found += norm(f"{name}.norm{i}", f"Norm_{next(normal)}")
            found += layer(f"{name}.conv{i}.conv", f"Conv_{next(conv)}", False)
        return found

    found = layer("convInit.conv", f"Conv_{next(conv)}", False)
    for level, blocks in enumerate(model["down"]):
        if level:
            found += layer(DOWN.format(level, 0) + ".conv", f"Conv_{next(conv)}", False)
        for i in range(blocks):
            found += block(DOWN.format(level, i + 1))
    for step in range(len(model["down"]) - 1):
        found += layer(f"up_samples.{step}.0.conv", f"Conv_{next(conv)}", False)
        found += block(f"up_layers.{step}.0")
    return [*found, *norm("conv_final.0", f"Norm_{next(normal)}"), *layer("conv_final.2.conv", f"Conv_{next(conv)}")]
