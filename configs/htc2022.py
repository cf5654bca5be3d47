"""Limited-angle CT: the pixels that acrylic fills, from fan beams over 28 to 90 degrees; drawn discs, scored on real ones.

    python train.py --config=configs/htc2022.py --workdir=runs/htc2022
    python eval.py --workdir=runs/htc2022 --data=FOLDER --names

FOLDER has the scans of the Helsinki Tomography Challenge 2022 (`*_limited.mat`) with the segmentations of the full ones
(`*_recon_fbp_seg.mat`); training sees drawn discs alone.

Measured (docs/scores.md):

    htc2022: Matthews correlation 0.9365, best reference fbp-otsu 0.6309; 7 images, 7 patients, 21 CPU minutes

The reference tv-otsu, total variation with Otsu's threshold, takes longer than the training; without it:
`--config.references="('fbp-otsu',)"`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network."""
    names = base.parse(arg, task="ct_segment", model="unet", source="htc2022")
    config = base.get_config(**names)
    config.objective.loss = "cross_entropy + dice"
    config.metric = "mcc"
    config.steps = 1300
    config.batch_size = 8
    config.data.fractions = (0.985, 0.008, 0.007)
    base.prefer(config.model, width=24, depth=5)
    if names["model"] == "unet":
        base.prefer(config.model, stride=2, residual=False)
    config.data.patch = ()
    config.data.foreground = 0.0
    config.data.range = (0.0, 1.0)
    config.augment.flip = 0.5
    config.optim.lr = 2e-3
    config.ema_decay = 0.995
    config.eval_every = 500
    config.checkpoint_every = 250
    return config
