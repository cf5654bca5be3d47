"""RED-CNN (Chen et al., 2017) of the package ldct-benchmark: `ldctbench.methods.redcnn`.

It takes images in HU, mean 0 and standard deviation 1 over its training set: the run's `data.range` is that mean and one
deviation above. So PSNR is of a range of 502 HU. There is no ReLU at the end, where images are standardised.
"""

from collections.abc import Mapping
from typing import Any

from medjax.weights._table import MIRRORED, Row, Shapes, layer

TITLE = "RED-CNN of ldct-benchmark"
CONFIG = "configs/ct_lowdose.py:source=files"
PREFIXES = ()
PREPARATION = "HU, less the training set's mean, over its deviation, as in ldct-benchmark (config.data.range)"
MEAN, STD = 481.454 - 1024, 502.185  # HU: ldct-benchmark's data, stored with an offset of 1024
RANGE = (MEAN, MEAN + STD)


def settings(shapes: Shapes) -> dict[str, object]:
    """Width, depth and kernel."""
    width, channels, kernel, _ = shapes["conv1.weight"]
    return {"data.channels": channels, "data.range": RANGE, "model.width": width, "model.kernel": kernel,
            "model.depth": shapes.count("conv{}.weight", 1), "model.published": True, "model.final_relu": False}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table."""
    depth = model["depth"]
    found = [row for i in range(depth) for row in layer(f"conv{i + 1}", f"Conv_{i}")]
    found += [row for i in range(depth - 1) for row in layer(f"tconv{i + 1}", f"ConvTranspose_{i}")]
    return found + layer(f"tconv{depth}", f"Conv_{depth}", layout=MIRRORED)
