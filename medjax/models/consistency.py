"""What networks with physics inside share: the measurement they are given, and the step back to it."""

from typing import Any

from medjax.ops.solve import conjugate_gradients
from medjax.physics.operator import Operator
from medjax.types import Array, UserError


def measurement(name: str, context: Any) -> tuple[Operator, Array]:
    """The operator and the measured data that a reconstruction task gives. Raises UserError where it gives none."""
    if not isinstance(context, dict) or not {"operator", "y"} <= set(context):
        raise UserError("config.model.name", f"{name} works on raw measurements, which this task or file has none of; "
                        "use unet, or a task such as ct_recon, mri_recon, deblur, inpaint")
    return context["operator"], context["y"]


def consistent(A: Operator, y: Array, near: Array, weight: Array | float, iterations: int) -> Array:
    """The image that minimises `|A x - y|^2 + weight |x - near|^2`, by conjugate gradients from `near`."""
    return conjugate_gradients(lambda x: A.adjoint(A(x)) + weight * x, A.adjoint(y) + weight * near, near, iterations)
