"""Segmentation of polyps in colour endoscopy frames: a 2-D U-Net that starts from a quarter of the resolution.

    python train.py --config=configs/polyps.py --workdir=runs/polyps --config.data.path=FOLDER

FOLDER has `train/images`, `train/masks`, `validation/images` and `validation/masks` with JPEG files of one name each, masks
black and white, as Kvasir-SEG is often divided. The test part is the validation folder; a twentieth of the training folder
chooses the checkpoint. Frames have no patient, so intervals are over frames.

Measured (docs/scores.md):

    polyps: Dice of all voxels 0.7780, best reference region-growing 0.3526; 100 images, 100 patients, 10 CPU minutes
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network."""
    names = base.parse(arg, task="segment", model="unet", source="pairs")
    config = base.get_config(**names)
    config.objective.loss = "cross_entropy + dice"
    config.metric = "volume_dice"
    config.steps = 1500
    config.batch_size = 8
    base.prefer(config.data.source, images="*/images/*.jpg", labels="*/masks/*.jpg", values=(0, 255),
                parts=("train", "", "validation"))
    config.data.fractions = (0.95, 0.05, 0.0)
    config.task.classes = ("background", "polyp")
    base.prefer(config.model, width=16, depth=5, norm="batch")
    if names["model"] == "unet":
        base.prefer(config.model, stride=4, residual=False)
    config.data.patch = ()
    config.data.range = (0.0, 255.0)
    config.augment.flip = 0.5
    config.augment.rotate = 45.0
    config.augment.zoom = 0.2
    config.augment.contrast = 0.3
    config.optim.lr = 4e-3
    config.optim.warmup = 100
    config.ema_decay = 0.99
    config.eval_every = 500
    config.checkpoint_every = 500
    return config
