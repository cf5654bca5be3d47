"""Denoising of chest X-rays (8 bit): photon and read-out noise of a low dose, a 2-D U-Net.

    python train.py --config=configs/xray_denoise.py --workdir=runs/xray --config.data.path=FOLDER

Measured (docs/scores.md):

    films_denoise: not measured yet
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network."""
    config = base.get_config(**base.parse(arg, task="denoise", model="unet"))
    config.steps = 500
    config.batch_size = 8
    config.task.noise = "poisson_gaussian"
    config.task.strength = (0.05, 0.1)
    base.prefer(config.model, norm="none")  # patches and whole films differ too much for statistics of the image
    config.data.range = (0.0, 255.0)
    config.data.foreground = 0.0
    config.optim.lr = 1e-3
    config.ema_decay = 0.99
    config.eval_every = 250
    config.checkpoint_every = 250
    config.eval_samples = 4
    return config
