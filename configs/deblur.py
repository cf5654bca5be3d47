"""Deblurring of MR slices: a Gaussian blur of unknown width with noise, on the ICBM152 T1 template.

    python train.py --config=configs/deblur.py --workdir=runs/deblur

Motion: `--config.task.blur=motion --config.task.size='(5.0, 11.0)'`; `:model=modl` knows the blur.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=modl", "model=varnet" or any that keeps the grid, "source=…"."""
    config = base.get_config(task="deblur", **base.parse(arg, model="unet", source="icbm152"))
    config.steps = 400
    config.batch_size = 8
    config.data.patch = (96, 96)
    config.eval_every = config.checkpoint_every = 200
    return config
