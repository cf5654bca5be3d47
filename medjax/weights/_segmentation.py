"""What segmentation networks without a scale of their own share."""

PREPARATION = "as in the training of these weights: give --config.data.range, or --config.data.normalise=volume"


def of_images(first: tuple[int, ...], last: tuple[int, ...]) -> dict[str, object]:
    """The keys of a segmentation, by the shapes of the kernels at the input and the output; classes have numbers."""
    ndim = len(first) - 2
    found: dict[str, object] = {"data.channels": first[1], "data.ndim": ndim, "data.range": (0.0, 1.0),
                                "task.classes": ("background", *map(str, range(1, last[0])))}
    return found if ndim == 2 else {**found, "data.patch": (96,) * ndim}
