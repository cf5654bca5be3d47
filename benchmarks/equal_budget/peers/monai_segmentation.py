"""Networks of MONAI that segment volumes, trained by the loop and the settings of its tutorials.

`UNet` is that of the tutorial spleen_segmentation_3d, which trains by Adam; `DynUNet` that of the pipeline for the Medical
Segmentation Decathlon, which trains by SGD and looks at coarser levels, too (deep supervision).
"""

from pathlib import Path
from typing import Any

import without_nms  # noqa: F401

# isort: split
import monai
import numpy as np
import torch
from stored import Pairs
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset


def versions() -> dict[str, str]:
    """MONAI's and PyTorch's."""
    return {"monai": monai.__version__, "torch": torch.__version__}


class Volumes(Dataset):
    """Patches and their labels, one channel each."""

    def __init__(self, pairs: Pairs):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, target = self.pairs.row(index, "input", "target")
        return torch.from_numpy(image), torch.from_numpy(target.argmax(0)[None])


def network(settings: dict[str, Any]) -> torch.nn.Module:
    """Of `channels` by level, each half as fine as the one before."""
    torch.set_num_threads(settings["threads"])
    monai.utils.set_determinism(settings["seed"])
    channels, classes = settings["channels"], settings["classes"]
    if settings["network"] == "UNet":
        return monai.networks.nets.UNet(spatial_dims=3, in_channels=1, out_channels=classes, channels=channels,
                                        strides=[2] * (len(channels) - 1), num_res_units=2, norm="batch")
    strides = [1] + [2] * (len(channels) - 1)
    return monai.networks.nets.DynUNet(spatial_dims=3, in_channels=1, out_channels=classes, kernel_size=[3] * len(channels),
                                       strides=strides, upsample_kernel_size=strides[1:], filters=channels,
                                       norm_name="instance", deep_supervision=True, deep_supr_num=1)


def optimizer(model: torch.nn.Module, settings: dict[str, Any]) -> tuple[Any, Any]:
    """The optimizer with its schedule."""
    if settings["network"] == "UNet":
        rule: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), settings["rate"])
        return rule, torch.optim.lr_scheduler.ConstantLR(rule, 1.0)
    rule = torch.optim.SGD(model.parameters(), settings["rate"], momentum=0.99, weight_decay=3e-5, nesterov=True)
    return rule, torch.optim.lr_scheduler.LambdaLR(rule, lambda step: (1 - step / settings["steps"]) ** 0.9)


def train(pairs: Pairs, folder: Path) -> int:
    """One pass over the pairs, which are all of the training."""
    settings = pairs.settings
    model = network(settings).train()
    rule, schedule = optimizer(model, settings)
    loss = monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)
    for image, label in DataLoader(Volumes(pairs), batch_size=settings["batch_size"], shuffle=False):
        rule.zero_grad()
        found = model(image)
        heads = torch.unbind(found, 1) if found.ndim > label.ndim else (found,)
        sum(0.5**level * loss(head, label) for level, head in enumerate(heads)).backward()
        rule.step()
        schedule.step()
    torch.save(model.state_dict(), folder / "weights.pt")
    return sum(p.numel() for p in model.parameters())


def predict(pairs: Pairs, folder: Path) -> np.ndarray:
    """The logits of whole volumes, which are padded to what the levels divide, and cut again."""
    model = network(pairs.settings)
    model.load_state_dict(torch.load(folder / "weights.pt"))
    model.eval()
    multiple = 2 ** (len(pairs.settings["channels"]) - 1)
    found = []
    with torch.inference_mode():
        for image in pairs["input"]:
            sizes = image.shape[:-1]
            padding = [n for size in reversed(sizes) for n in (0, -size % multiple)]
            volume = functional.pad(torch.from_numpy(np.moveaxis(image, -1, 0).copy())[None], padding)
            logits = model(volume)[0, :, :sizes[0], :sizes[1], :sizes[2]]
            found.append(np.moveaxis(logits.numpy(), 0, -1))
    return np.stack(found)
