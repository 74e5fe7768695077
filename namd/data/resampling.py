"""In-plane resampling of square crops about their middle, to one spacing."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

WINDOW_MARGIN_PX = 12
"""Around a crop that is cut from a larger image: the spline's reach, many times over."""


def reaches(
    native_size: int, native_mm: npt.ArrayLike, size: int, spacing_mm: float
) -> npt.NDArray[np.bool_]:
    """Return whether native crops hold the centre of every pixel of the resampled crop."""
    native = (native_size - 1) * np.asarray(native_mm, dtype=np.float64)
    return np.asarray(native + 1e-9 >= (size - 1) * spacing_mm)


def resample(
    crop: npt.NDArray[Any], native_mm: float, spacing_mm: float, size: int
) -> npt.NDArray[np.int16]:
    """Return the middle (size, size) of a crop at a new spacing, in whole HU.

    A cubic spline keeps noise texture that linear interpolation would smooth away; its overshoot
    is clipped to the range of the crop. Where pixels get larger, a Gaussian of
    (ratio - 1) / 2 native pixels goes before, so that finer detail does not alias.
    """
    image = _smoothed(crop.astype(np.float32), spacing_mm / native_mm)
    sampled = _sample(image, spacing_mm / native_mm, size, order=3)
    return np.rint(np.clip(sampled, crop.min(), crop.max())).astype(np.int16)


def resample_at(
    image: npt.NDArray[Any],
    centre_px: tuple[float, float],
    native_mm: tuple[float, float],
    spacing_mm: float,
    size: int,
    outside: float,
) -> npt.NDArray[np.int16]:
    """Return the (size, size) crop about a place of a larger image, in whole HU.

    The same rule as `resample`, along each axis: spline, low-pass, clipped overshoot.

    Args:
        image: In HU.
        centre_px: Row and column, as fractions of pixels; pixel 0 has its centre at 0.
        native_mm: Distance of rows, and of columns.
        spacing_mm: Of the crop.
        size: Of the crop.
        outside: What stands beyond the image, in HU.
    """
    ratio = spacing_mm / np.asarray(native_mm, dtype=np.float64)
    reach = np.ceil(ratio * (size - 1) / 2).astype(int) + WINDOW_MARGIN_PX
    first = np.floor(centre_px).astype(int) - reach
    last = np.ceil(centre_px).astype(int) + reach + 1
    before = np.maximum(-first, 0)
    after = np.maximum(last - image.shape, 0)
    inside = tuple(
        slice(max(low, 0), min(high, length))
        for low, high, length in zip(first, last, image.shape, strict=True)
    )
    window = np.pad(
        image[inside].astype(np.float32),
        list(zip(before, after, strict=True)),
        constant_values=outside,
    )
    smoothed = ndimage.gaussian_filter(window, np.maximum(ratio - 1.0, 0.0) / 2, mode="nearest")
    offset = np.asarray(centre_px) - first - ratio * (size - 1) / 2
    sampled = ndimage.affine_transform(
        smoothed, ratio, offset, output_shape=(size, size), order=3, mode="nearest"
    )
    return np.rint(np.clip(sampled, window.min(), window.max())).astype(np.int16)


def resample_mask(
    mask: npt.NDArray[Any], native_mm: float, spacing_mm: float, size: int
) -> npt.NDArray[np.uint8]:
    """Return a mask resampled as its crop is: 1 where linear interpolation gives a half or more."""
    image = _smoothed((mask > 0).astype(np.float32), spacing_mm / native_mm)
    return (_sample(image, spacing_mm / native_mm, size, order=1) >= 0.5).astype(np.uint8)


def _smoothed(image: npt.NDArray[np.float32], ratio: float) -> npt.NDArray[np.float32]:
    if ratio <= 1.0:
        return image
    return np.asarray(ndimage.gaussian_filter(image, (ratio - 1.0) / 2.0, mode="nearest"))


def _sample(
    image: npt.NDArray[np.float32], ratio: float, size: int, order: int
) -> npt.NDArray[np.float32]:
    """Sample about the middle of the image, `ratio` native pixels a step."""
    offset = (image.shape[0] - 1) / 2 - ratio * (size - 1) / 2
    return np.asarray(
        ndimage.affine_transform(
            image, np.full(2, ratio), offset, output_shape=(size, size), order=order, mode="nearest"
        )
    )
