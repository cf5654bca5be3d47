"""Contrast enhancement: from dark, flat images those they were made from; chest phantoms, or your own pictures.

    python train.py --config=configs/enhance_xray.py --workdir=runs/enhance
    python train.py --config=configs/enhance_xray.py:model=zero_dce --workdir=runs/xray --config.data.path=FOLDER

Measured (docs/scores.md):

    enhance_xray: PSNR dB 33.28, best reference levels 32.78; 6 images, 6 patients, 6 CPU minutes
    enhance_xray_zero: PSNR dB 14.97, best reference levels 32.78; 6 images, 6 patients, 1 CPU minutes
    films_enhance: not measured yet

X-rays, ultrasound and colour pictures of endoscopy alike. Behind the colon: `learn=zero` learns without the originals,
by zero-reference curves. The U-Net of the first command sees whole images, of one size; curves are learned on patches.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "learn=zero" without pairs, "model=…" for another network."""
    structure = base.parse(arg, task="enhance", model="", source="phantoms", learn="pairs")
    learn = structure.pop("learn")
    structure["model"] = structure["model"] or {"pairs": "unet", "zero": "zero_dce"}[learn]
    config = base.get_config(**structure)
    config.objective.loss = {"pairs": "l1 + 0.2*ssim", "zero": "spatial + 10*exposure + 5*colour + 200*smoothness"}[learn]
    config.steps = 300
    config.batch_size = 8
    config.data.patch = (96, 96)
    config.data.foreground = 0.0
    if config.model.name == "unet":  # how dark an image was made shows in the whole of it
        base.prefer(config.model, width=16, norm="none")
        config.data.patch = ()
        config.steps = 1000
    config.augment.flip = 0.5
    config.optim.lr = 2e-3
    config.ema_decay = 0.98
    config.eval_every = 150
    config.checkpoint_every = 150
    return config
