"""Every key with its default. A run's config starts from `base.get_config()` and states what differs.

Keys are absl flags (`--config.optim.lr=3e-4`). What has a `name` takes its other keys from the constructor of that name
(`medjax/models/unet.py`); the structure is chosen behind the colon: `--config=configs/quickstart.py:model=edsr`.
"""

import ml_collections

from medjax import registry
from medjax.data import augment
from medjax.train import optim
from medjax.types import UserError


def get_config(**structure: str) -> ml_collections.ConfigDict:
    """The base config; `structure` names the task, model, objective, critic and data source."""
    names = {"task": "denoise", "model": "unet", "objective": "supervised", "source": "icbm152"} | structure
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.steps = 2000
    config.batch_size = 16
    config.ema_decay = 0.0  # > 0: evaluation and use with averaged weights
    config.task = registry.spec("tasks", names["task"])
    config.model = registry.spec("models", names["model"])
    config.objective = registry.spec("objectives", names["objective"])
    if names["objective"] == "adversarial":
        config.critic = registry.spec("models", names.get("critic", "patch"))
    config.optim = registry.keywords(optim.optimizer)

    config.data = ml_collections.ConfigDict()
    config.data.path = ""  # a file or folder of your own images, in place of the source
    config.data.source = registry.spec("data.sources", names["source"])
    config.data.fractions = (0.8, 0.1, 0.1)
    config.data.ndim = 2
    config.data.patch = (128, 128)  # () for whole images
    config.data.foreground = 0.8  # the part of the patches drawn around tissue
    config.data.range = ()  # (low, high) in physical units; () takes it from the training images
    config.data.workers = 0
    config.augment = registry.keywords(augment.Augment)

    config.mesh = ml_collections.ConfigDict()
    config.mesh.data = -1  # devices among which samples are divided; -1: all that space leaves
    config.mesh.space = 1  # devices among which the first spatial axis is divided
    config.mesh.mode = "jit"  # or shard_map, pmap: the same step, written out by device
    config.mesh.fsdp = False  # split parameters and optimizer state over data, too
    config.mesh.offload = False  # optimizer state in host memory between steps
    config.mesh.pad = False  # fill up images whose first axis does not divide over space; what is filled does not count
    config.accumulate = 1  # parts of a batch that go through one after the other
    config.remat = "none"  # or full, dots: what blocks compute is made again in the backward pass, not kept
    config.log_every = 20
    config.eval_every = 500
    config.eval_samples = 16  # validation samples judged while training; 0 for all
    config.checkpoint_every = 500
    config.keep = 2  # latest checkpoints kept, beside the best
    config.metric = "psnr"  # what the best checkpoint is best at
    return config


def parse(arg: str | None, **defaults: str) -> dict[str, str]:
    """The structure named behind the colon, "model=edsr,source=shards", over a config's `defaults`; all take a source."""
    given = dict(part.partition("=")[::2] for part in (arg or "").split(",") if part)
    allowed = dict.fromkeys([*defaults, "source"])
    for key, value in given.items():
        if key not in allowed or not value:
            raise UserError(f"--config=…:{arg}", f"{key!r} is not one of {', '.join(f'{name}=…' for name in allowed)}")
    return defaults | given
