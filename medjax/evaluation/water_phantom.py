"""A water cylinder with inserts of known CT numbers: noise, noise power, sharpness at a contrast, and bias of a method."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from medjax.evaluation.lesions import POINT_SPREAD_MM
from medjax.measures.detection import disc
from medjax.measures.noise_power import noise_of, noise_power
from medjax.measures.resolution import mtf_of_disc
from medjax.measures.spectra import Curve
from medjax.types import Record, UserError

AIR_HU, WATER_HU, TISSUE_HU, BONE_HU = -1000.0, 0.0, 50.0, 800.0
DIAMETER_MM, LEAST_DIAMETER = 200.0, 80  # of the cylinder, in mm and in pixels


@dataclass(frozen=True)
class Measured:
    """What a method makes of the phantom: the noise in HU and its power over frequency in HU² mm², transfer functions by
    insert, and the bias in HU by material.
    """

    noise_hu: float
    noise_power: Curve
    transfer: Mapping[str, Curve]
    bias_hu: Mapping[str, float]


@dataclass(frozen=True)
class WaterPhantom:
    """A cylinder of water on `shape` pixels of `pixel_mm`: 200 mm wide, but no less than 80 pixels.

    Its inserts, a sixth as wide, have the CT numbers of soft tissue, of bone, and `contrast_hu`. All edges are as sharp as a
    standard kernel shows them: an MTF of 0.5 at 0.4 per mm.
    """

    shape: tuple[int, int]
    pixel_mm: float
    contrast_hu: float

    def __post_init__(self) -> None:
        if 0.9 * min(self.shape) < LEAST_DIAMETER:
            raise UserError("config.data", f"images of {self.shape[0]}x{self.shape[1]} pixels are too small for the water "
                            f"phantom; give at least {math.ceil(LEAST_DIAMETER / 0.9)} to a side")

    @property
    def radius(self) -> float:
        """Of the cylinder, in pixels."""
        return min(max(DIAMETER_MM / self.pixel_mm, LEAST_DIAMETER), 0.9 * min(self.shape)) / 2

    @property
    def insert_radius(self) -> float:
        """Of an insert, in pixels."""
        return self.radius / 6

    @property
    def centre(self) -> tuple[float, float]:
        """Of the cylinder, in pixels; off the pixel grid, so that an edge crosses it everywhere."""
        return (self.shape[0] - 1) / 2 + 0.2, (self.shape[1] - 1) / 2 + 0.3

    @property
    def inserts(self) -> dict[str, tuple[float, tuple[float, float]]]:
        """By name the HU of an insert and where its middle is, in pixels."""
        found = {}
        contents = {"contrast": self.contrast_hu, "soft tissue": TISSUE_HU, "bone": BONE_HU}
        for number, (name, hu) in enumerate(contents.items()):
            angle = 2 * np.pi * number / len(contents)
            found[name] = (hu, (self.centre[0] - self.radius / 2 * float(np.cos(angle)),
                                self.centre[1] + self.radius / 2 * float(np.sin(angle))))
        return found

    def records(self, count: int, seed: int, inserts: bool) -> list[Record]:
        """The phantom `count` times, with or without its inserts; the noise of the i-th is the same in both."""
        water = disc(self.shape, self.centre, self.radius)
        image = AIR_HU + (WATER_HU - AIR_HU) * water
        for hu, place in self.inserts.values() if inserts else ():
            image += (hu - WATER_HU) * disc(self.shape, place, self.insert_radius)
        image = ndimage.gaussian_filter(image, POINT_SPREAD_MM / self.pixel_mm)
        one = Record(image.astype(np.float32)[..., None], "", "water phantom", spacing_mm=(self.pixel_mm,) * 2,
                     modality="CT", units="HU")
        return [replace(one, id=f"water-{seed}-{number}") for number in range(count)]

    def measure(self, filled: np.ndarray, water: np.ndarray) -> Measured:
        """What images `(N, H, W)` in HU of the phantom with inserts and of water alone show, in pairs of the same noise.

        Differences show the inserts without most of the noise, so few images are enough for an edge of little contrast.
        """
        side = int(self.radius * 0.9)
        corner = [round(c - side / 2) for c in self.centre]
        middle = water[:, corner[0]:corner[0] + side, corner[1]:corner[1] + side]
        spectrum = noise_power(noise_of(middle), (self.pixel_mm,) * 2, degree=0)
        difference = np.asarray(filled - water, np.float64).mean(0)
        transfer = {name: self._transfer(difference, self.inserts[name][1]) for name in ("contrast", "bone")}
        return Measured(float(np.sqrt(spectrum.variance)), spectrum.radial, transfer, self._bias(filled, water))

    def _transfer(self, difference: np.ndarray, place: Sequence[float]) -> Curve:
        return mtf_of_disc(difference, place, self.insert_radius * self.pixel_mm, self.pixel_mm, oversampling=2)

    def _bias(self, filled: np.ndarray, water: np.ndarray) -> dict[str, float]:
        """The mean less the true value, inside each material."""
        found = {"water": float(water[:, self._within(self.radius / 2, self.centre)].mean() - WATER_HU)}
        for name in ("soft tissue", "bone"):
            hu, place = self.inserts[name]
            found[name] = float(filled[:, self._within(0.7 * self.insert_radius, place)].mean() - hu)
        return found

    def _within(self, radius: float, place: Sequence[float]) -> np.ndarray:
        y, x = np.indices(self.shape)
        return np.hypot(y - place[0], x - place[1]) < radius
