"""Random anatomical phantoms that medjax draws itself: as many as wanted, of any size, no file needed."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from medjax.data.anatomy import KINDS, draw
from medjax.types import Record, UserError


@dataclass(frozen=True)
class Phantoms:
    """`count` phantoms of `kind` "chest" (HU) or "brain" (arbitrary units 0..1000), each its own subject, int16.

    `shape` is `(H, W)` or `(D, H, W)`. Phantom i follows from `seed` and i alone, so more of them change none.
    """

    kind: str = "chest"
    shape: tuple[int, ...] = (128, 128)
    count: int = 64
    seed: int = 0

    def load(self) -> list[Record]:
        """The phantoms, kept in memory, with `mask` the body. Raises UserError."""
        self.check()
        numbers = tqdm(range(self.count), f"drawing {self.kind} phantoms", unit="image", leave=False, delay=2)
        return [self.record(index) for index in numbers]

    def check(self) -> None:
        """Raises UserError for a kind or shape that can't be drawn."""
        if self.kind not in KINDS:
            raise UserError("config.data.kind", f"no phantom {self.kind!r}; there is {', '.join(KINDS)}")
        if len(self.shape) not in (2, 3) or min(self.shape) < 8:
            raise UserError("config.data.shape", f"{tuple(self.shape)}; give two or three sizes of at least 8")

    def name(self, index: int) -> str:
        """The id of a phantom, and its subject."""
        return f"{self.kind}-{self.seed}-{index:04d}"

    def record(self, index: int) -> Record:
        """Phantom `index`."""
        name = self.name(index)
        image, body, voxel = draw(self.kind, np.random.default_rng((self.seed, index)), tuple(self.shape))
        affine = np.diag([voxel] * 3 + [1.0])[[2, 1, 0, 3]] if len(self.shape) == 3 else None
        return Record(image[..., None], name, name, spacing_mm=(voxel,) * len(self.shape), affine=affine,
                      modality={"chest": "CT", "brain": "MR"}[self.kind],
                      units={"chest": "HU", "brain": ""}[self.kind], extras={"mask": body[..., None]})
