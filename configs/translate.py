"""Translation between MR contrasts: T1 to FLAIR, a 2-D U-Net; pix2pix and CycleGAN behind the colon.

    python train.py --config=configs/translate.py --workdir=runs/translate
    python train.py --config=configs/translate.py:objective=adversarial --workdir=runs/pix2pix
    python train.py --config=configs/translate.py:objective=cycle --workdir=runs/cyclegan
    python train.py --config=configs/translate.py:objective=cycle,model=cyclegan_generator --workdir=runs/cyclegan9

Measured (docs/scores.md):

    translate: SSIM 0.9720, best reference curve 0.9612; 17 images, 1 patient, 3 CPU minutes
    pix2pix: SSIM 0.9623, best reference curve 0.9612; 17 images, 1 patient, 2 CPU minutes
    cyclegan: PSNR dB 22.59, best reference curve 32.30; 17 images, 1 patient, 23 CPU minutes

The adversarial loss costs dB. CycleGAN sees no pairs; with the published generator of 9 blocks (the last line, hours on two
cores) it comes nearer to FLAIR than T1 is, and what it lacks are the pairs.

Files of your own, on one grid: `:source=multicontrast --config.data.source.path='DIR/*/{contrast}.nii.gz'`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "objective=adversarial" (pix2pix) or "cycle" (unpaired), "model=…", "source=multicontrast"."""
    names = base.parse(arg, task="translate", model="unet", objective="supervised", source="icbm152_contrasts",
                       critic="patch")
    config = base.get_config(**names)
    config.steps = 800
    config.batch_size = 8
    base.prefer(config.model, width=16)
    if names["model"] == "unet":
        base.prefer(config.model, norm="none")  # contrast is brightness, and norms forget it
    config.data.patch = (96, 96)
    config.optim.lr = 2e-3
    config.data.range = (0.0, 1.0)
    config.eval_every = config.checkpoint_every = 200
    config.eval_samples = 8
    config.metric = "ssim"
    if names["objective"] != "supervised":
        base.prefer(config.critic, width=32)
        config.optim.b1 = 0.5
        config.ema_decay = 0.99
    if names["objective"] == "adversarial":
        config.objective.weight = 0.001  # the critic sharpens; ten times as much costs decibels in so few steps
        config.objective.conditional = True
        config.objective.game = "least_squares"
    if names["objective"] == "cycle":
        config.task.paired = False
        config.batch_size = 4
        config.optim.lr = 1e-3
        config.objective.cycle = 5.0
        config.objective.identity = 0.0  # what is bright in the one contrast is dark in the other
        if names["model"] == "unet":
            base.prefer(config.model, residual=False)
        if names["model"] == "cyclegan_generator":
            base.prefer(config.model, width=64)  # as published
            base.prefer(config.critic, width=64)
            config.data.patch = (128, 128)
            config.batch_size = 1
            config.steps = 640
            config.optim.lr = 4e-4
            config.metric = "psnr"
    return config
