"""Networks of deepinv, trained by its Trainer."""

from pathlib import Path
from typing import Any

import without_nms  # noqa: F401

# isort: split
import deepinv
import numpy as np
import torch
from stored import Pairs
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


def versions() -> dict[str, str]:
    """deepinv's and PyTorch's."""
    return {"deepinv": deepinv.__version__, "torch": torch.__version__}


class Noisy(Dataset):
    """Clean and noisy images, as deepinv's Trainer takes them."""

    def __init__(self, pairs: Pairs):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        clean, noisy = self.pairs.row(index, "target", "input")
        return torch.from_numpy(clean), torch.from_numpy(noisy)


def network(settings: dict[str, Any]) -> torch.nn.Module:
    """The denoiser as a reconstruction network."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    kind = getattr(deepinv.models, settings["network"])
    own = {key: settings[key] for key in ("depth", "nf", "nc", "nb") if key in settings}
    return deepinv.models.ArtifactRemoval(kind(1, 1, pretrained=None, **own), device="cpu")


def train(pairs: Pairs, folder: Path) -> None:
    """One pass over the pairs, which are all of the training; Adam and the mean squared error, as in deepinv's examples."""
    settings = pairs.settings
    model = network(settings)
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(settings["sigma"]))
    loader = DataLoader(Noisy(pairs), batch_size=settings["batch_size"], shuffle=False)
    deepinv.Trainer(model, physics, torch.optim.Adam(model.parameters(), lr=settings["lr"]), loader, epochs=1,
                    losses=deepinv.loss.SupLoss(metric=deepinv.loss.metric.MSE()), device="cpu", save_path=str(folder),
                    metrics=None, verbose=False, show_progress_bar=False).train()
    torch.save(model.state_dict(), folder / "weights.pt")


def predict(pairs: Pairs, folder: Path) -> np.ndarray:
    """What the trained network makes of the noisy images."""
    model = network(pairs.settings)
    model.load_state_dict(torch.load(folder / "weights.pt"))
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(pairs.settings["sigma"]))
    given = torch.from_numpy(np.moveaxis(np.array(pairs["input"]), -1, 1))
    with torch.inference_mode():
        return np.moveaxis(np.concatenate([model.eval()(x[None], physics).numpy() for x in given]), 1, -1)
