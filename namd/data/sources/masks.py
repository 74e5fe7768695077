"""Whether masks mark a nodule in the middle of its crop, and not all but it, or another place.

Which values a mask may hold belongs to `intensities`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from namd.config.errors import InputError
from namd.data.sources.columns import some

FARTHEST_MM = 5.0
"""From the middle of a crop to the nearest pixel of its nodule, which may be a ring or off-centre.
Of 2,105 crops of LIDC-IDRI 99.8% hold the nodule in the middle itself or beside it, and in none
does it lie further away than 3.4 mm."""

MAX_BORDER_SHARE = 0.5
"""Of a crop's outermost pixels that a nodule may cover; in LIDC-IDRI none covers above 0.07."""


def require_on_nodules(
    masks: npt.NDArray[np.bool_],
    spacing_mm: npt.NDArray[np.float64],
    case_ids: Sequence[str],
    path: Path,
) -> None:
    """Refuse masks that cannot mark the nodule in the middle of each crop.

    A mask without a pixel is accepted beside others: not every nodule has a contour.

    Args:
        masks: (N, H, H), on the crops' own pixels.
        spacing_mm: (N,), of those pixels; NaN where it is not known.
        case_ids: N names for messages.
        path: The npz.

    Raises:
        InputError: All are empty, or some cover a crop's border or miss its middle.
    """
    filled = masks.any(axis=(1, 2))
    if not filled.any():
        raise InputError(
            f"{path}: no mask marks a pixel as nodule; mark the nodules, or leave the masks out"
        )
    ids = np.asarray(case_ids, dtype=object)
    inverted = _border_share(masks) > MAX_BORDER_SHARE
    if inverted.any():
        raise InputError(
            f"{path}: the mask of cases {some(ids[inverted].tolist())} covers most of the crop's "
            "border; mark the nodule, not what lies around it (is the mask inverted?)"
        )
    far = filled & (_nearest_px(masks) * spacing_mm > FARTHEST_MM)
    if far.any():
        raise InputError(
            f"{path}: the mask of cases {some(ids[far].tolist())} lies more than {FARTHEST_MM:g} "
            "mm from the middle of the crop, where the nodule must be; is it shifted, or another "
            "case's?"
        )


def _border_share(masks: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    border = np.ones(masks.shape[1:], dtype=bool)
    border[1:-1, 1:-1] = False
    return np.asarray(masks[:, border].mean(axis=1))


def _nearest_px(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return how far from the middle of each crop the nearest pixel of its mask lies."""
    rows, columns = np.indices(masks.shape[1:])
    middle = (masks.shape[-1] - 1) / 2
    distance = np.hypot(rows - middle, columns - middle)
    return np.array([distance[mask].min(initial=np.inf) for mask in masks])
