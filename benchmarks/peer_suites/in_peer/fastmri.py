"""fastMRI: centred Fourier transforms, magnitudes, crops, and random and equispaced masks."""

from typing import Any

import fastmri
import fastmri.data.subsample
import fastmri.data.transforms
import numpy as np
import torch
from in_peer import link
from in_peer.link import LackingError, call

vars(np)["product"] = np.prod  # its tests of 2023 call it by the name that NumPy 2 took away


def replace() -> None:
    transforms, subsample = fastmri.data.transforms, fastmri.data.subsample
    link.replace(fastmri, "fft2c", fourier("fft"))
    link.replace(fastmri, "ifft2c", fourier("ifft"))
    link.replace(fastmri, "complex_abs", complex_abs)
    link.replace(fastmri, "rss", rss)
    link.replace(transforms, "center_crop", center_crop)
    link.replace(transforms, "complex_center_crop", complex_center_crop)
    link.replace(subsample.RandomMaskFunc, "sample_mask", lines("random_lines"))
    link.replace(subsample.EquispacedMaskFractionFunc, "sample_mask", lines("equispaced_lines"))


def as_complex(data: torch.Tensor) -> np.ndarray:
    return torch.view_as_complex(data.contiguous()).numpy()


def fourier(name: str) -> Any:
    def transform(data: torch.Tensor, norm: str = "ortho") -> torch.Tensor:
        if norm != "ortho":
            raise LackingError(f"norm={norm!r}")
        return torch.view_as_real(torch.from_numpy(call(name, as_complex(data), 2)))

    return transform


def complex_abs(data: torch.Tensor) -> torch.Tensor:
    """The root of the sum of squares of one coil."""
    return torch.from_numpy(call("root_sum_of_squares", as_complex(data)[None, None])[0, ..., 0])


def rss(data: torch.Tensor, dim: int = 0) -> torch.Tensor:
    return torch.from_numpy(call("root_sum_of_squares", np.moveaxis(data.numpy(), dim, 0)[None])[0, ..., 0])


def center_crop(data: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    return _cropped(data[..., None], shape)[..., 0]


def complex_center_crop(data: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    return _cropped(data, shape)


def _cropped(data: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    size = data.shape[-3:-1]
    if shape[0] != shape[1] or not 0 < shape[0] <= min(size):
        raise LackingError("a crop that is not square, or larger than the image")
    found = call("centre_crop", data.numpy().reshape(-1, *data.shape[-3:]), int(shape[0]))
    return torch.from_numpy(found.reshape(*data.shape[:-3], *found.shape[1:]))


def lines(name: str) -> Any:
    def sample_mask(mask_func: Any, shape: Any, offset: int | None) -> tuple[torch.Tensor, torch.Tensor, int]:
        """The lines in the middle, all lines, and how many are in the middle."""
        if offset is not None:
            raise LackingError("a given offset")
        size = shape[-2]
        centre, acceleration = mask_func.choose_acceleration()
        chosen = call("lines", name, int(mask_func.rng.randint(2**31)), int(size), float(acceleration), float(centre))
        count = round(size * centre)
        middle = np.zeros(size, bool)
        middle[size // 2 - count // 2:size // 2 - count // 2 + count] = True
        assert chosen[middle].all()
        return mask_func.reshape_mask(middle, shape), mask_func.reshape_mask(chosen, shape), count

    return sample_mask
