"""DnCNN (Zhang et al., 2017) of SCICO: `scico.flax.DnCNNNet`, its variables as Flax's msgpack.

Trained for images in 0 … 1 of one channel with Gaussian noise of standard deviation 0.06 (6L, 17L), 0.1 (6M, 17M) or 0.2
(6H, 17H); the run's noise is 0.06 unless `config.task.strength` says otherwise. Files of 8 bit have 0 … 255:
`--config.data.range="(0.0,255.0)"`. SCICO takes colours one by one, and its network sees the opposite edge beyond an edge.
"""

from collections.abc import Mapping
from typing import Any

from medjax.weights._table import NEGATED, Row, Shapes

TITLE = "DnCNN of SCICO"
CONFIG = "configs/quickstart.py:model=dncnn"
PREFIXES = ()
PREPARATION = "values in 0 … 1 (config.data.range), as in SCICO"
BLOCK = "ConvBNBlock_{}"


def settings(shapes: Shapes) -> dict[str, object]:
    """Layers, features, channels; noise of the variant for the least of it."""
    first, blocks = shapes["params/conv_start/kernel"], shapes.count(f"params/{BLOCK}/Conv_0/kernel")
    return {"data.channels": first[2], "data.range": (0.0, 1.0), "task.noise": "gaussian", "task.strength": (0.06, 0.06),
            "model.features": (first[3],) * (blocks + 1), "model.kernels": (first[0],) * (blocks + 2), "model.norm": "batch",
            "model.residual": True, "model.bias": False, "model.padding": "circular"}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table. The original takes the last layer's output off the image, ours adds it."""
    found = [Row("params/conv_start/kernel", "params/Conv_0/kernel")]
    for i in range(len(model["features"]) - 1):
        there, here = BLOCK.format(i), f"ConvNormAct_{i}"
        found.append(Row(f"params/{there}/Conv_0/kernel", f"params/{here}/Conv_0/kernel"))
        found += [Row(f"params/{there}/BatchNorm_0/{name}", f"params/{here}/Norm_0/{name}") for name in ("scale", "bias")]
        found += [Row(f"batch_stats/{there}/BatchNorm_0/{name}", f"batch_stats/{here}/Norm_0/{name}")
                  for name in ("mean", "var")]
    return [*found, Row("params/conv_end/kernel", "params/Conv_1/kernel", NEGATED)]
