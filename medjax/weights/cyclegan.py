"""The generator of CycleGAN with residual blocks (Zhu et al., 2017), `netG` "resnet_9blocks" or "resnet_6blocks" of
pytorch-CycleGAN-and-pix2pix, without dropout.

It takes images in -1 … 1, and ours does so inside, from unit range. Statistics that old files have of normalisations without
any are left out.
"""

from collections.abc import Mapping
from typing import Any

from medjax.weights._table import Row, Shapes, layer
from medjax.weights._translation import PREPARATION as PREPARATION
from medjax.weights._translation import of_images

TITLE = "CycleGAN's generator of residual blocks"
CONFIG = "configs/translate.py:model=cyclegan_generator"
PREFIXES = ()
LEFT_OUT = r"\.running_(mean|var)$|\.num_batches_tracked$"
DOWN = ((1, 0), (4, 1), (7, 2))  # layer of the original, unit of ours
BLOCK = 10  # the first residual one


def settings(shapes: Shapes) -> dict[str, object]:
    """Blocks, width and channels."""
    blocks = shapes.count("model.{}.conv_block.1.weight", BLOCK)
    width, channels = shapes["model.1.weight"][:2]
    made = shapes[f"model.{BLOCK + blocks + 7}.weight"][0]
    return {**of_images(channels, made), "model.width": width, "model.blocks": blocks, "model.norm": "instance_plain"}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table."""
    blocks = model["blocks"]
    found = [row for there, here in DOWN for row in layer(f"model.{there}", f"ConvNormAct_{here}/Conv_0")]
    for i in range(blocks):
        found += layer(f"model.{BLOCK + i}.conv_block.1", f"ConvNormAct_{3 + i}/Conv_0")
        found += layer(f"model.{BLOCK + i}.conv_block.5", f"Conv_{i}")
    for i in range(2):
        found += layer(f"model.{BLOCK + blocks + 3 * i}", f"ConvTranspose_{i}")
    return found + layer(f"model.{BLOCK + blocks + 7}", f"Conv_{blocks}")
