"""What a scanner does to an image, as a linear operator with its exact adjoint."""

from typing import Protocol, runtime_checkable

from medjax.types import Array


@runtime_checkable
class Operator(Protocol):
    """A linear forward model `y = A(x)`; images are `(B, ..., C)`, channels last.

    Implementations are frozen dataclass pytrees (`medjax.types.pytree`): tables, maps and masks are leaves, geometry
    is static. Every one has a dot test and an element-by-element test against a dense float64 matrix.
    """

    def __call__(self, x: Array) -> Array:
        """What the scanner measures of the image `x`."""
        ...

    def adjoint(self, y: Array) -> Array:
        """The exact transpose (conjugate transpose for complex data)."""
        ...

    def init(self, y: Array) -> Array:
        """A first image from the measurement, the network's input: FBP, zero-filled, interpolated."""
        ...
