"""Hounsfield units to the networks' [-1, 1] and back, in one place."""

from typing import Any

import numpy as np
import numpy.typing as npt

LOW_HU, HIGH_HU = -1000, 400
"""Window of the NAMD paper's released code."""


def to_unit(hu: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Clip HU to -1000...400 and scale to [-1, 1]; any shape."""
    clipped = np.clip(np.asarray(hu, dtype=np.float32), LOW_HU, HIGH_HU)
    clipped -= LOW_HU
    clipped *= 2.0 / (HIGH_HU - LOW_HU)
    clipped -= 1.0
    return clipped


def to_hu(unit: npt.ArrayLike) -> npt.NDArray[np.int16]:
    """Return whole HU from [-1, 1]; values beyond it are clipped first."""
    scaled: npt.NDArray[Any] = (np.clip(np.asarray(unit, dtype=np.float64), -1.0, 1.0) + 1.0) / 2.0
    return np.rint(scaled * (HIGH_HU - LOW_HU) + LOW_HU).astype(np.int16)
