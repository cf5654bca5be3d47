"""Synthesis of chest CT slices from noise: DCGAN's generator trained as WGAN-GP, on phantoms that medjax draws.

    python train.py --config=configs/synthesis.py --workdir=runs/synthesis

The Fréchet distance to 120 test images is that in the codes of a fixed random network.

Measured (docs/scores.md):

    synthesis: Fréchet distance 0.00568, best reference noise 2.41405; 120 images, 120 patients, 2 CPU minutes

For images of your own: `:source=…` or `--config.data.path=FOLDER`; each is padded to a square and resized to `task.size`.
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "critic=patch", "source=…"."""
    names = base.parse(arg, task="synthesis", model="dcgan_generator", objective="adversarial", critic="dcgan",
                       source="phantoms")
    config = base.get_config(**names)
    config.steps = 1000
    config.batch_size = 32
    config.task.size = 32
    base.prefer(config.model, width=24, depth=3)
    base.prefer(config.critic, width=24, depth=3, norm="layer")
    config.objective.loss = "none"
    config.objective.weight = 1.0
    config.objective.game = "wgan_gp"
    config.objective.critic_steps = 2
    if names["source"] == "phantoms":
        config.data.source.shape = (32, 32)
        config.data.source.count = 600
    config.data.patch = ()
    config.data.foreground = 0.0
    config.data.fractions = (0.6, 0.2, 0.2)
    config.optim.name = "adam"
    config.optim.lr = 1e-3
    config.optim.b1 = 0.0
    config.optim.b2 = 0.9
    config.ema_decay = 0.99
    config.eval_every = config.checkpoint_every = 500
    config.eval_samples = 0
    config.metric = "frechet"
    return config
