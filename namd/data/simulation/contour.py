"""A nodule's outline in polar form about its centre, and its diameters. Nothing here draws."""

import contextlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import ConvexHull, QhullError

NUM_ANGLES = 72

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outline:
    """Radius of the outline by angle.

    Attributes:
        row: Centre, pixels.
        column: Centre, pixels.
        radius_px: Farthest part of the nodule at `NUM_ANGLES` angles from -pi, pixels.
    """

    row: float
    column: float
    radius_px: Floats

    @property
    def widest_px(self) -> float:
        """Longest line through the centre, pixels."""
        return float((self.radius_px + np.roll(self.radius_px, NUM_ANGLES // 2)).max())

    def radius_at(self, angle: Floats) -> Floats:
        """Outline radius (pixels) at angles in -pi...pi, linear between the stored ones."""
        step = 2 * np.pi / NUM_ANGLES
        place = (angle + np.pi) / step
        lower = np.floor(place).astype(np.intp)
        share = place - lower
        ring = self.radius_px
        return ring[lower % NUM_ANGLES] * (1 - share) + ring[(lower + 1) % NUM_ANGLES] * share


def outline(mask: NDArray[np.uint8]) -> Outline:
    """Trace a mask. Raises ValueError if it is empty.

    Outlines are remembered: replicates and redraws come back to the same few nodules.
    """
    return _trace(np.ascontiguousarray(mask, dtype=np.uint8).tobytes(), mask.shape)


@lru_cache(maxsize=8192)
def _trace(pixels: bytes, shape: tuple[int, ...]) -> Outline:
    mask = np.frombuffer(pixels, dtype=np.uint8).reshape(shape)
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        raise ValueError("an outline needs a mask with at least one pixel")
    row, column = float(rows.mean()), float(columns.mean())
    # Corners, not centres: a pixel's outer corner belongs to the nodule, and small nodules
    # would lose a pixel in diameter otherwise.
    corners = np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)])
    down = (rows[:, None] + corners[:, 0] - row).ravel()
    right = (columns[:, None] + corners[:, 1] - column).ravel()
    step = 2 * np.pi / NUM_ANGLES
    place = np.round((np.arctan2(down, right) + np.pi) / step).astype(np.intp) % NUM_ANGLES
    radius = np.zeros(NUM_ANGLES)
    np.maximum.at(radius, place, np.hypot(down, right))
    known = np.flatnonzero(radius)
    filled = np.interp(np.arange(NUM_ANGLES), known, radius[known], period=NUM_ANGLES)
    return Outline(row, column, gaussian_filter1d(filled, 1.0, mode="wrap"))


def diameters(mask: NDArray[np.uint8], spacing_mm: float) -> tuple[float, float]:
    """Longest diameter of a mask and the widest chord direction square to it, in mm.

    Extents run from pixel edge to pixel edge. Raises ValueError if the mask is empty.
    """
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        raise ValueError("a diameter needs a mask with at least one pixel")
    points = np.stack([rows, columns], axis=1).astype(float)
    if len(points) > 3:
        # Pixels all on one line have no hull, and are few enough to compare pair by pair.
        with contextlib.suppress(QhullError):
            points = points[ConvexHull(points).vertices]
    gaps = points[:, None, :] - points[None, :, :]
    lengths = np.hypot(gaps[..., 0], gaps[..., 1])
    first, second = np.unravel_index(int(lengths.argmax()), lengths.shape)
    along = gaps[first, second] / max(lengths[first, second], 1e-9)
    across = points @ np.array([-along[1], along[0]])
    longest = lengths[first, second] + 1.0
    return float(longest * spacing_mm), float((np.ptp(across) + 1.0) * spacing_mm)
