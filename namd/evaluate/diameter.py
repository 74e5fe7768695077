"""One stated rule that measures a nodule's longest diameter on an image.

The rule, which draws and real follow-ups share: smooth; take the nodule's level (mean near the
middle) and the lung's (a low percentile of the image); walk outwards from the middle along rays
until the image falls below the midpoint of the two; shorten rays that run along vessels or the
chest wall to a multiple of a typical ray; the longest extent of the resulting outline is the
diameter. What the number means for a patient does not belong here.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num
from scipy import ndimage


@dataclass(frozen=True)
class DiameterRule:
    """The rule's constants, chosen on real crops with reader contours.

    Attributes:
        smoothing_mm: Standard deviation of the Gaussian.
        search_mm: The nodule's middle is the brightest smoothed pixel within this distance of
            the image's middle, smoothed once more by as much.
        centre_mm: Radius over which the nodule's level is averaged.
        background_percentile: Of the pixels of the image: the lung's level.
        minimum_contrast: Below this difference of the two levels, in units of [-1, 1] (0.14 is
            100 HU), there is nothing to measure.
        threshold: Share of the way from the lung's level to the nodule's at which it ends.
        typical_percentile: Of the rays' lengths: the typical ray.
        longest_ratio: A ray is shortened to this multiple of the typical ray.
        num_rays: Around the circle; a multiple of 2.
        step_mm: Along a ray.
        furthest_mm: Rays end here.
    """

    smoothing_mm: float = 0.6
    search_mm: float = 0.5
    centre_mm: float = 1.5
    background_percentile: float = 15.0
    minimum_contrast: float = 0.14
    threshold: float = 0.45
    typical_percentile: float = 30.0
    longest_ratio: float = 1.5
    num_rays: int = 32
    step_mm: float = 0.5
    furthest_mm: float = 16.0


BATCH = 1024  # images at a time: 200 MB of ray samples


def longest_diameter(
    images: Num[np.ndarray, "N H W"],
    spacing_mm: Num[np.ndarray, " N"] | float,
    rule: DiameterRule | None = None,
) -> Float[np.ndarray, " N"]:
    """Longest in-plane diameter in mm of the nodule in the middle of each image.

    Args:
        images: In [-1, 1].
        spacing_mm: Pixel size, one for all or one per image.
        rule: Constants; the defaults are the stated rule.

    Returns:
        NaN where no nodule stands out.
    """
    rule = rule or DiameterRule()
    spacings = np.broadcast_to(np.asarray(spacing_mm, np.float64), (len(images),))
    diameters = np.full(len(images), np.nan)
    for spacing in np.unique(spacings):
        members = np.flatnonzero(spacings == spacing)
        for start in range(0, len(members), BATCH):
            part = members[start : start + BATCH]
            diameters[part] = _measure(images[part].astype(np.float32), float(spacing), rule)
    return diameters


def _measure(images: np.ndarray, spacing: float, rule: DiameterRule) -> np.ndarray:
    smooth = _smoothed(images, rule.smoothing_mm / spacing)
    rows, columns = _middles(smooth, spacing, rule)
    nodule = _mean_near(smooth, rows, columns, rule.centre_mm / spacing)
    lung = np.percentile(smooth.reshape(len(smooth), -1), rule.background_percentile, axis=1)
    edge = lung + rule.threshold * (nodule - lung)
    rays = _ray_lengths(smooth, rows, columns, edge, spacing, rule)
    typical = np.percentile(rays, rule.typical_percentile, axis=1, keepdims=True)
    outline = np.minimum(rays, rule.longest_ratio * typical)
    extent = _longest_extent(outline)
    seen = (nodule - lung >= rule.minimum_contrast) & (typical[:, 0] > rule.step_mm)
    return np.where(seen, extent, np.nan)


def _smoothed(images: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(images, (0.0, sigma, sigma), mode="nearest", truncate=3.0)


def _middles(
    smooth: np.ndarray, spacing: float, rule: DiameterRule
) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each nodule's middle."""
    height, width = smooth.shape[1:]
    reach = rule.search_mm / spacing
    margin = int(np.ceil(4 * reach)) + 1
    top, left = max(0, height // 2 - margin), max(0, width // 2 - margin)
    window = smooth[:, top : height - top, left : width - left]
    wide = _smoothed(window, reach)
    far = _distance(wide.shape[1:], (height - 1) / 2 - top, (width - 1) / 2 - left) > reach
    best = np.where(far, -np.inf, wide).reshape(len(wide), -1).argmax(axis=1)
    rows, columns = np.unravel_index(best, wide.shape[1:])
    return rows + top, columns + left


def _distance(shape: tuple[int, ...], row: float, column: float) -> np.ndarray:
    grid = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(grid[0] - row, grid[1] - column)


def _mean_near(
    smooth: np.ndarray, rows: np.ndarray, columns: np.ndarray, radius: float
) -> np.ndarray:
    reach = int(np.floor(radius))
    offsets = (
        np.argwhere(_distance((2 * reach + 1,) * 2, float(reach), float(reach)) <= radius) - reach
    )
    at_rows = np.clip(rows[:, None] + offsets[:, 0], 0, smooth.shape[1] - 1)
    at_columns = np.clip(columns[:, None] + offsets[:, 1], 0, smooth.shape[2] - 1)
    return smooth[np.arange(len(smooth))[:, None], at_rows, at_columns].mean(axis=1)


def _ray_lengths(
    smooth: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    edge: np.ndarray,
    spacing: float,
    rule: DiameterRule,
) -> np.ndarray:
    """Distance in mm (N, rays) from the middle to the first fall below the edge's level."""
    angles = 2 * np.pi * np.arange(rule.num_rays) / rule.num_rays
    radii = np.arange(1, int(rule.furthest_mm / rule.step_mm) + 1) * rule.step_mm
    down = (np.sin(angles)[:, None] * radii / spacing).astype(np.float32)
    right = (np.cos(angles)[:, None] * radii / spacing).astype(np.float32)
    values = _bilinear(smooth, rows[:, None, None] + down, columns[:, None, None] + right)
    inside = values >= edge[:, None, None]
    ends = ~inside.all(axis=2)
    first = np.where(ends, inside.argmin(axis=2), len(radii))
    after = np.take_along_axis(values, np.minimum(first, len(radii) - 1)[..., None], 2)[..., 0]
    before = np.take_along_axis(values, np.maximum(first - 1, 0)[..., None], 2)[..., 0]
    drop = np.maximum(before - after, 1e-6)
    part = np.where(first > 0, np.clip((before - edge[:, None]) / drop, 0, 1), 0)
    return np.where(ends, (first + part) * rule.step_mm, rule.furthest_mm)


def _bilinear(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sample each image at its own points; outside it the border's values hold."""
    height, width = images.shape[1:]
    rows = np.clip(rows, 0, height - 1.001).astype(np.float32)
    columns = np.clip(columns, 0, width - 1.001).astype(np.float32)
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    down, right = rows - top, columns - left
    start = (np.arange(len(images), dtype=np.int32) * (height * width))[:, None, None]
    flat, corner = images.reshape(-1), start + top * width + left
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    lower = flat[corner + width] * (1 - right) + flat[corner + width + 1] * right
    return upper * (1 - down) + lower * down


def _longest_extent(outline: np.ndarray) -> np.ndarray:
    """Largest width in mm over all directions of a closed outline given by its rays."""
    angles = 2 * np.pi * np.arange(outline.shape[1]) / outline.shape[1]
    half = angles[: len(angles) // 2]
    projection = np.cos(angles[:, None] - half[None])
    widths = np.stack(
        [np.ptp(outline * projection[:, direction], axis=1) for direction in range(len(half))]
    )
    return np.asarray(widths.max(axis=0))
