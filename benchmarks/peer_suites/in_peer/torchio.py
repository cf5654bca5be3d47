"""TorchIO's readers of images, by SimpleITK and by nibabel."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from in_peer import link
from in_peer.link import LackingError
from in_peer.readers import on_axes, read, refusal
from torchio.data import io


def replace() -> None:
    for name in ("_read_sitk", "_read_nibabel"):
        link.replace(io, name, reader(getattr(io, name)))


def reader(theirs: Any) -> Any:
    """medjax's values and affine on the axes that TorchIO's own reader gives the file, frames or colours as its channels."""
    def read_image(path: str | Path) -> tuple[torch.Tensor, np.ndarray]:
        if not Path(path).exists():
            raise LackingError("a file that is not there")
        try:
            records = read(path)
        except ValueError as error:
            raise LackingError(refusal(error, path)) from error
        tensor, affine = theirs(path)
        tensor = io.ensure_4d(tensor)
        frames = [on_axes(record, affine, tensor.shape[1:]) for record in records]
        channels = np.concatenate([np.moveaxis(values, -1, 0) for values, _ in frames])
        return torch.from_numpy(channels).to(tensor.dtype), affine if frames[0][1] is None else frames[0][1]

    return read_image
