"""Networks of ldct-benchmark, trained by its trainers."""

import importlib
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import without_nms  # noqa: F401
import without_wandb  # noqa: F401

# isort: split
import numpy as np
import torch
from ldctbench.methods import base
from ldctbench.utils.auxiliaries import load_yaml
from stored import Pairs
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

INFO = load_yaml(str(Path(base.__file__).parents[1] / "data" / "info.yml"))


def versions() -> dict[str, str]:
    """ldct-benchmark's and PyTorch's."""
    return {"ldct-benchmark": version("ldct-benchmark"), "torch": torch.__version__}


class Slices(Dataset):
    """The pairs, as its trainers take them: low and full dose, less the mean of its training set over the deviation."""

    def __init__(self, pairs: Pairs):
        self.pairs = pairs
        self.weights = torch.ones(len(pairs))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        low, full = self.pairs.row(index, "input", "target")
        return {"x": torch.from_numpy(low), "y": torch.from_numpy(full)}

    def denormalize(self, values: np.ndarray) -> np.ndarray:
        """As its own data set does."""
        return values * INFO["std"] + INFO["mean"]


def arguments(settings: dict[str, Any]) -> Namespace:
    """What its config files say (configs/*.yaml), on a CPU, with the budget's steps and batch."""
    return Namespace(trainer=settings["network"], optimizer="adam", lr=settings["lr"], adam_b1=0.9, adam_b2=0.999,
                     mbs=settings["batch_size"], iterations_before_val=settings["steps"], num_workers=0, cuda=False,
                     devices=0, seed=settings["seed"], max_iterations=settings["steps"], valsamples=8)


def network(settings: dict[str, Any]) -> torch.nn.Module:
    """The network alone."""
    module = importlib.import_module(f"ldctbench.methods.{settings['network']}.network")
    return module.Model(arguments(settings), **{key: settings[key] for key in ("out_ch", "n_channels", "n_blocks")
                                                if key in settings})


def train(pairs: Pairs, folder: Path) -> int:
    """The steps that its trainer makes between two validations; Adam and the mean squared error."""
    settings = pairs.settings
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    module = importlib.import_module(f"ldctbench.methods.{settings['network']}.Trainer")
    base.LDCTMayo = lambda mode, args: Slices(pairs)
    module.Model = lambda args: network(settings)
    trainer = module.Trainer(arguments(settings), torch.device("cpu"))
    trainer.dataloader["train"] = DataLoader(Slices(pairs), settings["batch_size"])  # in order, in place of its sampler
    trainer.train()
    torch.save(trainer.model.state_dict(), folder / "weights.pt")
    return sum(p.numel() for p in trainer.model.parameters())


def predict(pairs: Pairs, folder: Path) -> np.ndarray:
    """What the trained network makes of the low dose."""
    torch.set_num_threads(pairs.settings["threads"])
    model = network(pairs.settings)
    model.load_state_dict(torch.load(folder / "weights.pt"))
    given = torch.from_numpy(np.moveaxis(np.array(pairs["input"]), -1, 1))
    with torch.inference_mode():
        return np.moveaxis(np.concatenate([model.eval()(x[None]).numpy() for x in given]), 1, -1)
