"""deepinv's operators: convolution, inpainting, down-sampling, MRI, the Radon transform with both beams, NUFFT.

Its classes stay, with their noise, norms and solvers; what they compute forward and back is medjax's, and gradients are, too.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from in_peer import link
from in_peer.link import LackingError, call, translates

BOUNDARIES = {"circular": "wrap", "replicate": "edge", "reflect": "reflect", "constant": "zero", "zeros": "zero", "valid": "valid"}


def versions() -> dict[str, str]:
    import deepinv

    return {"deepinv": deepinv.__version__, "torch": str(torch.__version__), "numpy": np.__version__}


def prepare() -> None:
    """torchvision's build for GPUs asks for operators of boxes that torch for CPUs has not."""
    torch.set_num_threads(1)
    global declared
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def replace() -> None:
    import deepinv.physics as physics
    from deepinv.physics import functional, nufft
    from deepinv.physics.functional import convolution, radon
    from deepinv.utils.mixins import MRIMixin

    for name in ("conv2d", "conv_transpose2d", "conv3d", "conv_transpose3d"):
        link.replace(functional, name, convolved("transpose" in name), convolution)
    link.replace(physics.Inpainting, "A", masked)
    link.replace(physics.Inpainting, "A_adjoint", masked)
    link.replace(physics.DownsamplingMatlab, "A", decimated)
    link.replace(physics.DownsamplingMatlab, "A_adjoint", decimated_back)
    link.replace(MRIMixin, "fft", fourier("fft"))
    link.replace(MRIMixin, "ifft", fourier("ifft"))
    link.replace(physics.MRI, "A", single_coil)
    link.replace(physics.MultiCoilMRI, "A", multi_coil)
    link.replace(physics.MultiCoilMRI, "A_adjoint", multi_coil_back)
    link.replace(nufft.ApplyNUFFT, "apply", nonuniform)
    link.replace(radon.Radon, "forward", projected)
    link.replace(radon.IRadon, "forward", back_projected)


class Linear(torch.autograd.Function):
    """An operator of medjax or its adjoint, linear in `x`: its gradient is the other one, those of parameters JAX's."""

    @staticmethod
    def forward(operator: tuple[str, dict[str, Any]], back: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.from_numpy(np.array(call("apply", *operator, back, x.numpy(), *(p.numpy() for p in parameters))))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.operator, ctx.back, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, *parameters = ctx.saved_tensors
        given: list[Tensor | None] = [None] * len(parameters)
        if any(ctx.needs_input_grad[3:]):
            found = call("gradients", *ctx.operator, ctx.back, gradient.detach().numpy(), x.detach().numpy(),
                         *(p.detach().numpy() for p in parameters))
            # PyTorch's gradient of a real number by a complex one is the conjugate of JAX's.
            given = [torch.from_numpy(np.conj(g)).to(p.dtype) for g, p in zip(found, parameters, strict=True)]
        return None, None, Linear.apply(ctx.operator, not ctx.back, gradient, *parameters), *given


def linear(name: str, back: bool, x: Tensor, *parameters: Tensor, **settings: Any) -> Tensor:
    """`name`'s operator, or its adjoint; parameters are its tensors, settings the rest."""
    if x.device.type != "cpu":
        raise LackingError("another device than the CPU")
    return Linear.apply((name, settings), back, x, *parameters).to(x.dtype)


def convolved(back: bool) -> Any:
    def convolve(x: Tensor, filter: Tensor, padding: str = "valid", correlation: bool = False) -> Tensor:
        space = filter.shape[2:]
        if padding.lower() not in BOUNDARIES or x.ndim != filter.ndim or x.is_complex() or filter.is_complex():
            raise LackingError("checks of the arguments")
        if any(n % 2 == 0 for n in space):
            raise LackingError("kernels of even sizes, which have no centre")
        if filter.shape[0] not in (1, len(x)) or filter.shape[1] not in (1, x.shape[1]):
            raise LackingError("checks of the arguments")
        if correlation:
            filter = filter.flip(tuple(range(2, filter.ndim)))
        boundary = BOUNDARIES[padding.lower()]
        if translates("reflect", boundary == "reflect"):
            raise LackingError("padding without the edge pixel")
        return linear("blur", back, x, filter, boundary=boundary)

    return convolve


def masked(physics: Any, x: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
    physics.update_parameters(mask=mask, **kwargs)
    if x.is_complex() or x.ndim < 3:
        raise LackingError("complex images, or images without channels")
    return linear("mask", False, x, physics.mask)


def decimated(physics: Any, x: Tensor, factor: Any = None, **kwargs: Any) -> Tensor:
    physics.update_parameters(factor=factor, device=x.device, **kwargs)
    return linear("decimate", False, x, factor=int(physics.factor))


def decimated_back(physics: Any, y: Tensor, factor: Any = None, **kwargs: Any) -> Tensor:
    physics.update_parameters(factor=factor, device=y.device, **kwargs)
    return linear("decimate", True, y, factor=int(physics.factor))


def fourier(name: str) -> Any:
    def transform(x: Tensor, dim: tuple[int, ...] = (-2, -1), norm: str = "ortho") -> Tensor:
        if norm != "ortho" or tuple(dim) != tuple(range(-len(dim), 0)):
            raise LackingError("another norm, or other axes than the last")
        real = torch.view_as_real(x.contiguous())
        return torch.view_as_complex(linear("fourier", name == "ifft", real, ndim=len(dim)).contiguous())

    return transform


def sampled(mask: Tensor) -> Tensor:
    """The mask of complex samples, `(B, 1, *space)`."""
    if not torch.equal(mask[:, :1].expand_as(mask), mask):
        raise LackingError("a mask that differs between real and imaginary parts")
    return mask[:, :1]


def single_coil(physics: Any, x: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
    """Of one coil that is 1 everywhere. The adjoint is deepinv's, whose Fourier transform is medjax's."""
    physics.update_parameters(mask=mask, **kwargs)
    maps = torch.ones((1, 1, *x.shape[2:]), dtype=torch.complex64)
    return linear("cartesian", False, x, sampled(physics.mask), maps)[:, :, 0]


def multi_coil(physics: Any, x: Tensor, mask: Tensor | None = None, coil_maps: Tensor | None = None, **kwargs: Any) -> Tensor:
    physics.update_parameters(mask=mask, coil_maps=coil_maps, **kwargs)
    return linear("cartesian", False, x, sampled(physics.mask), physics.coil_maps)


def multi_coil_back(physics: Any, y: Tensor, mask: Tensor | None = None, coil_maps: Tensor | None = None, rss: bool = False,
                    crop: bool = False, **kwargs: Any) -> Tensor:
    if rss or crop:
        raise LackingError("the root of the sum of squares, or a crop, in the adjoint")
    physics.update_parameters(mask=mask, coil_maps=coil_maps, **kwargs)
    return linear("cartesian", True, y, sampled(physics.mask), physics.coil_maps)


def nonuniform(x: Tensor, operator: Any, back: bool) -> Tensor:
    """mri-nufft counts half a turn a pixel at 0.5; medjax cycles in the field of view."""
    shape = tuple(operator.shape)
    places = np.asarray(operator.samples, np.float64)
    cycles = places.reshape(-1, len(shape)) / (2 * np.abs(places).max()) * np.array(shape)
    real = torch.view_as_real(x.contiguous())
    return torch.view_as_complex(linear("nufft", back, real, trajectory=cycles.tobytes(), space=shape).contiguous())


def projected(radon: Any, x: Tensor) -> Tensor:
    """deepinv's sinograms are `(B, C, detectors, views)`; a circle is cut out of the image where it is asked for."""
    size = x.shape[-1]
    if x.shape[-2] != size:
        raise LackingError("images that are not square")
    if radon.circle:
        axis = torch.linspace(-1, 1, size, dtype=x.dtype)
        x = x * ((axis[:, None] ** 2 + axis[None] ** 2) <= 1)
    if radon.fan_beam and radon.circle:
        raise LackingError("a fan beam of an image in a circle")
    return linear("radon", False, x, **geometry(radon, size))


def back_projected(iradon: Any, y: Tensor, filtering: bool = True) -> Tensor:
    if iradon.out_size is not None:
        raise LackingError("out_size")
    size = iradon.in_size
    if filtering:
        found = torch.from_numpy(np.array(call("fbp", geometry(iradon, size), y.detach().numpy()))).to(y.dtype)
    else:
        found = linear("radon", True, y, **geometry(iradon, size)) * torch.pi / (2 * len(iradon.theta))
    if iradon.circle:
        axis = torch.linspace(-1, 1, size, dtype=y.dtype)
        found = found * ((axis[:, None] ** 2 + axis[None] ** 2) <= 1)
    return found


def geometry(transform: Any, size: int) -> dict[str, Any]:
    """Of medjax's beams, in pixels, or in the fan's own unit of length."""
    angles = tuple(math.radians(a) for a in transform.theta.tolist())
    if getattr(transform, "fan_beam", False):
        fan = transform.fan_parameters
        return {"size": size, "angles": angles, "detectors": fan["n_detector_pixels"], "pixel": fan["pixel_spacing"],
                "element": fan["detector_spacing"], "source": fan["source_radius"],
                "distance": fan["source_radius"] + fan["detector_radius"]}
    detectors = size if transform.circle else math.ceil(size * math.sqrt(2))
    return {"size": size, "angles": angles, "detectors": detectors}
