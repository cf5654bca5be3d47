"""The U-Net of fastMRI, trained as its module for PyTorch Lightning."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import without_nms  # noqa: F401

# isort: split
import numpy as np
import pytorch_lightning
import torch
from fastmri.data.transforms import UnetSample, normalize, normalize_instance
from fastmri.pl_modules import UnetModule
from stored import Pairs
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


def versions() -> dict[str, str]:
    """fastMRI's, Lightning's and PyTorch's."""
    return {name: version(name) for name in ("fastmri", "pytorch-lightning")} | {"torch": torch.__version__}


def given(image: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """An image as its transform gives it: mean 0 and deviation 1, clipped at 6; and both."""
    values, mean, std = normalize_instance(torch.from_numpy(image), eps=1e-11)
    return values.clamp(-6, 6), mean, std


class Slices(Dataset):
    """The pairs of magnitudes as samples of its transform."""

    def __init__(self, pairs: Pairs):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> UnetSample:
        (image,), (target,) = self.pairs.row(index, "input", "target")
        values, mean, std = given(image)
        truth = normalize(torch.from_numpy(target), mean, std, eps=1e-11).clamp(-6, 6)
        return UnetSample(values, truth, mean, std, "", index, float(target.max()))


class Module(UnetModule):
    """Its module with its own rate and optimizer, without the evaluation that Lightning 2 has no place for."""

    validation_epoch_end = test_epoch_end = None


def module(settings: dict[str, Any]) -> Module:
    """The module of a case."""
    torch.set_num_threads(settings["threads"])
    return Module(chans=settings["chans"], num_pool_layers=settings["num_pool_layers"], lr=settings["lr"])


def train(pairs: Pairs, folder: Path) -> int:
    """One pass over the pairs, which are all of the training; RMSprop and L1, as its module says."""
    settings = pairs.settings
    pytorch_lightning.seed_everything(settings["seed"])
    made = module(settings)
    trainer = pytorch_lightning.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
                                        enable_progress_bar=False, default_root_dir=folder)
    trainer.fit(made, DataLoader(Slices(pairs), settings["batch_size"]))
    trainer.save_checkpoint(folder / "weights.ckpt")
    return sum(p.numel() for p in made.parameters())


def predict(pairs: Pairs, folder: Path) -> np.ndarray:
    """What the trained network makes of the zero-filled magnitudes."""
    made = module(pairs.settings)
    made.load_state_dict(torch.load(folder / "weights.ckpt", weights_only=False)["state_dict"])
    found = []
    with torch.inference_mode():
        for image in pairs["input"]:
            values, mean, std = given(np.array(image[..., 0]))
            found.append((made.eval()(values[None]) * std + mean)[0, ..., None].numpy())
    return np.stack(found)
