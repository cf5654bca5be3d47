"""MONAI's `DynUNet`, the network of nnU-Net (Isensee et al., 2021), in 2-D or 3-D: kernels of 3, strides of 2, instance
normalisation with scale and bias, no deep supervision. Images as for `monai_basicunet`.
"""

from collections.abc import Mapping
from typing import Any

from medjax.weights._segmentation import PREPARATION as PREPARATION
from medjax.weights._segmentation import of_images
from medjax.weights._table import HALVES_SWAPPED, KERNEL, Row, Shapes, layer, norm

TITLE = "MONAI's DynUNet"
CONFIG = "configs/brain_segment.py:model=unet"
PREFIXES = ("model.", "net.")


def settings(shapes: Shapes) -> dict[str, object]:
    """Widths, channels and classes."""
    first = "{}.conv1.conv.weight"
    downs = shapes.count(first.format("downsamples.{}"))
    widths = [shapes[first.format(name)][0]
              for name in ("input_block", *(f"downsamples.{i}" for i in range(downs)), "bottleneck")]
    return {**of_images(shapes[first.format("input_block")], shapes["output_block.conv.conv.weight"]),
            "model.widths": tuple(widths), "model.depth": len(widths), "model.norm": "instance",
            "model.act": "leaky_relu_0.01", "model.bias": False, "model.residual": False, "model.pool": "stride",
            "model.up": "transposed"}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table; the original has every array but the output's twice, the second time inside of `skip_layers`."""
    depth = model["depth"]
    downs = ["input_block", *(f"downsamples.{i}" for i in range(depth - 2)), "bottleneck"]
    found, again = [], []
    for level, name in enumerate(downs):
        inner = "skip_layers." + "next_layer." * level
        found += _block(name, 2 * level)
        again += _block(inner.removesuffix(".") if level == depth - 1 else f"{inner}downsample", 2 * level)
    for step in range(depth - 1):
        inner = "skip_layers." + "next_layer." * (depth - 2 - step)
        for there, kept in ((f"upsamples.{step}", found), (f"{inner}upsample", again)):
            kept += layer(f"{there}.transp_conv.conv", f"ConvTranspose_{step}", False)
            kept += _block(f"{there}.conv_block", 2 * (depth + step), stacked=True)
    return [*found, *layer("output_block.conv.conv", "Conv_0"), *again]


def _block(name: str, first: int, stacked: bool = False) -> list[Row]:
    found = []
    for i in range(2):
        layout = HALVES_SWAPPED if stacked and not i else KERNEL
        found += layer(f"{name}.conv{i + 1}.conv", f"ConvNormAct_{first + i}/Conv_0", False, layout)
        found += norm(f"{name}.norm{i + 1}", f"ConvNormAct_{first + i}/Norm_0")
    return found
