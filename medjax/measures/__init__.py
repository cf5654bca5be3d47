"""Measures: training losses, and metrics of images, regions, classes, fusion and sets of images."""
