"""Background alignment: the rigid in-plane motion that brings a follow-up onto its baseline.

The nodule itself may grow, so the disc that holds it has no say: only what lies around it is
compared. Translations come from scikit-image's phase_cross_correlation; it knows no rotations, and
the lock has no library of rigid registration, so those are searched on a grid.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from namd.data.intensity import to_unit
from namd.methods.corrflownet.settings import RegistrationSettings

SUBPIXELS = 4
"""Translations are found to a quarter of a pixel."""


@dataclass(frozen=True)
class Motion:
    """A rotation about the middle of the crop, then a translation.

    Attributes:
        degrees: Anticlockwise.
        shift: Rows and columns, in pixels.
    """

    degrees: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)

    def of(
        self, image: npt.NDArray[np.floating] | npt.NDArray[np.integer]
    ) -> Float[np.ndarray, "S S"]:
        """Return the moved image: linear interpolation, the border's values beyond the border."""
        if not self.degrees and self.shift == (0.0, 0.0):
            return np.asarray(image, np.float32)
        cosine, sine = np.cos(np.radians(self.degrees)), np.sin(np.radians(self.degrees))
        # Where a pixel of the result comes from: shifted back, then turned back.
        back = np.array([[cosine, sine], [-sine, cosine]])
        middle = (np.array(image.shape) - 1) / 2
        offset = middle - back @ (middle + np.array(self.shift))
        return ndimage.affine_transform(
            np.asarray(image, np.float32), back, offset, order=1, mode="nearest"
        )


def background_weights(size: int, nodule: float, margin: float) -> Float[np.ndarray, "S S"]:
    """Return 1 on the ring between the nodule's disc and the crop's border, else 0.

    Args:
        size: Pixels per side.
        nodule: Diameter of the disc in the middle, as a share of the side.
        margin: Pixels at the border that a motion may bring in from outside.
    """
    row, column = np.indices((size, size)) - (size - 1) / 2
    radius = np.hypot(row, column)
    ring = (radius >= nodule * size / 2) & (radius <= size / 2 - margin)
    return ring.astype(np.float32)


def background_correlation(
    one: Float[np.ndarray, "S S"],
    other: Float[np.ndarray, "S S"],
    weights: Float[np.ndarray, "S S"],
) -> float:
    """Return Pearson's correlation of two images where the weights are 1; 0 if one is constant."""
    first, second = one[weights > 0].astype(np.float64), other[weights > 0].astype(np.float64)
    first, second = first - first.mean(), second - second.mean()
    norm = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / norm) if norm > 0 else 0.0


def find_motion(
    baseline: npt.NDArray[np.integer],
    followup: npt.NDArray[np.integer],
    search: RegistrationSettings,
) -> Motion:
    """Return the motion of the follow-up under which the backgrounds correlate best.

    For every angle of the grid the translation of highest cross-correlation is tried; standing
    still is tried too, and wins unless a motion raises the correlation by `search.minimum_gain`.
    """
    fixed, moving = to_unit(baseline), to_unit(followup)
    weights = background_weights(len(fixed), search.nodule_share, search.maximum_shift)
    if not weights.any():
        return Motion()
    still = background_correlation(fixed, moving, weights)
    best, highest = Motion(), still + search.minimum_gain
    for degrees in search.angles:
        turned = Motion(degrees).of(moving)
        shift, _, _ = phase_cross_correlation(
            _centred(fixed, weights),
            _centred(turned, weights),
            upsample_factor=SUBPIXELS,
            normalization=None,
        )
        if max(abs(shift)) > search.maximum_shift:
            continue
        motion = Motion(degrees, (float(shift[0]), float(shift[1])))
        found = background_correlation(fixed, motion.of(moving), weights)
        if found > highest:
            best, highest = motion, found
    return best


def registered(
    baseline: npt.NDArray[np.int16], followup: npt.NDArray[np.int16], search: RegistrationSettings
) -> tuple[npt.NDArray[np.int16], Motion]:
    """Return the follow-up crop moved onto its baseline, in whole HU, and the motion."""
    motion = find_motion(baseline, followup, search)
    return np.rint(motion.of(followup)).astype(np.int16), motion


def _centred(
    image: Float[np.ndarray, "S S"], weights: Float[np.ndarray, "S S"]
) -> Float[np.ndarray, "S S"]:
    """Return the background about its mean, and 0 elsewhere."""
    return (image - image[weights > 0].mean()) * weights
