"""Super-resolution of MR volumes by 2 along every axis: a 3-D EDSR on patches of the coarse grid.

    python train.py --config=configs/mri_superres3d.py --workdir=runs/sr3d --config.data.path=FILE_OR_FOLDER

Three minutes on two cores without a path, on slabs of the ICBM152 T1 template; the test slab: 33.3 dB, SSIM 0.983 (tricubic
30.8, 0.967; Lanczos 31.3, 0.972). For thick slices: `--config.task.axes=through_plane`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network."""
    config = base.get_config(**base.parse(arg, task="superres", model="edsr"))
    config.steps = 600
    config.batch_size = 4
    base.prefer(config.model, width=24, blocks=4)
    config.data.ndim = 3
    config.data.patch = (24, 32, 32)
    config.optim.lr = 1e-3
    config.ema_decay = 0.99
    config.eval_every = 200
    config.checkpoint_every = 200
    return config
