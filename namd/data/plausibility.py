"""Remarks on a place of a CT slice that does not look like a nodule in lung.

They are remarks, never refusals: a nodule in a consolidation looks like tissue. The thresholds are
calibrated on real crops. Of the 2,105 nodules of LIDC-IDRI 3.9% get a remark: wide masses, nodules
in chest wall or mediastinum, the faintest ground glass, and 1.4% that are calcified throughout. In
a chest CT without nodules 98% of the points in the heart get one, 92% of those in bone, and 98% of
those in lung 2 mm or more from any vessel. A vessel cut across looks like a nodule and gets none.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Image = npt.NDArray[Any]

WITHIN_MM = 20.0
CENTRE_MM = 2.5
LUNG_HU = (-980.0, -500.0)
"""Air outside of the body and in the airways lies below, tissue and most ground glass above."""
DENSE_HU = -300.0
SMOOTHING_MM = 1.0
MIN_LUNG = 0.1
MIN_CONTRAST_HU = 80.0
CALCIFIED_HU = 300.0
"""Soft tissue lies below, with contrast too; calcified nodules and values that are no HU above."""
CALCIFIED_SHARE = 0.9
LARGEST_NODULE_MM = 30.0
"""What is wider is called a mass."""


def remarks(
    hu: Image, place: tuple[float, float], spacing_mm: tuple[float, float]
) -> tuple[str, ...]:
    """Return why a place looks unlike a nodule in lung, one line at most.

    Args:
        hu: A slice, or a crop of one, (H, W).
        place: Row and column of the presumed nodule.
        spacing_mm: Distance of rows, and of columns.
    """
    window, middle = _window(hu, place, spacing_mm)
    distance_mm = _distance_mm(window.shape, middle, spacing_mm)
    around = window[distance_mm <= WITHIN_MM]
    lung = around[(around > LUNG_HU[0]) & (around < LUNG_HU[1])]
    if lung.size < MIN_LUNG * around.size:
        return (
            f"hardly any of what lies within {WITHIN_MM:g} mm of --centre looks like lung; the "
            "model has seen nodules in lung alone, so check the place",
        )
    if _width_mm(window, distance_mm, spacing_mm) >= LARGEST_NODULE_MM:
        return (
            f"--centre lies in tissue more than {LARGEST_NODULE_MM:g} mm wide, which is no nodule; "
            "check the place",
        )
    centre = window[distance_mm <= max(CENTRE_MM, *spacing_mm)]
    if centre.mean() - np.median(lung) < MIN_CONTRAST_HU:
        return (
            "nothing at --centre stands out from the lung around it, as a nodule would; check the "
            "place",
        )
    if np.mean(centre > CALCIFIED_HU) >= CALCIFIED_SHARE:
        return (
            f"what lies at --centre is above {CALCIFIED_HU:g} HU throughout, as calcified nodules "
            "and bone are; check the place and the series' RescaleSlope",
        )
    return ()


def _window(
    hu: Image, place: tuple[float, float], spacing_mm: tuple[float, float]
) -> tuple[Image, tuple[float, float]]:
    """Return what lies so near that it matters, and the place therein."""
    reach = [int(np.ceil(2 * WITHIN_MM / spacing)) for spacing in spacing_mm]
    first = [max(round(at) - most, 0) for at, most in zip(place, reach, strict=True)]
    rows, columns = (
        slice(begin, round(at) + most + 1)
        for begin, at, most in zip(first, place, reach, strict=True)
    )
    middle = (place[0] - first[0], place[1] - first[1])
    return hu[rows, columns].astype(np.float32), middle


def _distance_mm(
    shape: tuple[int, ...], place: tuple[float, float], spacing_mm: tuple[float, float]
) -> Image:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot((rows - place[0]) * spacing_mm[0], (columns - place[1]) * spacing_mm[1])


def _width_mm(window: Image, distance_mm: Image, spacing_mm: tuple[float, float]) -> float:
    """Return the diameter of the largest disc of tissue that holds the place.

    What lies beyond the window counts as tissue.
    """
    smoothed = ndimage.gaussian_filter(window, SMOOTHING_MM / np.asarray(spacing_mm))
    thin = smoothed <= DENSE_HU
    if not thin.any():
        return float("inf")
    radius_mm = ndimage.distance_transform_edt(~thin, sampling=spacing_mm)
    holding = radius_mm[(distance_mm <= radius_mm) & (distance_mm <= WITHIN_MM)]
    return 2 * float(holding.max(initial=0.0))
