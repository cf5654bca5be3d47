"""Segmentation of brain slices: grey matter, white matter and fluid on the ICBM152 T1 template, or your own label maps.

    python train.py --config=configs/brain_segment.py --workdir=runs/segment

Measured (docs/scores.md):

    brain_segment: Dice of all voxels 0.9257, best reference mixture 0.8019; 17 images, 1 patient, 2 CPU minutes
    brain_tissues: Dice of all voxels 0.8701, best reference otsu 0.4335; 162 images, 9 patients, 3 CPU minutes

Your images: a folder with pairs like `a_image.nii.gz` and `a_label.nii.gz` (labels 0 and 1; `data.source.values` and
`task.classes` say otherwise). With fewer than three patients each volume is cut into slabs:

    python train.py --config=configs/brain_segment.py:source=pairs --workdir=runs/lesion --config.data.path=FOLDER

Tissues of people, by person: files like `sub-01/sub-01_T1w.nii.gz` and `sub-01/sub-01_label.nii.gz`, labels as in `TISSUES`:

    python train.py --config=configs/brain_segment.py:labels=tissues --workdir=runs/tissues --config.data.path=FOLDER

Behind the colon: `model=attention_unet`, `model=fcn`, `model=nnunet`. `--config.task.prior=otsu` adds a classical result
as a channel.
"""

import ml_collections

from configs import base
from medjax.data.sources import icbm152_tissues
from medjax.types import UserError

TISSUES = ("background", "fluid", "grey matter", "white matter", "deep grey matter")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=fcn" for another network, "source=pairs" for your own images, "labels=tissues" for those of people."""
    names = base.parse(arg, task="segment", model="unet", source="", labels="")
    labels = names.pop("labels")
    if labels not in ("", "tissues"):
        raise UserError(f"--config=…:{arg}", f"unknown labels {labels!r}; there is tissues")
    names["source"] = names["source"] or ("pairs" if labels else "icbm152_tissues")
    config = base.get_config(**names)
    config.objective.loss = "cross_entropy + dice"
    config.metric = "volume_dice"
    config.steps = 250
    config.batch_size = 8
    base.prefer(config.model, width=16)
    if config.model.name == "unet":
        base.prefer(config.model, residual=False)
    config.data.patch = (96, 96)
    config.augment.flip = 0.5
    config.optim.lr = 4e-3
    config.optim.warmup = 20
    config.ema_decay = 0.98
    config.eval_every = 150
    config.checkpoint_every = 150
    if labels == "tissues":
        _tissues(config)
    elif config.data.source.name == "icbm152_tissues":
        config.task.classes = icbm152_tissues.CLASSES
        # Norms of one sample forget how bright it is, which tells these tissues apart.
        base.prefer(config.model, norm="batch")
    else:
        config.data.fractions = (0.76, 0.0, 0.24)
        config.data.foreground = 0.5
        config.augment.rotate = 15.0
        config.augment.zoom = 0.1
        config.augment.contrast = 0.2
        config.optim.lr = 2e-3  # a small lesion is lost for good where the first steps are too long
        config.optim.warmup = 100
        config.steps = 300
    return config


def _tissues(config: ml_collections.ConfigDict) -> None:
    """Every voxel of the brain has a label, and brightness tells tissues apart; people differ in size and contrast."""
    config.task.classes = TISSUES
    base.prefer(config.data.source, images="sub-*/sub-*_T1w.nii.gz", labels="sub-*/sub-*_label.nii.gz")
    base.prefer(config.model, norm="batch")
    config.data.fractions = (0.5, 0.1, 0.4)
    config.augment.scale = 0.2
    config.augment.contrast = 0.1
    config.steps = 500
