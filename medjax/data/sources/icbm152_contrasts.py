"""One head in several MR contrasts: the ICBM152 template, and signal equations on its tissue maps."""

from dataclasses import dataclass

import numpy as np

from medjax.data.sources.icbm152 import Icbm152, volume
from medjax.data.sources.icbm152_tissues import MAPS
from medjax.data.sources.multicontrast import TOP, UNITS, unit
from medjax.types import Record, UserError

# Grey matter, white matter, cerebrospinal fluid at 3 T: T1 and T2 in ms, proton density (Stanisz et al., MRM 54, 2005;
# Lu et al., JMRI 22, 2005).
T1, T2, PD = np.array([1400.0, 850.0, 4000.0]), np.array([100.0, 75.0, 1500.0]), np.array([0.82, 0.70, 1.0])


def spin_echo(repetition: float, echo: float, inversion: float | None = None) -> np.ndarray:
    """The signal of each tissue in a spin echo with times in ms, after inversion recovery if asked."""
    recovered = 1 - np.exp(-repetition / T1)
    if inversion is not None:
        recovered = np.abs(1 - 2 * np.exp(-inversion / T1) + np.exp(-repetition / T1))
    return PD * recovered * np.exp(-echo / T2)


SIGNALS = {"T2": spin_echo(5000, 100), "PD": spin_echo(5000, 15), "FLAIR": spin_echo(9000, 110, inversion=2600)}


@dataclass(frozen=True)
class Icbm152Contrasts:
    """One volume `(189, 233, 197, len(contrasts))`, 1 mm, brain only, each contrast scaled to 0 … 1.

    "T1" is the template, the mean of 152 adults (Fonov et al., 2011); "T2", "PD" and "FLAIR" follow from its maps of grey
    and white matter, with cerebrospinal fluid for the rest of the brain. They are simulated: they show that a method
    works, not how well it does on patients.
    """

    contrasts: tuple[str, ...] = ("T1", "T2", "FLAIR")

    def load(self) -> list[Record]:
        """The volume. Raises UserError if nilearn is not installed, or for an unknown contrast."""
        unknown = set(self.contrasts) - {"T1", *SIGNALS}
        if unknown or not self.contrasts:
            raise UserError("config.data.source.contrasts", f"no {', '.join(unknown) or 'name'}; there is T1, "
                            + ", ".join(SIGNALS))
        (head,) = Icbm152().load()
        grey, white = (volume(name)[0].astype(np.float32) / 255 for name in (MAPS[2], MAPS[3]))
        template = head.image[..., 0].astype(np.float32)
        fluid = np.where(template > 0, np.maximum(1 - grey - white, 0), 0)
        tissue = np.stack([grey, white, fluid], -1)
        images = [template if name == "T1" else tissue @ SIGNALS[name].astype(np.float32) for name in self.contrasts]
        return [Record(np.stack([unit(image) for image in images], -1), "icbm152", "icbm152", slope=1 / TOP,
                       spacing_mm=head.spacing_mm, affine=head.affine, modality="MR",
                       units=UNITS, contrasts=tuple(self.contrasts))]
