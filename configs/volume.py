"""A head from two projections, from the front and from the side: VoxNet on phantoms that medjax draws.

    python train.py --config=configs/volume.py --workdir=runs/volume

Measured (docs/scores.md):

    volume: PSNR dB 17.27, best reference sirt 14.44; 15 images, 15 patients, 2 CPU minutes

Volumes of your own of one size: `--config.data.path=FOLDER`; one projection: `--config.task.views=1`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "source=…"."""
    names = base.parse(arg, task="volume", model="voxnet", source="phantoms")
    config = base.get_config(**names)
    config.steps = 400
    config.batch_size = 8
    config.data.ndim = 3
    config.data.patch = ()
    config.data.foreground = 0.0
    if names["source"] == "phantoms":
        config.data.source.kind = "brain"
        config.data.source.shape = (32, 32, 32)
        config.data.source.count = 150
    config.optim.lr = 2e-3
    config.ema_decay = 0.98
    config.eval_every = config.checkpoint_every = 200
    config.eval_samples = 8
    return config
