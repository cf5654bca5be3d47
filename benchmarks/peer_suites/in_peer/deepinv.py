"""deepinv's operators: convolution, inpainting, down-sampling, MRI, the Radon transform with both beams, NUFFT.

Its classes stay, with their noise, norms and solvers; what they compute forward and back is medjax's, and so are
gradients.
"""

import math
from typing import Any

import numpy as np
import torch
from in_peer import link
from in_peer.link import LackingError, call, last_bits, translates
from torch import Tensor

torch.set_num_threads(1)
# torchvision asks for operators of boxes, which torch's build for CPUs may lack.
BOXES = torch.library.Library("torchvision", "FRAGMENT")
for operator in ("nms", "qnms"):
    BOXES.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

BOUNDARIES = {"circular": "wrap", "replicate": "edge", "reflect": "reflect", "constant": "zero", "zeros": "zero",
              "valid": "valid"}


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
    for name in ("fft", "ifft"):
        link.replace(MRIMixin, name, fourier(name, getattr(MRIMixin, name)))
    link.replace(physics.MRI, "A", single_coil)
    link.replace(physics.MultiCoilMRI, "A", multi_coil)
    link.replace(physics.MultiCoilMRI, "A_adjoint", multi_coil_back)
    link.replace(nufft.ApplyNUFFT, "apply", nonuniform)
    link.replace(radon.Radon, "forward", projected)
    link.replace(radon.IRadon, "forward", back_projected)
    physics.Tomography.fbp = with_its_edge(physics.Tomography.fbp)


class Linear(torch.autograd.Function):
    """An operator of medjax or its adjoint, linear in `x`: its gradient is the other one, those of parameters JAX's."""

    @staticmethod
    def forward(operator: dict[str, Any], back: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.from_numpy(np.array(call("apply", *arrays(x, *parameters), back=back, **operator)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.operator, ctx.back, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, *parameters = ctx.saved_tensors
        given: list[Tensor | None] = [None] * len(parameters)
        if any(ctx.needs_input_grad[3:]):
            found = call("gradients", *arrays(gradient, x, *parameters), back=ctx.back, **ctx.operator)
            # PyTorch's gradient of a real number by a complex one is the conjugate of JAX's.
            given = [torch.from_numpy(np.conj(g)).to(p.dtype) for g, p in zip(found, parameters, strict=True)]
        return None, None, Linear.apply(ctx.operator, not ctx.back, gradient, *parameters), *given


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


def linear(name: str, back: bool, x: Tensor, *parameters: Tensor, **settings: Any) -> Tensor:
    """`name`'s operator, or its adjoint; parameters are its tensors, settings the rest."""
    if x.device.type != "cpu":
        raise LackingError("another device than the CPU")
    return Linear.apply({"name": name, **settings}, back, x, *parameters).to(x.dtype)


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
        if translates("reflect", boundary == "reflect" and any(n > 1 for n in space)):
            return mirrored(back, x, filter)
        return linear("blur", back, x, filter, boundary=boundary)

    return convolve


def mirrored(back: bool, x: Tensor, filter: Tensor) -> Tensor:
    """medjax's convolution where no boundary is met, of an image that PyTorch continues without the edge's pixel."""
    margins = [n // 2 for size in reversed(filter.shape[2:]) for n in (size, size)]
    if not back:
        return linear("blur", False, torch.nn.functional.pad(x, margins, mode="reflect"), filter, boundary="valid")
    wide = linear("blur", True, x, filter, boundary="valid")
    _, transposed = torch.func.vjp(lambda v: torch.nn.functional.pad(v, margins, mode="reflect"), torch.zeros_like(x))
    return transposed(wide)[0]


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


def fourier(name: str, theirs: Any) -> Any:
    def transform(x: Tensor, dim: tuple[int, ...] = (-2, -1), norm: str = "ortho") -> Tensor:
        if norm != "ortho" or tuple(dim) != tuple(range(-len(dim), 0)):
            raise LackingError("another norm, or other axes than the last")
        real = torch.view_as_real(x.contiguous())
        found = torch.view_as_complex(linear("fourier", name == "ifft", real, ndim=len(dim)).contiguous())
        return last_bits(found, lambda: theirs(x, dim, norm),
                         lambda f, own: torch.allclose(f, own, rtol=0, atol=1e-6 * float(own.abs().max())))

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


def multi_coil(physics: Any, x: Tensor, mask: Tensor | None = None, coil_maps: Tensor | None = None,
               **kwargs: Any) -> Tensor:
    physics.update_parameters(mask=mask, coil_maps=coil_maps, **kwargs)
    return linear("cartesian", False, x, sampled(physics.mask), physics.coil_maps)


def multi_coil_back(physics: Any, y: Tensor, mask: Tensor | None = None, coil_maps: Tensor | None = None, rss: bool = False,
                    crop: bool = False, **kwargs: Any) -> Tensor:
    if rss or crop:
        raise LackingError("the root of the sum of squares, or a crop, in the adjoint")
    physics.update_parameters(mask=mask, coil_maps=coil_maps, **kwargs)
    return linear("cartesian", True, y, sampled(physics.mask), physics.coil_maps)


def nonuniform(x: Tensor, operator: Any, back: bool) -> Tensor:
    """mri-nufft has angles per pixel, -pi to pi; medjax cycles in the field of view."""
    shape = tuple(operator.shape)
    cycles = np.asarray(operator.samples, np.float64).reshape(-1, len(shape)) / (2 * np.pi) * np.array(shape)
    real = torch.view_as_real(x.contiguous())
    found = torch.view_as_complex(linear("nufft", back, real, trajectory=cycles.tobytes(), space=shape).contiguous())
    return found * 2 ** (-len(shape) / 2) if translates("nufft_scale") else found


def projected(radon: Any, x: Tensor) -> Tensor:
    """Sinograms `(B, C, detectors, views)`, of lengths in pixels."""
    if x.shape[-2] != x.shape[-1]:
        raise LackingError("images that are not square")
    if radon.circle:
        x = x * disc(x.shape[-1], x.dtype)
    else:
        x = torch.nn.functional.pad(x, margins(x.shape[-1]))
    shape = geometry(radon, x.shape[-1])
    return linear("radon", False, x, **shape) / shape["pixel"]


def back_projected(iradon: Any, y: Tensor, filtering: bool = True) -> Tensor:
    if iradon.out_size is not None:
        raise LackingError("out_size")
    size = iradon.in_size
    shape = geometry(iradon, y.shape[2])
    if filtering:
        found = torch.from_numpy(np.array(call("fbp", *arrays(y), **shape))).to(y.dtype)
    else:
        found = linear("radon", True, y, **shape) * torch.pi / (2 * len(iradon.theta))
    if iradon.circle:
        return found * disc(size, y.dtype)
    return torch.nn.functional.pad(found, [-margin for margin in margins(size)])


def with_its_edge(theirs: Any) -> Any:
    """deepinv's; where conventions are translated, without putting the third pixel in the place of those at the edge."""
    def fbp(physics: Any, y: Tensor, **kwargs: Any) -> Tensor:
        asked = physics.fbp_interpolate_boundary
        physics.fbp_interpolate_boundary = asked and not translates("edge")
        try:
            return theirs(physics, y, **kwargs)
        finally:
            physics.fbp_interpolate_boundary = asked

    return fbp


def disc(size: int, dtype: torch.dtype) -> Tensor:
    """The circle in the image, that deepinv cuts out where it is told to."""
    axis = torch.linspace(-1, 1, size, dtype=dtype)
    return (axis[:, None] ** 2 + axis[None] ** 2 <= 1).to(dtype)


def margins(size: int) -> list[int]:
    """Those that deepinv puts around an image, for `torch.nn.functional.pad`: pixel `n // 2` stays in the middle."""
    wide = math.ceil(size * math.sqrt(2))
    before = wide // 2 - size // 2
    return [before, wide - size - before] * 2


def geometry(transform: Any, size: int) -> dict[str, Any]:
    """Of medjax's beams through an image of `size`, with its margins.

    deepinv's fan starts at the left, medjax's below; its pixels fill the image from centre to centre (`align_corners`), so
    that they are `size / (size - 1)` as large as it is told.
    """
    degrees = transform.theta.tolist()
    if not getattr(transform, "fan_beam", False):
        return {"size": size, "angles": tuple(map(math.radians, degrees)), "detectors": size, "pixel": 1.0}
    fan = transform.fan_parameters
    return {"size": size, "angles": tuple(math.radians(a - 90) for a in degrees), "detectors": fan["n_detector_pixels"],
            "pixel": fan["pixel_spacing"] * size / (size - 1), "element": fan["detector_spacing"],
            "source": fan["source_radius"], "distance": fan["source_radius"] + fan["detector_radius"]}
