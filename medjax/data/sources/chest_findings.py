"""Chest phantoms with a finding planted in one lung: labelled images for everyone, without a download."""

from dataclasses import dataclass

import numpy as np

from medjax.data.anatomy import Canvas, draw
from medjax.types import Record

CLASSES = ("clear", "consolidation", "effusion")
AIR_HU = -700


@dataclass(frozen=True)
class ChestFindings:
    """`count` axial chest slices `(size, size, 1)` in HU, each a subject, one in three of each of `CLASSES`.

    extras["class"] is the finding's index, extras["label"] the voxels it covers. A consolidation is a hazy patch of lung,
    an effusion fluid that has settled at the back. Slice i follows from `seed` and i alone.
    """

    size: int = 96
    count: int = 300
    seed: int = 0

    def load(self) -> list[Record]:
        """The slices, kept in memory, with `mask` the body."""
        return [self._record(index) for index in range(self.count)]

    def _record(self, index: int) -> Record:
        random = np.random.default_rng((self.seed, index))
        image, body, voxel = draw("chest", random, (self.size, self.size))
        finding = index % len(CLASSES)
        share = _PLANT[CLASSES[finding]](Canvas(random, image.shape, voxel), random, (image < AIR_HU) & body)
        image = np.round(image + share * (random.uniform(0, 25) - image)).astype(np.int16)
        name = f"finding-{self.seed}-{index:04d}"
        return Record(image[..., None], name, name, spacing_mm=(voxel, voxel), modality="CT", units="HU",
                      extras={"mask": body[..., None], "class": np.array(finding, np.int32),
                              "label": (share > 0.3).astype(np.uint8)[..., None]})


def _clear(canvas: Canvas, random: np.random.Generator, lungs: np.ndarray) -> np.ndarray:
    return np.zeros(lungs.shape, np.float32)


def _consolidation(canvas: Canvas, random: np.random.Generator, lungs: np.ndarray) -> np.ndarray:
    """A patch around a random point of the lungs, denser here and thinner there."""
    centre = random.choice(np.argwhere(lungs))
    radius = random.uniform(18, 40)
    along = [(np.arange(n) - c) * canvas.voxel for n, c in zip(lungs.shape, centre, strict=True)]
    patch = np.exp(-0.5 * (np.hypot(*np.meshgrid(*along, indexing="ij")) / radius) ** 4)
    return lungs * np.clip(patch * random.uniform(0.45, 0.9) * (1 + 0.25 * canvas.waves(8, 14)), 0, 1)


def _effusion(canvas: Canvas, random: np.random.Generator, lungs: np.ndarray) -> np.ndarray:
    """One lung's lower part, by gravity: row 0 is anterior, the patient lies on the back."""
    side = np.arange(lungs.shape[1]) < lungs.shape[1] / 2
    lung = lungs & (side if random.random() < 0.5 else ~side)
    rows = np.argwhere(lung.any(1))[:, 0]
    level = np.quantile(rows, random.uniform(0.6, 0.85)) if rows.size else lungs.shape[0]
    return lung * np.clip(np.arange(lungs.shape[0])[:, None] - level, 0, 1)


_PLANT = {"clear": _clear, "consolidation": _consolidation, "effusion": _effusion}
