"""Denoising of MR brain slices: Rician noise of 5 % of the range on the ICBM152 T1 template, a 2-D U-Net.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart

Five minutes on two cores; 17 test slices, background included: 38.6 dB, SSIM 0.981 (input 23.9; NLM 36.7).

On people, divided by person (files like `sub-01/sub-01_T1w.nii.gz`, label maps beside them):

    python train.py --config=configs/quickstart.py:source=files --workdir=runs/people --config.data.path=FOLDER \
        --config.data.source.match='*_T1w.nii.gz' --config.data.fractions="(0.4,0.1,0.5)" --config.model.width=16

Four CPU minutes; 22 people (stnava/ANTsTutorial, data/JLF), of whom 11 test (95 % interval): 33.6 dB
(33.3 … 33.8), SSIM 0.908; NLM 32.2 dB (31.9 … 32.6), p = 0.005, wavelets SSIM 0.796.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network."""
    names = base.parse(arg, task="denoise", model="unet")
    config = base.get_config(**names)
    if names["model"] == "unet":
        base.prefer(config.model, norm="none")  # patches and whole slices differ too much for statistics of the image
    config.steps = 1200
    config.batch_size = 4
    config.data.patch = (96, 96)
    config.optim.lr = 2e-3
    config.ema_decay = 0.99
    config.eval_every = 400
    config.checkpoint_every = 400
    return config
