"""Super-resolution of MR by 2: a network that returns to the coarse image in turn (MoDL), in 2-D and 3-D.

    python train.py --config=configs/mri_superres3d.py --workdir=runs/sr3d --config.data.path=FILE_OR_FOLDER

Measured (docs/scores.md):

    superres: PSNR dB 39.84, best reference tv 38.48; 17 images, 1 patient, 4 CPU minutes
    mri_superres3d: PSNR dB 36.38, best reference tv 36.36; 1 images, 1 patient, 13 CPU minutes
    brain_superres: PSNR dB 34.88, best reference l1-wavelet 33.47; 198 images, 11 patients, 5 CPU minutes
    brain_through_plane: PSNR dB 40.64, best reference tv 40.49; 11 images, 11 patients, 11 CPU minutes

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
    flat, unrolled = axes == "in_plane", names["model"] == "modl"
    config.data.ndim = 2 if flat else 3
    if unrolled:
        config.steps = 500 if flat else 800
        config.batch_size = 4 if flat else 1
        config.data.patch = (96, 96) if flat else (32, 48, 48)
        config.task.grid = "fine"
        config.model.update(width=24, iterations=3, norm="none", **({} if flat else {"depth": 2, "weight": 0.01}))
    else:
        config.steps = 1000 if flat else 600
        config.batch_size = 8 if flat else 4
        config.data.patch = (96, 96) if flat else (24, 32, 32)
        base.prefer(config.model, width=24, blocks=4)
    if axes == "through_plane":
        config.task.axes = "through_plane"
        config.data.patch = (16, 48, 48)
    config.optim.lr = 1e-3
    config.ema_decay = 0.99
    config.eval_every = 200
    config.checkpoint_every = 200
    return config
