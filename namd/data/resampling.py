"""In-plane resampling of square crops about their middle, to one spacing."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage


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
