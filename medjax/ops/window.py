"""CT numbers: Hounsfield units to attenuation and back, and the windows that radiologists look through."""

import jax.numpy as jnp
from jaxtyping import Array, Real

WATER_PER_MM = 0.0192
"""Attenuation of water at about 70 keV, the mean of a 120 kVp spectrum, per mm (NIST XCOM)."""

WINDOWS = {
    "soft tissue": (40.0, 400.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "liver": (60.0, 160.0),
}
"""Level and width in HU."""


def hu_to_attenuation(hu: Real[Array, "*s"], water: float | Real[Array, ""] = WATER_PER_MM) -> Real[Array, "*s"]:
    """Attenuation per mm of CT numbers in HU; below -1000 HU there is nothing."""
    return jnp.maximum(hu / 1000 + 1, 0) * water


def attenuation_to_hu(attenuation: Real[Array, "*s"], water: float = WATER_PER_MM) -> Real[Array, "*s"]:
    """CT numbers in HU of attenuation per mm."""
    return (attenuation / water - 1) * 1000


def window(hu: Real[Array, "*s"], level: float, width: float) -> Real[Array, "*s"]:
    """What a window shows, 0 … 1: black at `level - width / 2`, white at `level + width / 2`."""
    return jnp.clip((hu - level) / width + 0.5, 0, 1)
