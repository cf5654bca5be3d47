"""MONAI's side of `bench tiled`: PyTorch's equal of a network under `sliding_window_inference`, on CPU or CUDA."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import monai
import networks
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch_steps import DEVICE, clock, predictor

TOGETHER = (1, 4)  # windows that go through the network at once


def versions() -> dict[str, str]:
    """MONAI's and PyTorch's."""
    return {"monai": monai.__version__, "torch": torch.__version__}


class Peer:
    """A network with given weights and an image, made by `build`; further images by `save`."""

    def __init__(self) -> None:
        if hasattr(os, "sched_getaffinity"):
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._apply: Callable[[torch.Tensor], torch.Tensor]
        self._image: torch.Tensor

    def build(self, model: dict[str, Any], ndim: int, channels: int, scale: list[int], window: list[int], overlap: float,
              dtype: str, given: str) -> dict[str, int | str | float]:
        """Takes the image, the network's weights and those of a window's voxels from the file `given`.

        Without weights of voxels windows are blended by MONAI's Gaussian ones. Returns what was faster: the memory format,
        and how many windows go through the network at once.
        """
        with np.load(given) as file:
            arrays = dict(file)
        self._image = torch.from_numpy(arrays.pop("image")).to(DEVICE)
        # Images that are smaller than a window are filled up as medjax does it.
        blended: dict[str, Any] = {"mode": "gaussian", "padding_mode": "replicate"}
        if "fade" in arrays:
            blended["roi_weight_map"] = torch.from_numpy(arrays.pop("fade")).to(DEVICE)
        last = (torch.channels_last, torch.channels_last_3d)[ndim - 2]
        some = self._image[(..., *(slice(size + (axis < 2) * int(size * (1 - overlap)))
                                   for axis, size in enumerate(window)))]  # of four windows
        contestants = {}
        for layout, memory_format in (("channels_last", last), ("contiguous", torch.contiguous_format)):
            network = networks.build(ndim=ndim, channels=channels, scale=tuple(scale), **model)
            network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
            network = network.to(DEVICE, memory_format=memory_format).eval()
            for count in TOGETHER:
                apply = torch.inference_mode()(partial(
                    sliding_window_inference, roi_size=tuple(window), sw_batch_size=count,
                    predictor=predictor(network, dtype), overlap=overlap, **blended))
                contestants[min(clock(partial(apply, some), 3)[1:])] = layout, count, apply
        layout, count, self._apply = contestants[min(contestants)]
        return {"layout": layout, "windows_at_once": count, "threads": torch.get_num_threads()}

    def save(self, path: str, image: str = "") -> None:
        """Writes the result, channels first; of the array in the file `image`, where one is given."""
        given = torch.from_numpy(np.load(image)).to(DEVICE) if image else self._image
        np.save(path, self._apply(given).float().cpu().numpy())

    def run(self, steps: int) -> list[float]:
        """Milliseconds of each volume, after one that does not count."""
        return [1e3 * seconds for seconds in clock(partial(self._apply, self._image), steps + 1)[1:]]
