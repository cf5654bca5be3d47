"""Anomaly maps of brain slices: an autoencoder learns healthy slices of the ICBM152 T1 template, and is evaluated on lesions
that are planted in others.

    python train.py --config=configs/anomaly.py --workdir=runs/anomaly

Measured (docs/scores.md):

    anomaly: AUROC 0.9441, best reference brightness 0.8445; 17 images, 1 patient, 2 CPU minutes

Behind the colon: `model=vae`, `model=unet`. `--config.data.path=FOLDER` takes your own images, which should be healthy.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=vae" or another network that keeps the grid."""
    config = base.get_config(**base.parse(arg, task="anomaly", model="autoencoder"))
    config.objective.loss = "l2 + 0.0001*kl" if config.model.name == "vae" else "l2"
    config.metric = "auroc"
    config.steps = 400
    config.batch_size = 8
    config.data.patch = (128, 128)
    config.augment.flip = 0.5
    config.augment.rotate = 10.0
    config.augment.zoom = 0.1
    config.optim.lr = 2e-3
    config.ema_decay = 0.98
    config.eval_every = 200
    config.checkpoint_every = 200
    return config
