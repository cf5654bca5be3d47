"""Speckle reduction in clips of lung ultrasound, by patient: a ConvGRU that runs over the frames.

    python train.py --config=configs/ultrasound.py --workdir=runs/ultrasound --config.data.path=FOLDER

FOLDER has clips (video, DICOM cines), a patient each; where a patient has several, `--config.data.source.subjects=CSV` says
whose they are. Pieces of eight frames are read, one from the middle of each clip; more with `--config.data.source.pieces=4`.

Speckle is simulated, on the values as they are stored and anew for each pixel and frame; that of a scanner has a grain and
moves with the tissue, so neighbouring frames help less there. `apply` takes a clip as a whole, 0.1 GiB of memory for each
frame of 350 x 350.

Measured (docs/scores.md):

    ultrasound: PSNR dB 38.15, best reference wavelet 36.37; 12 images, 12 patients, 8 CPU minutes
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network over frames; "task=denoise,model=unet" goes frame by frame."""
    names = base.parse(arg, task="series", model="conv_rnn", source="frames")
    config = base.get_config(**names)
    config.steps = 300
    config.batch_size = 4
    config.task.noise = "speckle"
    config.task.strength = (0.3, 0.3)
    base.prefer(config.task, frames="times")
    base.prefer(config.data.source, length=8, pieces=1)
    base.prefer(config.model, width=16)
    config.data.fractions = (0.7, 0.1, 0.2)
    config.data.range = (0.0, 255.0)
    config.data.ndim = 3 if names["task"] == "series" else 2
    config.data.patch = (8, 64, 64) if names["task"] == "series" else (64, 64)
    config.optim.lr = 2e-3
    config.optim.warmup = 50
    config.ema_decay = 0.99
    config.eval_every = config.checkpoint_every = 150
    config.eval_samples = 4
    return config
