"""What classifiers trained on ImageNet share."""

PREPARATION = "ImageNet's mean and deviation taken off in the network; resize and crop to 224 x 224 before, as torchvision"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of red, green, blue in 0 … 1


def of_images(channels: int, classes: int) -> dict[str, object]:
    """The keys of a classification of 8-bit pictures."""
    colours: dict[str, object] = {"model.mean": MEAN, "model.std": STD} if channels == 3 else {}
    return {"data.channels": channels, "data.range": (0.0, 255.0),
            "task.classes": tuple(map(str, range(classes))), **colours}
