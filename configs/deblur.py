"""Deblurring of MR slices: a Gaussian blur of unknown width with noise, on the ICBM152 T1 template.

    python train.py --config=configs/deblur.py --workdir=runs/deblur

Measured (docs/scores.md):

    deblur: PSNR dB 34.89, best reference tv 32.87; 17 images, 1 patient, 9 CPU minutes

Motion: `--config.task.blur=motion --config.task.size='(5.0, 11.0)'`; `:model=modl` knows the blur.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=modl", "model=varnet" or any that keeps the grid, "source=…"."""
    names = base.parse(arg, task="deblur", model="unet", source="icbm152")
    config = base.get_config(**names)
    config.steps = 1000
    config.batch_size = 4
    config.optim.lr = 2e-3
    config.ema_decay = 0.99
    if names["model"] == "unet":
        base.prefer(config.model, norm="batch")  # statistics that suit patches and whole images alike
    config.data.patch = (96, 96)
    config.eval_every = config.checkpoint_every = 500
    return config
