"""VGG-11, 13, 16 and 19 (Simonyan & Zisserman, 2015) of torchvision, with batch normalisation or without.

Images as for `torchvision_resnet`; the network takes those of 224 x 224 pixels alone.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any

from medjax.models.vgg import STAGES
from medjax.types import UserError
from medjax.weights._imagenet import PREPARATION as PREPARATION
from medjax.weights._imagenet import of_images
from medjax.weights._table import Row, Shapes, from_grid, layer, norm

TITLE = "torchvision's VGG"
CONFIG = "configs/xray_classify.py:model=vgg"
PREFIXES = ("model.",)
DENSE = (0, 3, 6)  # linear layers of the original's classifier


def settings(shapes: Shapes) -> dict[str, object]:
    """Depth, width, image size, channels and classes. Raises UserError for other numbers of layers than VGG has."""
    width, channels = shapes["features.0.weight"][:2]
    convs = sum(name.startswith("features.") and len(shape) == 4 for name, shape in shapes.items())
    batch = "features.1.running_mean" in shapes
    depth = convs + len(DENSE)
    if depth not in STAGES:
        raise UserError("config.model.depth", f"the weights have {convs} convolutions; vgg has "
                        f"{', '.join(str(depth - len(DENSE)) for depth in STAGES)}")
    dense = [shapes[f"classifier.{number}.weight"] for number in DENSE]
    side = 32 * isqrt(dense[0][1] // (8 * width))
    return {**of_images(channels, dense[-1][0]), "data.patch": (side, side), "model.depth": depth, "model.width": width,
            "model.dense": tuple(shape[0] for shape in dense[:-1]), "model.norm": "batch" if batch else "none",
            "model.bias": batch, "model.head": "grid"}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table. A convolution of the original is followed by its normalisation, a ReLU, and pooling after a stage."""
    found, there, here = [], 0, 0
    for convs in STAGES[model["depth"]]:
        for _ in range(convs):
            found += layer(f"features.{there}", f"ConvNormAct_{here}/Conv_0")
            if model["norm"] == "batch":
                found += norm(f"features.{there + 1}", f"ConvNormAct_{here}/Norm_0", True)
            there, here = there + (3 if model["norm"] == "batch" else 2), here + 1
        there += 1
    found += layer(f"classifier.{DENSE[0]}", "head/Dense_0", layout=from_grid(8 * model["width"]))
    return found + [row for i in (1, 2) for row in layer(f"classifier.{DENSE[i]}", f"head/Dense_{i}")]
