"""MONAI's `DynUNet`, the network of nnU-Net (Isensee et al., 2021) as MONAI has it, in 2-D or 3-D: any kernels and strides,
the heads of deep supervision, instance or batch normalisation with scale and bias. Images as for `monai_basicunet`.

The first stride, which no shape says, is 1, and the activation MONAI's own, leaky ReLU with a slope of 0.01.
"""

from collections.abc import Mapping
from typing import Any

from medjax.weights._segmentation import PREPARATION as PREPARATION
from medjax.weights._segmentation import of_images
from medjax.weights._table import Row, Shapes, layer, norm

TITLE = "MONAI's DynUNet"
CONFIG = "configs/brain_segment.py:model=nnunet"
PREFIXES = ("model.", "net.")


def settings(shapes: Shapes) -> dict[str, object]:
    """Widths, kernels, strides, heads, normalisation, channels and classes."""
    downs = shapes.count("downsamples.{}.conv1.conv.weight")
    first = [shapes[f"{name}.conv1.conv.weight"] for name in _stages(downs + 2)]
    ups = [f"upsamples.{step}" for step in reversed(range(downs + 1))]
    steps = [shapes[f"{up}.transp_conv.conv.weight"][2:] for up in ups]
    return {**of_images(first[0], shapes["output_block.conv.conv.weight"]),
            "model.depth": len(first), "model.widths": tuple(shape[0] for shape in first),
            "model.kernels": tuple(shape[2:] for shape in first), "model.strides": ((1,) * len(steps[0]), *steps),
            "model.decoder_kernels": tuple(shapes[f"{up}.conv_block.conv1.conv.weight"][2:] for up in ups),
            "model.deep_supervision": shapes.count("deep_supervision_heads.{}.conv.conv.weight"),
            "model.norm": "batch" if "input_block.norm1.running_mean" in shapes else "instance",
            "model.act": "leaky_relu_0.01", "model.bias": False}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table; the original has every array but the output's twice, the second time inside of `skip_layers`."""
    depth, batch = model["depth"], model["norm"] == "batch"

    def block(there: str, here: str) -> list[Row]:
        return [row for i in range(2) for row in (*layer(f"{there}.conv{i + 1}.conv", f"{here}_{i}/Conv_0", False),
                                                  *norm(f"{there}.norm{i + 1}", f"{here}_{i}/Norm_0", batch))]

    def up(there: str, level: int) -> list[Row]:
        return [*layer(f"{there}.transp_conv.conv", f"up{level}", False), *block(f"{there}.conv_block", f"decoder{level}")]

    found, again = [], []
    for level, name in enumerate(_stages(depth)):
        inner = "skip_layers." + "next_layer." * level
        found += block(name, f"encoder{level}")
        again += block(inner.removesuffix(".") if level == depth - 1 else f"{inner}downsample", f"encoder{level}")
    for level in reversed(range(depth - 1)):
        found += up(f"upsamples.{depth - 2 - level}", level)
        again += up("skip_layers." + "next_layer." * level + "upsample", level)
    found += layer("output_block.conv.conv", "head0")
    for level in range(1, model["deep_supervision"] + 1):
        found += layer(f"deep_supervision_heads.{level - 1}.conv.conv", f"head{level}")
        again += layer("skip_layers." + "next_layer." * level + "super_head.conv.conv", f"head{level}")
    return found + again


def _stages(depth: int) -> list[str]:
    """The original's names of the encoder's stages."""
    return ["input_block", *(f"downsamples.{i}" for i in range(depth - 2)), "bottleneck"]
