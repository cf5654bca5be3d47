"""Methods without training, declared by what they are for."""

from medjax.classical._declared import NoiseModel, by_sample, grid, method, methods

__all__ = ["NoiseModel", "by_sample", "grid", "method", "methods"]
