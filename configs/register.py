"""Registration of brain slices that are turned, shifted and bent, from coarse to fine; VoxelMorph behind the colon.

    python train.py --config=configs/register.py --workdir=runs/register
    python train.py --config=configs/register.py:model=voxelmorph --workdir=runs/voxelmorph

Measured (docs/scores.md):

    register: not measured yet
    brain_register: registration error mm 0.282, best reference demons 0.307; 198 images, 11 patients, 13 CPU minutes

The network learns from the known deformations. `--config.objective.loss="ncc + 0.02*smooth"` learns from the images alone,
and works for two contrasts (`:source=icbm152_contrasts` with `--config.task.moving=T2`). There the reference is
`--config.references="('bspline',)"`, which takes half a minute for each pair and strength, so it is not among those below.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "source=…", "model=voxelmorph"."""
    names = base.parse(arg, task="register", model="lapirn", source="icbm152")
    config = base.get_config(**names)
    config.steps = 700
    config.batch_size = 4
    base.prefer(config.model, norm="none")
    config.objective.loss = "supervised"
    config.data.patch = (208, 176)  # nearly whole slices: a turn moves what is far from the centre most
    config.data.foreground = 1.0
    config.optim.lr = 2e-3
    config.ema_decay = 0.98
    config.eval_every = config.checkpoint_every = 100
    config.eval_samples = 8
    config.metric = "registration_error"
    config.references = ("demons", "ilk", "tvl1")
    return config
