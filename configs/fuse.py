"""Fusion of T1, T2 and FLAIR: a clean FLAIR from three noisy contrasts, any of which may be missing.

    python train.py --config=configs/fuse.py --workdir=runs/fuse
    python train.py --config=configs/fuse.py:task=fuse_image --workdir=runs/fuse_image

Measured (docs/scores.md):

    fuse: PSNR dB 33.95, best reference tv 31.44; 17 images, 1 patient, 3 CPU minutes

`--config.model.fusion=early|late|attention`; evaluation without T2: `--config.task.absent="('T2',)"`. The second command
makes one picture of all contrasts. Files of your own: `:source=multicontrast`, see configs/translate.py.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "task=fuse_image", "model=unet", "source=multicontrast"."""
    names = base.parse(arg, task="fuse", model="fusion", source="icbm152_contrasts")
    config = base.get_config(**names)
    config.steps = 2400
    config.batch_size = 4
    config.data.patch = (96, 96)
    config.data.range = (0.0, 1.0)
    config.optim.lr = 2e-3
    config.ema_decay = 0.99
    config.eval_every = config.checkpoint_every = 800
    config.eval_samples = 8
    base.prefer(config.model, norm="none")  # statistics of patches and of whole images differ too much
    if names["task"] == "fuse_image":
        config.objective.loss = "intensity + 2*edges + 0.5*structure"
        config.metric = "qabf"
    return config
