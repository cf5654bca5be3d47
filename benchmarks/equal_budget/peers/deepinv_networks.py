"""Networks of deepinv, trained by its Trainer: denoisers, and an unrolled network for MRI."""

from collections.abc import Mapping
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

OWN = ("depth", "nf", "nc", "nb")  # arguments of its networks


def versions() -> dict[str, str]:
    """deepinv's and PyTorch's."""
    return {"deepinv": deepinv.__version__, "torch": torch.__version__}


def parts(settings: Mapping[str, Any]) -> tuple[torch.nn.Module, deepinv.physics.Physics]:
    """The reconstruction network, and the physics that it knows."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    own = {key: settings[key] for key in OWN if key in settings}
    if settings["network"] == "MoDL":
        denoiser = deepinv.models.DnCNN(2, 2, pretrained=None, **own)
        return deepinv.models.MoDL(denoiser, settings["num_iter"]), deepinv.physics.MultiCoilMRI()
    network = getattr(deepinv.models, settings["network"])(1, 1, pretrained=None, **own)
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(settings["sigma"]))
    return deepinv.models.ArtifactRemoval(network, device="cpu"), physics


class Samples(Dataset):
    """Truth, measurement and, of MRI, what the physics of the sample is, as deepinv's Trainer takes them."""

    def __init__(self, pairs: Pairs):
        self.pairs, self.mri = pairs, pairs.settings["network"] == "MoDL"

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        truth, image = self.pairs.row(index, "target", "input")
        if not self.mri:
            return torch.from_numpy(truth), torch.from_numpy(image)
        y, maps, sampled = (np.array(self.pairs[name][index]) for name in ("y", "maps", "sampled"))
        measured = torch.from_numpy(np.stack([y.real, y.imag]))
        mask = torch.from_numpy(np.broadcast_to(sampled, (2, *sampled.shape[1:])).copy())
        return torch.from_numpy(truth), measured, {"mask": mask, "coil_maps": torch.from_numpy(maps)}


def train(pairs: Pairs, folder: Path) -> int:
    """One pass over the pairs, which are all of the training; Adam and the mean squared error, as in its examples."""
    settings = pairs.settings
    model, physics = parts(settings)
    deepinv.Trainer(model, physics, torch.optim.Adam(model.parameters(), lr=settings["lr"]),
                    DataLoader(Samples(pairs), settings["batch_size"]), epochs=1,
                    losses=deepinv.loss.SupLoss(metric=deepinv.loss.metric.MSE()), device="cpu", save_path=str(folder),
                    metrics=None, compute_train_metrics=False, verbose=False, show_progress_bar=False).train()
    torch.save(model.state_dict(), folder / "weights.pt")
    return sum(p.numel() for p in model.parameters())


def predict(pairs: Pairs, folder: Path) -> np.ndarray:
    """What the trained network makes of the measurements."""
    model, physics = parts(pairs.settings)
    model.load_state_dict(torch.load(folder / "weights.pt"))
    found: list[Tensor] = []
    with torch.no_grad():
        for _, y, *known in DataLoader(Samples(pairs), 1):
            if known:
                physics.update(**known[0])
            found.append(model.eval()(y, physics))
    return np.moveaxis(torch.cat(found).numpy(), 1, -1)
