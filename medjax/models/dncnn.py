"""DnCNN (Zhang et al., 2017): 17 layers with batch norm that predict the noise."""

from functools import partial

from medjax.models.cnn import CNN

DnCNN = partial(CNN, features=(64,) * 16, kernels=(3,) * 17, norm="batch")
