"""CNN-10 (Chen et al., 2017) of the package ldct-benchmark: `ldctbench.methods.cnn10`; images as for `ldct_redcnn`."""

from collections.abc import Mapping
from typing import Any

from medjax.weights._table import Row, Shapes, layer
from medjax.weights.ldct_redcnn import PREPARATION as PREPARATION
from medjax.weights.ldct_redcnn import RANGE

TITLE = "CNN-10 of ldct-benchmark"
CONFIG = "configs/ct_lowdose.py:source=files,model=cnn"
PREFIXES = ()
LAYERS = 3


def settings(shapes: Shapes) -> dict[str, object]:
    """Features and kernels."""
    found = [shapes[f"layers.{2 * i}.weight"] for i in range(LAYERS)]
    return {"data.channels": found[0][1], "data.range": RANGE, "model.features": tuple(shape[0] for shape in found[:-1]),
            "model.kernels": tuple(shape[2] for shape in found), "model.residual": False, "model.norm": "none"}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table."""
    last = len(model["features"])
    found = [row for i in range(last) for row in layer(f"layers.{2 * i}", f"ConvNormAct_{i}/Conv_0")]
    return found + layer(f"layers.{2 * last}", "Conv_0")
