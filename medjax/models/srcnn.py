"""SRCNN (Dong et al., 2014): three layers on the interpolated image."""

from functools import partial

from medjax.models.cnn import CNN

SRCNN = partial(CNN, features=(64, 32), kernels=(9, 5, 5), residual=False)
