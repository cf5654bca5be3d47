"""VGG (Simonyan & Zisserman, 2015) in 2-D or 3-D, with batch norm: `depth` 11, 13, 16 or 19, `width` 64 as published."""

from collections.abc import Sequence
from typing import Any

from medjax.models.classifier import Classifier
from medjax.types import UserError

STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(ndim: int, channels: int, depth: int = 11, width: int = 16, dense: Sequence[int] = (256, 256), norm: str = "batch",
        head: str = "mean", dropout: float = 0.5, bias: bool = False, mean: Sequence[float] = (), std: Sequence[float] = (),
        dtype: Any = "float32") -> Classifier:
    """A VGG of `depth` layers. Its dense layers see the mean over the last grid, so that any image size will do.

    The original, for images of 224 pixels, has `head="grid"`, `norm="none"` and `dense=(4096, 4096)`. `bias`, `mean` and
    `std`: see `Classifier`.
    """
    if depth not in STAGES:
        raise UserError("config.model.depth", f"no VGG of {depth} layers; there is {', '.join(map(str, STAGES))}")
    widths = tuple(width * factor for factor in (1, 2, 4, 8, 8))
    return Classifier(ndim, channels, STAGES[depth], widths, dense, head=head, norm=norm, dropout=dropout, bias=bias,
                      mean=mean, std=std, dtype=dtype)
