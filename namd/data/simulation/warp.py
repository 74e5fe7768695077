"""Where each pixel of the second scan comes from in the first: growth, then a rigid motion.

Only coordinates are computed here; intensities are nobody's business in this file.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from namd.data.simulation.contour import Outline

MARGIN_MM = 3.0
# Tissue pushed aside by growth is squeezed into a band at least this share of the growth wide.
SQUEEZE_SHARE = 0.75

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Polar:
    """Pixels of the second scan, seen from the nodule's centre before the rigid motion.

    Attributes:
        radius_px: Distance to the centre, (S, S).
        angle: -pi...pi, (S, S).
        edge_px: Radius of the grown outline at that angle, (S, S).
    """

    radius_px: Floats
    angle: Floats
    edge_px: Floats


def rigid(size: int, shift_px: tuple[float, float], rotation_deg: float) -> tuple[Floats, Floats]:
    """Rows and columns in the unmoved frame of every pixel of a scan turned about its middle."""
    middle = (size - 1) / 2.0
    rows, columns = np.mgrid[0:size, 0:size].astype(float) - middle
    rows -= shift_px[0]
    columns -= shift_px[1]
    turn = np.deg2rad(rotation_deg)
    cosine, sine = np.cos(turn), np.sin(turn)
    return (
        cosine * rows + sine * columns + middle,
        cosine * columns - sine * rows + middle,
    )


def grown(
    outline: Outline, ratio: float, spacing_mm: float, rows: Floats, columns: Floats
) -> tuple[Floats, Floats, Polar]:
    """Source rows and columns of a nodule grown by `ratio` of diameters.

    Within the grown outline the source is the nodule scaled; in a band around it tissue is
    squeezed or stretched; beyond the band (at least 3 mm) every pixel is its own source.
    """
    down, right = rows - outline.row, columns - outline.column
    radius = np.hypot(down, right)
    angle = np.arctan2(down, right)
    edge = outline.radius_at(angle)
    new_edge = edge * ratio
    band = np.maximum(MARGIN_MM / spacing_mm, SQUEEZE_SHARE * np.abs(new_edge - edge))
    outer = np.maximum(new_edge, edge) + band
    outside = edge + (radius - new_edge) * (outer - edge) / (outer - new_edge)
    source = np.where(radius <= new_edge, radius / ratio, np.where(radius < outer, outside, radius))
    scale = source / np.maximum(radius, 1e-9)
    polar = Polar(radius, angle, new_edge)
    return outline.row + down * scale, outline.column + right * scale, polar


def reach_px(outline: Outline, ratio: float, spacing_mm: float) -> float:
    """Radius (pixels) beyond which growth moves nothing."""
    edge = outline.radius_px
    band = np.maximum(MARGIN_MM / spacing_mm, SQUEEZE_SHARE * np.abs(edge * ratio - edge))
    return float((np.maximum(edge * ratio, edge) + band).max())
