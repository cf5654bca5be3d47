"""Slice stacks and time series: a ConvGRU that runs over the frames takes noise away, or also makes frames finer.

    python train.py --config=configs/sequence.py --workdir=runs/sequence
    python train.py --config=configs/sequence.py --workdir=runs/multiframe --config.task.factor=2

Measured (docs/scores.md):

    sequence: PSNR dB 32.96, best reference tv 32.24; 1 images, 1 patient, 4 CPU minutes
    sequence_twice_finer: PSNR dB 28.28, best reference tv 27.80; 1 images, 1 patient, 2 CPU minutes

A series of your own (4-D NIfTI, cine, video): `:source=frames --config.data.source.path=FILE`; each slice's frames are then
the first axis. Of a folder, whose files are divided by patient, see `configs/ultrasound.py`. ConvLSTM:
`--config.model.cell=lstm`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…", "source=frames"."""
    names = base.parse(arg, task="series", model="conv_rnn", source="icbm152")
    config = base.get_config(**names)
    config.steps = 300
    config.batch_size = 4
    config.task.strength = (0.1, 0.1)
    config.task.frames = "times" if names["source"] == "frames" else "slices"
    config.data.ndim = 3
    config.data.patch = (8, 48, 48)
    config.optim.lr = 2e-3
    config.ema_decay = 0.99
    config.eval_every = config.checkpoint_every = 150
    return config
