"""Registration of brain slices that are turned, shifted and bent: VoxelMorph with a diffeomorphic displacement.

    python train.py --config=configs/register.py --workdir=runs/register

Measured (docs/scores.md):

    register: not measured yet

Optical flow (`ilk`, TV-L1) looks at each pair for longer.

Unsupervised by default; `--config.objective.loss=supervised` learns from the known deformation. Two contrasts:
`:source=icbm152_contrasts` with `--config.task.moving=T2`; the loss "ncc" then still works.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "source=…", "model=voxelmorph"."""
    names = base.parse(arg, task="register", model="voxelmorph", source="icbm152")
    config = base.get_config(**names)
    config.steps = 500
    config.batch_size = 8
    base.prefer(config.model, norm="none")
    config.objective.loss = "ncc + 0.02*smooth"
    config.data.patch = (96, 96)
    config.optim.lr = 1e-3
    config.ema_decay = 0.98
    config.eval_every = config.checkpoint_every = 250
    config.eval_samples = 8
    config.metric = "registration_error"
    return config
