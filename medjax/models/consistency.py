"""What networks with physics inside share: the measurement they are given, and the step back to it."""

from medjax.ops.solve import conjugate_gradients
from medjax.types import Array, Context, Measurement, Operator, UserError


def measurement(name: str, context: Context) -> Measurement:
    """The measurement that a reconstruction task gives. Raises UserError where it gives none."""
    if not isinstance(context, Measurement):
        raise UserError("config.model.name", f"{name} works on raw measurements, which this task or file has none of; "
                        "use unet, or a task such as ct_recon, mri_recon, deblur, inpaint")
    return context


def consistent(A: Operator, y: Array, near: Array, weight: Array | float, iterations: int) -> Array:
    """The image that minimises `|A x - y|^2 + weight |x - near|^2`, by conjugate gradients from `near`."""
    return conjugate_gradients(lambda x: A.adjoint(A(x)) + weight * x, A.adjoint(y) + weight * near, near, iterations)
