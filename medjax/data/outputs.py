"""What `medjax.apply` can write for a study: images, label maps, vector fields, table rows.

A further kind is any class with `write(destination)` (`medjax.types.Output`); a task may define its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medjax.data.formats import nifti
from medjax.types import Destination, Record


@dataclass(frozen=True)
class ImageOutput:
    """Images `(*space, C)` in physical units, one per record of the study, in the study's format, header and dtype.

    An image of another size keeps the field of view. `name` is added to the study's name; "" for the main output. Where they
    are differences of values, not values, `difference` says of what kind, for headers ("Half-width of the interval").
    """

    images: Sequence[np.ndarray]
    name: str = ""
    difference: str = ""

    def write(self, destination: Destination) -> None:
        """Writes a file, or a DICOM series."""
        destination.write_images(self.name, self.images, self.difference)


@dataclass(frozen=True)
class LabelOutput:
    """Label maps `(*space)` uint8 on the records' grids; `names` of the classes, background first."""

    labels: Sequence[np.ndarray]
    names: Sequence[str]
    name: str = ""

    def write(self, destination: Destination) -> None:
        """Writes a file in the study's format (uint8), or a DICOM SEG object."""
        destination.write_labels(self.name, self.labels, self.names)


@dataclass(frozen=True)
class NiftiOutput:
    """An image `(*space, C)` float32 as NIfTI in its own geometry, for what was measured in a format without images.

    With `vectors`, the C channels are a vector field along the spatial axes, in mm (NIfTI intent "vector"). With
    `source_units`, values of a scan that was rescaled for the model go back to its own; with `difference` they are
    differences of values.
    """

    image: np.ndarray
    record: Record
    name: str = ""
    vectors: bool = False
    source_units: bool = False
    difference: bool = False

    def write(self, destination: Destination) -> None:
        """Writes a `.nii.gz` file."""
        target = destination.file(self.name, ".nii.gz")
        if self.vectors:
            nifti.write_vectors(target, self.image, self.record)
        else:
            image = self.image
            if self.source_units:
                image = destination.in_source_units(self.image, self.record, self.difference)
            nifti.write_image(target, image, self.record)


def numbered(name: str, number: int, count: int) -> str:
    """The name of one of `count` outputs of a kind: with its number where there are several."""
    return name if count == 1 else f"{name}_{number:03d}" if name else f"{number:03d}"


@dataclass(frozen=True)
class RowOutput:
    """Columns of the study's row in the table of all studies."""

    values: Mapping[str, str | float]

    def write(self, destination: Destination) -> None:
        """Adds the columns."""
        destination.add_row(self.values)
