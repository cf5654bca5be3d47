"""Every key with its default. A run's config starts from `base.get_config()` and states what differs.

Keys are absl flags (`--config.optim.lr=3e-4`). What has a `name` takes its other keys from the constructor of that name
(`medjax/models/unet.py`); the structure is chosen behind the colon: `--config=configs/quickstart.py:model=edsr`.
"""

from collections.abc import Mapping

import ml_collections

from medjax import registry
from medjax.data import augment
from medjax.train import optim, privacy
from medjax.types import UserError


def get_config(**structure: str) -> ml_collections.ConfigDict:
    """The base config; `structure` names the task, model, objective, critic and data source."""
    names = {"task": "denoise", "objective": "supervised", "source": "icbm152"} | structure
    config = ml_collections.ConfigDict()
    config.seed = 0  # of the weights, the order of the samples, noise and augmentation
    config.steps = 2000
    config.batch_size = 16
    config.ema_decay = 0.0  # > 0: evaluation and use with averaged weights
    config.task = registry.spec("tasks", names["task"])
    config.objective = registry.spec("objectives", names["objective"])
    networks: Mapping[str, str] = getattr(registry.find("objectives", names["objective"]), "networks", {})
    for network, default in networks.items():
        config[network] = registry.spec("models", names.get(network, default))
    config.features_workdir = ""  # a run whose network a perceptual loss or a Fréchet distance looks through
    config.init_workdir = ""  # a run whose weights this one starts from: trained before, or converted
    config.optim = registry.keywords(optim.optimizer)
    config.privacy = privacy.default()  # differential privacy of the training patients, off while epsilon and noise are 0

    config.data = ml_collections.ConfigDict()
    config.data.path = ""  # a file or folder of your own images: where the source reads, or in place of a built-in one
    config.data.series = ""  # of path: the series with this in its name (DICOM's SeriesDescription), or of this number
    config.data.source = registry.spec("data.sources", names["source"])
    config.data.fractions = (0.8, 0.1, 0.1)
    config.data.split_seed = 0  # draws the subjects of each part; config.seed leaves them as they are
    config.data.ndim = 2
    config.data.patch = (128, 128)  # () for whole images
    config.data.foreground = 0.8  # the share of the patches that are drawn around tissue
    config.data.range = ()  # (low, high) in physical units; () takes it from the training images
    config.data.normalise = "none"  # or volume: each image on a scale of its own, for units that differ from scan to scan
    config.data.spacing_mm = ()  # voxel size of images whose files have none
    config.data.workers = 0
    config.augment = registry.keywords(augment.Augment)

    config.mesh = ml_collections.ConfigDict()
    config.mesh.data = -1  # devices among which samples are divided; -1: all that space leaves
    config.mesh.space = 1  # devices among which the first spatial axis is divided
    config.mesh.mode = "jit"  # or shard_map, pmap: the same step, written out by device
    config.mesh.fsdp = False  # split parameters and optimizer state over data, too
    config.mesh.offload = False  # optimizer state in host memory between steps
    config.mesh.pad = False  # pad images whose first axis does not divide over space; padding does not count
    config.accumulate = 1  # microbatches of a batch that go through one after the other
    config.remat = "none"  # or full, dots: what blocks compute is recomputed in the backward pass, not kept
    config.log_every = 20
    config.eval_every = 500
    config.eval_samples = 16  # validation samples evaluated while training; 0 for all
    config.checkpoint_every = 500
    config.keep = 2  # latest checkpoints kept, beside the best
    config.metric = "psnr"  # what the best checkpoint is best at
    config.references = ("all",)  # methods without training to compare with: names, or none
    return config


def parse(arg: str | None, **defaults: str) -> dict[str, str]:
    """The structure named behind the colon, "model=edsr,source=shards", over a config's `defaults`.

    Every config takes a task, model, objective and source there.
    """
    given = dict(part.partition("=")[::2] for part in (arg or "").split(",") if part)
    allowed = dict.fromkeys([*defaults, "task", "model", "objective", "critic", "source"])
    for key, value in given.items():
        if key not in allowed or not value:
            raise UserError(f"--config=…:{arg}", f"unknown {key!r}; choose from "
                            + ", ".join(f"{name}=…" for name in allowed))
    return defaults | given


def prefer(group: ml_collections.ConfigDict, **values: object) -> None:
    """Sets those of `values` that the chosen network (task, source) has: another one behind the colon may lack some."""
    group.update({key: value for key, value in values.items() if key in group})
