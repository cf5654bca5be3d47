"""MRI at four times the speed: a variational network on simulated 8-coil k-space of the ICBM152 T1 template.

    python train.py --config=configs/mri_recon.py --workdir=runs/mri_recon

Measured (docs/scores.md):

    mri_recon: PSNR dB 30.21, best reference l1-wavelet 31.69; 17 images, 1 patient, 6 CPU minutes

Your own k-space (fastMRI .h5, or .npy): `--config=configs/mri_recon.py:source=kspace --config.data.source.path=FOLDER`;
if it is undersampled already and there is no truth, `:source=kspace,objective=ssdu`, which is judged by samples that it
does not see. Learned sensitivities: `--config.model.sensitivities=True`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=modl" or "model=unet", "objective=ssdu", "source=…"."""
    names = base.parse(arg, task="mri_recon", model="varnet", objective="supervised", source="icbm152")
    config = base.get_config(**names)
    config.steps = 600
    config.batch_size = 2
    if names["model"] == "varnet":
        config.model.iterations = 4
        base.prefer(config.model, norm="none")
        config.optim.lr = 2e-3
    config.data.patch = () if names["source"] in ("kspace", "shards") else (128, 128)
    config.data.range = (0.0, 255.0) if names["source"] == "icbm152" else (0.0, 1.0)
    if names["source"] == "kspace" and names["objective"] == "ssdu":
        config.task.acceleration, config.task.held_out, config.metric = 1.0, 0.1, "held_out"
    config.eval_every = config.checkpoint_every = 300
    config.eval_samples = 8
    return config
