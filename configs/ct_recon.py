"""CT from few views: an unrolled network with the scanner inside, on chest phantoms in HU.

    python train.py --config=configs/ct_recon.py --workdir=runs/ct_recon

40 views, 1e5 photons. Your own scans, by patient, from 60 views:

    python train.py --config=configs/ct_recon.py:source=files,model=unet --workdir=runs/sparse --config.data.path=FOLDER

Measured (docs/scores.md):

    ct_recon: PSNR dB 34.28, best reference tv 33.71; 8 images, 8 patients, 10 CPU minutes
    slices_sparse: not measured yet

Limited angle: `--config.task.span=120`; low dose: `--config.task.views=360 --config.task.dose=0.1`. Without truth, from
the views alone: `--config=configs/ct_recon.py:objective=ssdu`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=primal_dual" or "model=unet" (after FBP), "objective=ssdu" or "objective=noise2noise", "source=…"."""
    names = base.parse(arg, task="ct_recon", model="modl", objective="supervised", source="phantoms")
    config = base.get_config(**names)
    config.steps = 800
    config.batch_size = 2
    config.task.views = 40
    config.task.photons = 1e5
    config.optim.lr = 2e-3
    if names["model"] == "modl":
        config.model.iterations = 4
        base.prefer(config.model, norm="none")
    elif names["model"] == "unet":
        base.prefer(config.model, width=16, norm="none")
    if names["source"] == "phantoms":
        config.data.source.update(kind="chest", shape=(128, 128), count=80)
    else:
        config.data.fractions = (0.6, 0.1, 0.3)
        config.batch_size = 1
        config.task.views = 60
        config.optim.lr = 1e-3
        config.augment.flip = 0.5
        config.ema_decay = 0.99
    config.data.patch = ()
    config.data.range = (-1000.0, 1000.0)
    config.eval_every = config.checkpoint_every = 400
    return config
