"""Denoising of MR brain slices: Rician noise of 5 % of the range on the ICBM152 T1 template, a 2-D U-Net.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network."""
    config = base.get_config(**base.parse(arg, task="denoise", model="unet"))
    config.steps = 400
    config.batch_size = 8
    return config
