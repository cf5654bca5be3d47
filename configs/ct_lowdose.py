"""Low-dose CT in the image domain: a quarter of the dose, on chest phantoms in HU.

    python train.py --config=configs/ct_lowdose.py --workdir=runs/lowdose

Two minutes on two cores; eight test phantoms, inside the body: 48.3 dB, SSIM 0.994 (FBP 46.9, 0.990; the best classical
method, total variation: 47.2, 0.992).

Your own scans: `--config.data.path=FOLDER --config.task.measured=True --config.batch_size=1`, for images are taken whole.

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
    if names["source"] == "phantoms":
        config.data.source.update(kind="chest", shape=(128, 128), count=80)
        config.task.measured = False  # phantoms have no noise of their own
    config.data.patch = ()  # noise depends on all that a ray goes through
    config.data.range = (-1000.0, 1000.0)
    config.eval_every = config.checkpoint_every = 300
    return config
