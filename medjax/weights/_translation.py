"""What generators that translate images share."""

PREPARATION = "-1 … 1 inside the network, from unit range (config.data.range), as in the original"


def of_images(channels: int, made: int) -> dict[str, object]:
    """The keys of a task between images: contrasts to one, or colour pictures of 8 bit to such.

    What contrasts they are no file says: `config.task.source` and `config.task.target` do.
    """
    if made > 1:
        return {"task.name": "enhance", "data.channels": channels, "data.range": (0.0, 255.0)}
    source = tuple(f"source{number + 1}" for number in range(channels)) if channels > 1 else ("source",)
    return {"data.channels": channels, "data.range": (0.0, 1.0), "task.source": source, "task.target": "target"}
