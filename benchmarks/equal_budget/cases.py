"""What is compared: a config of medjax, and the module of `peers` that trains the same kind of network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.equal_budget import quality

Scores = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]


@dataclass(frozen=True)
class Case:
    """A network that both have.

    `config` and what differs from it (`changes`) train it in medjax on the scans in the folder `data`, in `steps` steps;
    `peer` is the module of `peers`, `settings` what it needs to know. At the size "tiny" both change by `tiny` and
    `tiny_settings`, and `tiny_config` reads built-in data. At most `test` images are scored, by `scores`.
    """

    title: str
    package: str
    peer: str
    config: str
    changes: Mapping[str, Any]
    data: str
    steps: int
    tiny_config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    tiny_settings: Mapping[str, Any] = field(default_factory=dict)
    test: int = 66
    scores: Scores = quality.restored


# Of every run: no evaluation while it trains, one checkpoint at its end, a plain optimizer.
PLAIN = {"references": ("none",), "eval_every": 10**9, "checkpoint_every": 10**9, "ema_decay": 0.0, "optim.name": "adam",
         "optim.schedule": "constant", "optim.warmup": 0, "optim.clip": 0.0, "augment.flip": 0.0}
BRAINS = {"data.source.match": "*_T1w.nii.gz", "data.normalise": "volume", "data.fractions": (0.5, 0.0, 0.5)}
TINY = {"data.patch": (24, 24), "data.fractions": (0.5, 0.0, 0.5), "batch_size": 2}

CASES: dict[str, Case] = {
    "deepinv_dncnn": Case(
        "DnCNN, 20 layers of 64", "deepinv", "deepinv_networks", "quickstart:source=files,model=cnn",
        {**BRAINS, "batch_size": 4, "data.patch": (64, 64), "optim.lr": 1e-4, "objective.loss": "l2",
         "model.features": (64,) * 19, "model.kernels": (3,) * 20},
        "patients/brain_t1", 60, "quickstart:model=cnn", {"network": "DnCNN", "depth": 20, "nf": 64, "sigma": 0.05},
        {**TINY, "model.features": (4, 4), "model.kernels": (3,) * 3}, {"depth": 3, "nf": 4}),
}
