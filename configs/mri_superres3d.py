"""Super-resolution of MR by 2: a network that returns to the coarse image in turn (MoDL), in 2-D and 3-D.

    python train.py --config=configs/mri_superres3d.py --workdir=runs/sr3d --config.data.path=FILE_OR_FOLDER

Measured (docs/scores.md):

    mri_superres3d: PSNR dB 33.26, best reference tv 36.36; 1 images, 1 patient, 5 CPU minutes
    brain_superres: PSNR dB 34.96, best reference l1-wavelet 33.47; 198 images, 11 patients, 8 CPU minutes
    brain_through_plane: not measured yet

Without a path on slabs of the ICBM152 T1 template. Behind the colon: `axes=in_plane` for slices (2-D),
`axes=through_plane` for thick slices; `model=edsr` for a network on the coarse grid that knows no blur, faster in use.
"""

import ml_collections

from configs import base
from medjax.types import check_choice

AXES = ("all", "in_plane", "through_plane")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network, "axes=in_plane" (slices, 2-D) or "axes=through_plane" (thick slices)."""
    names = base.parse(arg, task="superres", model="modl", axes="all")
    axes = names.pop("axes")
    check_choice("axes", axes, AXES)
    config = base.get_config(**names)
    config.steps = 400
    config.batch_size = 2
    if names["model"] == "modl":
        config.task.grid = "fine"
        config.model.update(iterations=2, norm="none")
    base.prefer(config.model, width=24 if names["model"] == "edsr" else 16, blocks=4)
    config.data.ndim = 3
    config.data.patch = (32, 48, 48)
    if axes == "in_plane":
        config.data.ndim = 2
        config.data.patch = (96, 96)
        config.batch_size = 4
        config.steps = 500
        base.prefer(config.model, iterations=3)
    elif axes == "through_plane":
        config.task.axes = "through_plane"
        config.data.patch = (16, 48, 48)
    config.optim.lr = 1e-3
    config.ema_decay = 0.99
    config.eval_every = 200
    config.checkpoint_every = 200
    return config
