"""Inpainting of MR slices, half of whose pixels are missing, on the ICBM152 T1 template: MoDL.

    python train.py --config=configs/inpaint.py --workdir=runs/inpaint

Measured (docs/scores.md):

    inpaint: PSNR dB 33.62, best reference tv 34.88; 17 images, 1 patient, 5 CPU minutes

Holes: `--config.task.missing=boxes`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=unet", "model=varnet" or any that keeps the grid, "source=…"."""
    names = base.parse(arg, task="inpaint", model="modl", source="icbm152")
    config = base.get_config(**names)
    config.steps = 1400
    config.batch_size = 4
    config.optim.lr = 1e-3
    config.ema_decay = 0.99
    base.prefer(config.model, norm="none")  # statistics of patches and of whole images differ too much
    if names["model"] == "modl":
        config.model.iterations = 3
    config.data.patch = (96, 96)
    config.eval_every = config.checkpoint_every = 700
    return config
