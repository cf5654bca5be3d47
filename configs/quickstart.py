"""Denoising of MR brain slices: Rician noise of 5 % of the range on the ICBM152 T1 template, a 2-D U-Net.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart

Measured (docs/scores.md):

    quickstart: PSNR dB 39.25, best reference nlm 36.70; 17 images, 1 patient, 6 CPU minutes
    salt_and_pepper: PSNR dB 41.93, best reference median 39.76; 17 images, 1 patient, 4 CPU minutes
    brain_denoise: PSNR dB 33.38, best reference nlm 32.12; 198 images, 11 patients, 2 CPU minutes

On people, divided by person (files like `sub-01/sub-01_T1w.nii.gz`):

    python train.py --config=configs/quickstart.py:source=files --workdir=runs/people --config.data.path=FOLDER \
        --config.data.source.match='*_T1w.nii.gz' --config.data.fractions="(0.4,0.1,0.5)" --config.data.normalise=volume \
        --config.model.width=16 --config.steps=1400
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network."""
    names = base.parse(arg, task="denoise", model="unet")
    config = base.get_config(**names)
    if names["model"] == "unet":
        base.prefer(config.model, norm="none")  # patches and whole slices differ too much for statistics of the image
    if names["task"] == "denoise":
        config.task.measures = ("psnr", "psnr_foreground", "psnr_background", "ssim", "nmse")
    config.steps = 2000
    config.batch_size = 4
    config.data.patch = (96, 96)
    config.optim.lr = 2e-3
    config.ema_decay = 0.99
    config.eval_every = 400
    config.checkpoint_every = 400
    return config
