"""ResNet-18, 34, 50, 101 and 152 (He et al., 2016) of torchvision, or of other code with its names.

ImageNet's mean and deviation of each colour are taken off in the network (`config.model.mean`, `std`). torchvision also
makes the shorter side 256 pixels and cuts out the middle 224 x 224; the run takes images as they are. Classes have numbers,
in ImageNet's order; `config.task.classes` names them.
"""

from collections.abc import Mapping
from itertools import count
from typing import Any

from medjax.models.resnet import DEPTHS
from medjax.types import UserError
from medjax.weights._imagenet import PREPARATION as PREPARATION
from medjax.weights._imagenet import of_images
from medjax.weights._table import Row, Shapes, layer, norm

TITLE = "torchvision's ResNet"
CONFIG = "configs/xray_classify.py:model=resnet"
PREFIXES = ("model.",)


def settings(shapes: Shapes) -> dict[str, object]:
    """Depth, width, channels and classes. Raises UserError for other numbers of blocks than He et al. have."""
    width, channels, kernel, _ = shapes["conv1.weight"]
    blocks = tuple(shapes.count(f"layer{stage}.{{}}.conv1.weight") for stage in (1, 2, 3, 4))
    found = (blocks, "layer1.0.conv3.weight" in shapes)
    depth = next((depth for depth, known in DEPTHS.items() if known == found), None)
    if depth is None or kernel != 7:
        raise UserError("config.model.depth", f"the weights have stages of {', '.join(map(str, blocks))} blocks and a first "
                        f"kernel of {kernel}; resnet has {', '.join(map(str, DEPTHS))} layers and 7")
    return {**of_images(channels, shapes["fc.weight"][0]), "model.depth": depth, "model.width": width, "model.norm": "batch",
            "model.stem": "large", "model.published": True}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table. The first block of a stage has a shortcut with weights, but for a plain one of the first stage."""
    stages, bottleneck = DEPTHS[model["depth"]]
    inner = 2 if bottleneck else 1  # units before the last convolution of a block
    units, ends = count(), count()

    def unit(conv: str, normal: str) -> list[Row]:
        here = f"ConvNormAct_{next(units)}"
        return [*layer(conv, f"{here}/Conv_0", False), *norm(normal, f"{here}/Norm_0", True)]

    def end(conv: str, normal: str) -> list[Row]:
        number = next(ends)
        return [*layer(conv, f"Conv_{number}", False), *norm(normal, f"Norm_{number}", True)]

    found = unit("conv1", "bn1")
    for stage, blocks in enumerate(stages):
        for i in range(blocks):
            name = f"layer{stage + 1}.{i}."
            for number in range(1, inner + 1):
                found += unit(f"{name}conv{number}", f"{name}bn{number}")
            found += end(f"{name}conv{inner + 1}", f"{name}bn{inner + 1}")
            if not i and (stage or bottleneck):
                found += end(f"{name}downsample.0", f"{name}downsample.1")
    return found + layer("fc", "head/Dense_0")
