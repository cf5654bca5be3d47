"""The U-Net of pix2pix (Isola et al., 2017), `netG` "unet_256" or "unet_128" of pytorch-CycleGAN-and-pix2pix, with batch
normalisation.

It takes images in -1 … 1, and ours does so inside, from unit range. The original's test command normalises each image by its
own statistics and drops units out, unless it is told `--eval`; the run does as with `--eval`.
"""

from collections.abc import Mapping
from typing import Any

from medjax.weights._table import Row, Shapes, layer, norm
from medjax.weights._translation import PREPARATION as PREPARATION
from medjax.weights._translation import of_images

TITLE = "pix2pix's U-Net"
CONFIG = "configs/translate.py:model=pix2pix_generator"
PREFIXES = ()


def settings(shapes: Shapes) -> dict[str, object]:
    """Depth, width and channels."""
    width, channels = shapes["model.model.0.weight"][:2]
    depth = 2
    while f"{_level(depth - 1)}.3.model.1.weight" in shapes:
        depth += 1
    return {**of_images(channels, shapes["model.model.3.weight"][1]), "model.width": width, "model.depth": depth,
            "model.norm": "batch"}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table: a level of the original has the coarser ones inside."""
    depth = model["depth"]
    found = layer("model.model.0", "Conv_0", False)
    for level in range(1, depth):
        found += layer(f"{_level(level)}.1", f"Conv_{level}", False)
        found += norm(f"{_level(level)}.2", f"Norm_{level}", True) if level < depth - 1 else []
    for level in reversed(range(1, depth)):
        up, after = (3, 4) if level == depth - 1 else (5, 6)
        step = depth - 1 - level
        found += layer(f"{_level(level)}.{up}", f"ConvTranspose_{step}", False)
        found += norm(f"{_level(level)}.{after}", f"Norm_{depth + step}", True)
    return found + layer("model.model.3", f"ConvTranspose_{depth - 1}")


def _level(level: int) -> str:
    """The layers of a level below the finest."""
    return "model.model.1.model" + ".3.model" * (level - 1)
