"""Inpainting of MR slices: half of the pixels are missing, on the ICBM152 T1 template.

    python train.py --config=configs/inpaint.py --workdir=runs/inpaint

Measured (docs/scores.md):

    inpaint: PSNR dB 33.62, best reference tv 34.88; 17 images, 1 patient, 5 CPU minutes

Holes: `--config.task.missing=boxes`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=modl", "model=varnet" or any that keeps the grid, "source=…"."""
    names = base.parse(arg, task="inpaint", model="unet", source="icbm152")
    config = base.get_config(**names)
    config.steps = 700
    config.batch_size = 4
    config.optim.lr = 1e-3
    config.ema_decay = 0.99
    if names["model"] == "unet":
        base.prefer(config.model, norm="none")  # statistics of patches and of whole images differ too much
    config.data.patch = (96, 96)
    config.eval_every = config.checkpoint_every = 350
    return config
