"""Lossy compression of brain slices to 1 bit for a pixel: an autoencoder whose code has 4 bits a number, beside JPEG.

    python train.py --config=configs/compress.py --workdir=runs/compress

The network's code is not entropy coded, as JPEG's and JPEG 2000's are; a smooth template suits them.

Measured (docs/scores.md):

    compress: PSNR dB 28.42, best reference jpeg2000 49.30; 17 images, 1 patient, 1 CPU minutes
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: nothing to choose."""
    config = base.get_config(**base.parse(arg, task="compress", model="autoencoder"))
    base.prefer(config.model, width=16, latent=16, bits=4, norm="none")
    config.steps = 500
    config.batch_size = 8
    config.data.patch = (64, 64)
    config.augment.flip = 0.5
    config.optim.lr = 2e-3
    config.optim.warmup = 20
    config.ema_decay = 0.98
    config.eval_every = 250
    config.checkpoint_every = 250
    return config
