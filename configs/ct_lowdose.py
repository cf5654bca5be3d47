"""Low-dose CT in the image domain: a quarter of the dose, on chest phantoms in HU.

    python train.py --config=configs/ct_lowdose.py --workdir=runs/lowdose

Measured (docs/scores.md):

    ct_lowdose: PSNR dB 48.16, best reference tv 47.60; 8 images, 8 patients, 4 CPU minutes
    slices_lowdose: PSNR dB 36.41, best reference tv 35.49; 20 images, 12 patients, 9 CPU minutes

Your own scans, by patient:

    python train.py --config=configs/ct_lowdose.py:source=files,model=unet --workdir=runs/slices --config.data.path=FOLDER

Noise power, sharpness, detectability and bias over dose: `python -m medjax.dose --workdir=runs/lowdose`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=unet", "objective=noise2noise", "source=…"."""
    names = base.parse(arg, task="ct_lowdose", model="redcnn", objective="supervised", source="phantoms")
    config = base.get_config(**names)
    config.steps = 600
    config.batch_size = 4
    if names["model"] == "redcnn":
        config.model.update(width=32, depth=4, kernel=3)
        config.optim.lr = 3e-4  # at 1e-3 the units of its last layers may die
    elif names["model"] == "unet":
        base.prefer(config.model, width=16, norm="none")
    if names["source"] == "phantoms":
        config.data.source.update(kind="chest", shape=(128, 128), count=80)
        config.task.measured = False  # phantoms have no noise of their own
    else:
        config.data.fractions = (0.6, 0.1, 0.3)
        config.batch_size = 1
        config.steps = 600
        config.augment.flip = 0.5
        config.ema_decay = 0.99
    config.data.patch = ()  # noise depends on all that a ray goes through
    config.data.range = (-1000.0, 1000.0)
    config.eval_every = config.checkpoint_every = 300
    return config
