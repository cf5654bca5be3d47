"""SRGAN on MR slices: super-resolution by 2 with an adversarial loss; ESRGAN with the RRDB generator and a perceptual loss.

    python train.py --config=configs/mri_srgan.py --workdir=runs/srgan

Measured (docs/scores.md):

    mri_srgan: PSNR dB 35.05, best reference tv 38.48; 17 images, 1 patient, 1 CPU minutes

By PSNR `mri_superres3d.py:axes=in_plane` is far better; an adversarial loss gives that away for sharper pictures.

The perceptual loss looks through a network that was trained on medical images before:

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart
    python train.py --config=configs/mri_srgan.py:model=rrdb,objective=perceptual --workdir=runs/esrgan \
        --config.features_workdir=runs/quickstart
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=rrdb", "objective=perceptual", "critic=dcgan", "source=…"."""
    names = base.parse(arg, task="superres", model="edsr", objective="adversarial", critic="patch", source="icbm152")
    config = base.get_config(**names)
    config.steps = 400
    config.batch_size = 8
    base.prefer(config.model, width=24, blocks=4 if names["model"] == "edsr" else 1)
    if "critic" in config:
        base.prefer(config.critic, width=16)
        config.objective.weight = 0.003
    config.data.patch = (64, 64)
    config.optim.lr = 1e-3
    config.ema_decay = 0.99
    config.eval_every = config.checkpoint_every = 200
    return config
