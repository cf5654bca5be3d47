"""Inpainting of MR slices: half of the pixels are missing, on the ICBM152 T1 template.

    python train.py --config=configs/inpaint.py --workdir=runs/inpaint

Holes: `--config.task.missing=boxes`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=modl", "model=varnet" or any that keeps the grid, "source=…"."""
    config = base.get_config(task="inpaint", **base.parse(arg, model="unet", source="icbm152"))
    config.steps = 400
    config.batch_size = 8
    config.data.patch = (96, 96)
    config.eval_every = config.checkpoint_every = 200
    return config
