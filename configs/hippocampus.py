"""Segmentation of the hippocampus, anterior and posterior, in MR volumes of many people: a 3-D U-Net.

    python train.py --config=configs/hippocampus.py --workdir=runs/hippocampus --config.data.path=FOLDER

FOLDER has `images/*.nii.gz` and `labels/*.nii.gz` of one name each (1 anterior, 2 posterior), as Task04_Hippocampus of the
Medical Segmentation Decathlon. The scans are of any scale: each is normalised on its own.

Measured (docs/scores.md):

    hippocampus: Dice of all voxels 0.8747, best reference otsu 0.0780; 39 images, 39 patients, 3 CPU minutes
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network."""
    names = base.parse(arg, task="segment", model="unet", source="pairs")
    config = base.get_config(**names)
    config.objective.loss = "cross_entropy + dice"
    config.metric = "volume_dice"
    config.steps = 700
    config.batch_size = 2
    base.prefer(config.data.source, images="images/*.nii.gz", labels="labels/*.nii.gz")
    config.task.classes = ("background", "anterior", "posterior")
    base.prefer(config.model, width=16, depth=3, norm="batch")
    if names["model"] == "unet":
        base.prefer(config.model, residual=False)
    config.data.fractions = (0.7, 0.1, 0.2)
    config.data.normalise = "volume"
    config.data.ndim = 3
    config.data.patch = (24, 40, 24)
    config.data.foreground = 1.0  # around labelled voxels
    config.augment.scale = 0.1
    config.augment.contrast = 0.2
    config.optim.lr = 4e-3
    config.optim.warmup = 50
    config.ema_decay = 0.98
    config.eval_every = 350
    config.checkpoint_every = 350
    return config
