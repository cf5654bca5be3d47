"""TorchIO's readers of images, by SimpleITK and by nibabel."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio
from torchio.data import io

from in_peer import link
from in_peer.link import LackingError
from in_peer.readers import on_axes, read, refusal


def versions() -> dict[str, str]:
    return {"torchio": torchio.__version__, "torch": str(torch.__version__), "numpy": np.__version__}


def prepare() -> None:
    """There is nothing to do before its tests are imported."""


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
        channels = [channel for record in records for channel in np.moveaxis(on_axes(record, affine, tensor.shape[1:])[0], -1, 0)]
        own = on_axes(records[0], affine, tensor.shape[1:])[1]
        return torch.from_numpy(np.stack(channels)).to(tensor.dtype), affine if own is None else own

    return read_image
