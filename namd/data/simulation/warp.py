"""Where each pixel of the second scan comes from in the first: growth, then a rigid motion.

Only coordinates are computed here; intensities are not handled here.
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
    """Pixels near the nodule, seen from its centre before the rigid motion, (n,) each.

    Attributes:
        radius_px: Distance to the centre.
        angle: -pi...pi.
        edge_px: Radius of the grown outline at that angle.
    """

    radius_px: Floats
    angle: Floats
    edge_px: Floats


def rigid(size: int, shift_px: tuple[float, float], rotation_deg: float) -> tuple[Floats, Floats]:
    """Rows and columns in the unmoved frame of every pixel of a scan turned about its middle."""
    middle = (size - 1) / 2.0
    steps = np.arange(size) - middle
    down, right = (steps - shift_px[0])[:, None], (steps - shift_px[1])[None, :]
    turn = np.deg2rad(rotation_deg)
    cosine, sine = np.cos(turn), np.sin(turn)
    return cosine * down + sine * right + middle, cosine * right - sine * down + middle


def grown(
    outline: Outline,
    ratio: float,
    spacing_mm: float,
    rows: Floats,
    columns: Floats,
    beyond_mm: float = 0.0,
) -> tuple[Floats, Floats, NDArray[np.bool_], Polar]:
    """Source rows and columns of a nodule grown by `ratio` of diameters.

    Within the grown outline the source is the nodule scaled; in a band around it tissue is
    squeezed or stretched; beyond the band (at least 3 mm) every pixel is its own source.

    Returns:
        Rows and columns, (S, S); the pixels near the nodule, (S, S): those that growth may move
        and those up to `beyond_mm` outside the outline; and where these lie.
    """
    down, right = rows - outline.row, columns - outline.column
    widest = float(outline.radius_px.max()) * ratio + beyond_mm / spacing_mm
    reach = max(reach_px(outline, ratio, spacing_mm), widest)
    near = down**2 + right**2 < reach**2
    down, right = down[near], right[near]
    radius = np.hypot(down, right)
    angle = np.arctan2(down, right)
    edge = outline.radius_at(angle)
    new_edge = edge * ratio
    outer = np.maximum(new_edge, edge) + _band(edge, ratio, spacing_mm)
    outside = edge + (radius - new_edge) * (outer - edge) / (outer - new_edge)
    source = np.where(radius <= new_edge, radius / ratio, np.where(radius < outer, outside, radius))
    scale = source / np.maximum(radius, 1e-9)
    rows, columns = rows.copy(), columns.copy()
    rows[near] = outline.row + down * scale
    columns[near] = outline.column + right * scale
    return rows, columns, near, Polar(radius, angle, new_edge)


def reach_px(outline: Outline, ratio: float, spacing_mm: float) -> float:
    """Radius (pixels) beyond which growth moves nothing."""
    edge = outline.radius_px
    return float((np.maximum(edge * ratio, edge) + _band(edge, ratio, spacing_mm)).max())


def _band(edge: Floats, ratio: float, spacing_mm: float) -> Floats:
    return np.maximum(MARGIN_MM / spacing_mm, SQUEEZE_SHARE * np.abs(edge * ratio - edge))
