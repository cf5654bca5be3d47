"""MONAI's `BasicUNet` (Falk et al., 2019) in 2-D or 3-D, with its default normalisation and activation.

MONAI's networks have no scale of their own: images must come as they did in training. `config.data.range` or
`config.data.normalise` say how.
"""

from collections.abc import Mapping
from typing import Any

from medjax.weights._segmentation import PREPARATION as PREPARATION
from medjax.weights._segmentation import of_images
from medjax.weights._table import Row, Shapes, layer, norm

TITLE = "MONAI's BasicUNet"
CONFIG = "configs/brain_segment.py:model=unet"
PREFIXES = ("model.", "net.")
LEVELS = 5


def settings(shapes: Shapes) -> dict[str, object]:
    """Widths, channels and classes."""
    first = "conv_0.conv_0.conv.weight"
    widths = [shapes[first][0], *(shapes[f"down_{level}.convs.conv_0.conv.weight"][0] for level in range(1, LEVELS))]
    return {**of_images(shapes[first], shapes["final_conv.weight"]), "model.widths": tuple(widths), "model.depth": LEVELS,
            "model.norm": "instance", "model.act": "leaky_relu_0.1", "model.bias": True, "model.residual": False,
            "model.up": "transposed"}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table."""
    def block(name: str, first: int) -> list[Row]:
        found = []
        for i in range(2):
            found += layer(f"{name}.conv_{i}.conv", f"ConvNormAct_{first + i}/Conv_0")
            found += norm(f"{name}.conv_{i}.adn.N", f"ConvNormAct_{first + i}/Norm_0")
        return found

    depth = model["depth"]
    found = block("conv_0", 0)
    for level in range(1, depth):
        found += block(f"down_{level}.convs", 2 * level)
    for step in range(depth - 1):
        name = f"upcat_{depth - 1 - step}"
        found += layer(f"{name}.upsample.deconv", f"ConvTranspose_{step}")
        found += block(f"{name}.convs", 2 * (depth + step))
    return found + layer("final_conv", "Conv_0")
