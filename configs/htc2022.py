"""Limited-angle CT of the Helsinki Tomography Challenge 2022."""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=…" for another network."""
    names = base.parse(arg, task="ct_segment", model="unet", source="htc2022")
    config = base.get_config(**names)
    config.objective.loss = "cross_entropy + dice"
    config.metric = "mcc"
    config.steps = 2000
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
