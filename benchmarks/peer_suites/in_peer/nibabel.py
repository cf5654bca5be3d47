"""nibabel: its images and its tables of images are read by the tests that are written here; no function is replaced."""


def replace() -> None:
    """Nothing: those tests call medjax beside nibabel."""
