"""A second slice through the same nodule: its lung, vessels and grain are not the first slice's.

A cohort keeps one slice of each nodule, so the second is made from it. What two neighbouring slices
share stays where it is: the level of the lung, the chest wall and mediastinum, the nodule with its
rim. What they do not share, the detail, comes from elsewhere in the same crop: it is turned and
shifted by whole pixels, so that it stays real CT. Growth and signs are not applied here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from namd.data.simulation.settings import SecondSliceSettings

TISSUE_HU = -500.0
"""Above: chest wall, mediastinum, vessels and nodules. Below: lung."""

DOME_HU = 150.0
"""A wide structure that is this much denser than the lung beside it is kept too: a diaphragm's
dome fades into the lung over millimetres."""

SIDES = ((-1, -1), (-1, 1), (1, -1), (1, 1))
"""Half a turn, two mirror images and none: streaks and rows of detectors keep their direction."""

NUM_PIECES = 12
FULL = 0.02
"""A place of which less than this share is left to fill is full."""

OUTLIER_SD, OUTLIER_HU = 3.0, 90.0
SD_OF_MAD = 1.4826

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """A kind of tissue, and how the first slice divides there into level and detail.

    Attributes:
        inside: Where detail is taken from, bool (S, S).
        weight: How well a place serves as a source, (S, S): 0 at its border and the crop's, 1
            within.
        opacity: How much of the detail is drawn anew, (S, S) of 0...1.
        level: What stays, (S, S) in HU.
        detail: What does not, (S, S) in HU.
        moved_px: Least and most that a piece of it is shifted.
    """

    inside: Mask
    weight: Floats
    opacity: Floats
    level: Floats
    detail: Floats
    moved_px: tuple[int, int]


def second_slice(
    hu: NDArray[np.int16],
    mask: NDArray[np.uint8],
    spacing_mm: float,
    settings: SecondSliceSettings,
    seed: int,
) -> Floats:
    """Return a slice beside the first, (S, S) in HU, before growth and motion.

    Args:
        hu: The first slice, (S, S).
        mask: Its nodule, (S, S).
        spacing_mm: In plane.
        settings: What is drawn anew.
        seed: Of the pieces and where they come from; all that is random here.
    """
    rng = np.random.default_rng(seed)
    image = hu.astype(float)
    for inside, level_mm in tissues(image, mask > 0, spacing_mm, settings):
        region = _divided(image, inside, level_mm, spacing_mm, settings)
        moved = _moved(region, rng)
        image += region.opacity * (region.level + moved - image)
    return image


def tissues(
    hu: Floats, nodule: Mask, spacing_mm: float, settings: SecondSliceSettings
) -> list[tuple[Mask, float | None]]:
    """Divide a slice into lung, soft tissue and the nodule's inside, each well within its border.

    Returns:
        Of each that is large enough to draw from, its pixels, (S, S), and the width of its level
        in mm; None: of its grain.
    """
    border_px = settings.border_mm / spacing_mm
    near = distance_transform_edt(~nodule) * spacing_mm < settings.rim_mm
    wide = _wide_tissue(hu, near, spacing_mm, settings)
    beside_wide = distance_transform_edt(~wide) <= border_px
    within_wide = distance_transform_edt(wide) > border_px
    within_nodule = distance_transform_edt(nodule) > border_px
    parts = (
        (~beside_wide & ~near, settings.level_mm),
        (within_wide & ~near, None),
        (within_nodule, None),
    )
    least = settings.smallest_mm2 / spacing_mm**2
    return [(inside, level_mm) for inside, level_mm in parts if inside.sum() >= least]


def _wide_tissue(hu: Floats, near: Mask, spacing_mm: float, settings: SecondSliceSettings) -> Mask:
    """Soft tissue too wide for a vessel, at the crop's border also if only a strip is seen."""
    lung = hu[(hu < TISSUE_HU) & ~near]
    dense = min(float(np.median(lung)) + DOME_HU, TISSUE_HU) if lung.size else TISSUE_HU
    smooth = gaussian_filter(hu, settings.border_mm / 2 / spacing_mm)
    reach = int(np.ceil(settings.kept_mm / spacing_mm))
    padded = np.pad((smooth > dense) & ~near, reach, mode="edge")
    away = distance_transform_edt(padded)
    radius = settings.kept_mm / 2 / spacing_mm
    opened = distance_transform_edt(away <= radius) < radius
    return (opened & padded)[reach:-reach, reach:-reach]


def _divided(
    hu: Floats,
    inside: Mask,
    level_mm: float | None,
    spacing_mm: float,
    settings: SecondSliceSettings,
) -> Region:
    """Divide a region into level and detail; None for `level_mm`: only grain is detail.

    Vessels are no part of the lung's level: they would leave a glow where they were. Edges within
    soft tissue, such as a rib's, are anatomy and stay.
    """
    wanted = hu
    if level_mm is not None:
        wanted = np.minimum(hu, float(np.median(hu[inside])) + _spread(hu[inside]))
    level = mean_inside(wanted, inside, (level_mm or settings.grain_mm) / spacing_mm)
    detail = hu - level
    if level_mm is None:
        most = min(OUTLIER_SD * _spread(detail[inside]) + 1.0, OUTLIER_HU)
        inside = inside & (np.abs(detail) < most)
    weight = _ramp(np.pad(inside, 1), spacing_mm, settings)
    opacity = _ramp(np.pad(inside, 1, mode="edge"), spacing_mm, settings)
    moved_mm = (settings.grain_mm, 2 * settings.grain_mm) if level_mm is None else settings.moved_mm
    nearest, farthest = (max(round(mm / spacing_mm), 1) for mm in moved_mm)
    detail = np.where(inside, detail, 0.0)
    return Region(inside, weight, opacity, level, detail, (nearest, farthest))


def _moved(region: Region, rng: np.random.Generator) -> Floats:
    """Return a region's detail, taken piece by piece from other places in it, (S, S) in HU.

    Where pieces meet they are mixed so that the grain keeps its strength; what no piece reaches
    shows the level alone.
    """
    size = region.inside.shape[0]
    centre = np.argwhere(region.inside).mean(axis=0).round().astype(int)
    nearest, farthest = region.moved_px
    total, power = np.zeros((size, size)), np.full((size, size), 1e-9)
    left = np.ones((size, size))
    for _ in range(NUM_PIECES):
        side = SIDES[int(rng.integers(len(SIDES)))]
        shift = rng.integers(nearest, farthest + 1, size=2) * rng.choice([-1, 1], size=2)
        rows, columns = (
            middle + turn * (np.arange(size) - middle) + step
            for middle, turn, step in zip(centre, side, shift, strict=True)
        )
        weight = left * _taken(region.weight, rows, columns)
        total += weight * _taken(region.detail, rows, columns)
        power += weight**2
        left -= weight
        if left[region.inside].max() < FULL:
            break
    return (1 - left) * total / np.sqrt(power)


def _taken(image: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Floats:
    """Return an image at rows (S,) and columns (S,), zero beyond its border."""
    size = image.shape[0]
    taken = image[np.ix_(np.clip(rows, 0, size - 1), np.clip(columns, 0, size - 1))]
    taken[(rows < 0) | (rows >= size), :] = 0
    taken[:, (columns < 0) | (columns >= size)] = 0
    return taken


def _ramp(padded: Mask, spacing_mm: float, settings: SecondSliceSettings) -> Floats:
    """0 outside a region padded by one pixel, 1 within, a smooth step between; (S, S)."""
    distance_mm = distance_transform_edt(padded)[1:-1, 1:-1] * spacing_mm
    share = np.clip(distance_mm / settings.border_mm, 0.0, 1.0)
    return share * share * (3 - 2 * share)


def mean_inside(image: Floats, inside: Mask, sigma_px: float) -> Floats:
    """Gaussian mean over the pixels of a region alone; their plain mean far from all of them."""
    share = gaussian_filter(inside.astype(float), sigma_px)
    summed = gaussian_filter(np.where(inside, image, 0.0), sigma_px)
    return (summed + 1e-4 * float(image[inside].mean())) / (share + 1e-4)


def _spread(values: Floats) -> float:
    """Standard deviation by the median absolute deviation, which vessels hardly move."""
    return SD_OF_MAD * float(np.median(np.abs(values - np.median(values))))
