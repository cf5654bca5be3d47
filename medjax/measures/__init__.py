"""Measures: training losses, and metrics of images, regions, classes, fusion and sets of images."""

from medjax.measures._declared import image_metric

__all__ = ["image_metric"]
