"""Rotating stored crops and cutting them to the image size, without inventing a corner.

Both images of a pair take one angle: callers draw it once and pass it for both.
"""

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from namd.data.settings import STATED_ANGLES, room_to_turn

Rotations = Literal["all", "quarter", "none", "to_180", "to_135"]
QUARTERS = (0, 90, 180, 270)
EIGHTHS = (0, 45, 90, 135, 180, 225, 270, 315)


def angles_for(stored_size: int, image_size: int, rotations: Rotations = "all") -> tuple[int, ...]:
    """Return the angles in degrees that a stored crop allows, 0 first.

    Multiples of 45 need a stored crop of at least ceil(sqrt(2) image_size) pixels, so that the
    corners of the turned image lie inside it. A smaller one makes `all` the multiples of 90.

    Raises:
        ValueError: The stored crop is smaller than the image, or than stated angles need.
    """
    if stored_size < image_size:
        raise ValueError(f"images of {image_size} pixels cannot be cut from {stored_size}")
    if rotations == "none":
        return (0,)
    roomy = stored_size >= room_to_turn(image_size)
    if rotations in STATED_ANGLES:
        if not roomy:
            raise ValueError(
                f"rotations {rotations}: an image of {image_size} pixels needs stored crops of "
                f"{room_to_turn(image_size)}, not {stored_size}"
            )
        return STATED_ANGLES[rotations]
    return EIGHTHS if rotations == "all" and roomy else QUARTERS


def unhonoured(stored_size: int, image_size: int, rotations: Rotations) -> str:
    """Return in one line which turns a stored crop forbids; empty if it forbids none."""
    if rotations != "all" or stored_size >= room_to_turn(image_size):
        return ""
    return (
        f"image.rotations all: stored crops of {stored_size} pixels have no room to turn images of "
        f"{image_size} by 45 degrees ({room_to_turn(image_size)} needed), so they are turned by "
        "multiples of 90 alone"
    )


def centre_cut(crops: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Return the middle `size` pixels of the last two axes, as a view.

    Raises:
        ValueError: the crops are smaller.
    """
    height, width = crops.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f"images of {size} pixels cannot be cut from {height} x {width}")
    top, left = (height - size) // 2, (width - size) // 2
    return crops[..., top : top + size, left : left + size]


def rotated_crops(crops: npt.NDArray[Any], angle: int, size: int) -> npt.NDArray[Any]:
    """Turn crops (..., S, S) anticlockwise by `angle` degrees and cut the middle (..., size, size).

    Multiples of 90 move pixels and change no value; others interpolate linearly about the
    middle of the stored crop, round to the crops' integer type, and read stored pixels only.

    Raises:
        ValueError: the angle is no multiple of 45, or the stored crop too small for it.
    """
    if angle % 45:
        raise ValueError(f"angle must be a multiple of 45 degrees, got {angle}")
    if angle % 360 not in angles_for(crops.shape[-1], size):
        raise ValueError(
            f"an image of {size} pixels turned by {angle} degrees does not fit a stored crop of "
            f"{crops.shape[-1]}; it needs {room_to_turn(size)}"
        )
    if angle % 90 == 0:
        turned = np.rot90(centre_cut(crops, size), k=angle // 90, axes=(-2, -1))
        return np.ascontiguousarray(turned)
    return _turn(crops, math.radians(angle), size)


def _turn(crops: npt.NDArray[Any], radians: float, size: int) -> npt.NDArray[Any]:
    stored = crops.shape[-1]
    cosine, sine = math.cos(radians), math.sin(radians)
    # Rows point down, so an anticlockwise turn of the picture samples along this matrix.
    matrix = np.array([[cosine, sine], [-sine, cosine]])
    offset = (stored - 1) / 2 - matrix @ np.full(2, (size - 1) / 2)
    flat = crops.reshape(-1, stored, stored)
    turned = np.empty((len(flat), size, size), dtype=crops.dtype)
    whole = np.issubdtype(crops.dtype, np.integer)
    for number, crop in enumerate(flat):
        image = ndimage.affine_transform(
            crop.astype(np.float32),
            matrix,
            offset,
            output_shape=(size, size),
            order=1,
            mode="nearest",
        )
        turned[number] = np.rint(image) if whole else image
    return turned.reshape(*crops.shape[:-2], size, size)
