"""Super-resolution of MR volumes by 2 along every axis: a 3-D EDSR on patches of the coarse grid.

    python train.py --config=configs/mri_superres3d.py --workdir=runs/sr3d --config.data.path=FILE_OR_FOLDER

Measured (docs/scores.md):

    mri_superres3d: PSNR dB 33.26, best reference tv 36.36; 1 images, 1 patient, 5 CPU minutes
    brain_superres: PSNR dB 34.96, best reference l1-wavelet 33.47; 198 images, 11 patients, 8 CPU minutes
    brain_through_plane: not measured yet

Without a path on slabs of the ICBM152 T1 template. Behind the colon: `axes=in_plane` for slices (2-D),
`axes=through_plane` for thick slices.
"""

import ml_collections

from configs import base
from medjax.types import check_choice

AXES = ("all", "in_plane", "through_plane")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network, "axes=in_plane" (slices, 2-D) or "axes=through_plane" (thick slices)."""
    names = base.parse(arg, task="superres", model="edsr", axes="all")
    axes = names.pop("axes")
    check_choice("axes", axes, AXES)
    config = base.get_config(**names)
    config.steps = 600
    config.batch_size = 4
    base.prefer(config.model, width=24, blocks=4)
    config.data.ndim = 3
    config.data.patch = (24, 32, 32)
    if axes == "in_plane":
        config.data.ndim = 2
        config.data.patch = (96, 96)
        config.batch_size = 8
        config.steps = 1000
    elif axes == "through_plane":
        config.task.axes = "through_plane"
        config.data.patch = (16, 48, 48)
    config.optim.lr = 1e-3
    config.ema_decay = 0.99
    config.eval_every = 200
    config.checkpoint_every = 200
    return config
