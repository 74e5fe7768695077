"""Whether crops are Hounsfield units and masks are masks, before rounding hides it."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from namd.config.errors import InputError
from namd.data import schema
from namd.data.sources.archive import Arrays
from namd.data.sources.columns import some

AIR_HU = -300
"""Aerated lung lies near -850 HU, emphysema and air lower; no crop set of lungs is without."""

LUNG_HU = (-960, AIR_HU)
"""Aerated lung. Scanner padding (-1024, -2000, -3024) and air itself, which may be padding too,
lie below: neither shows that the rest of a crop is in HU."""

MIN_LUNG_SHARE = 0.01
"""Of the pixels of a crop. Of 2,105 crops of LIDC-IDRI, 50 mm a side, none has less than 0.047."""

STORED_OFFSET = 1024
"""What scanners add to HU so that stored values are positive (DICOM's RescaleIntercept)."""

MIN_SET_SHARE, MIN_CROP_SHARE = 0.05, 0.3
"""Pixels that would be lung if `STORED_OFFSET` were taken away, in all crops and in one, from
which on a crop without lung is taken for stored values. Contrast and bone reach such values too."""


def require_hu(arrays: Arrays, words: dict[str, pd.Series], path: Path, name: str) -> None:
    """Refuse crops without aerated lung, which are not HU.

    Normalised crops would be clipped to one shade of grey, and stored values (HU + 1024) to white.

    Raises InputError; also for some crops among others, since scanners differ in what they store.
    """
    values = arrays[name][words["row"].to_numpy()]
    with np.errstate(invalid="ignore"):
        lung = _share(values, *LUNG_HU)
        shifted = _share(values, LUNG_HU[0] + STORED_OFFSET, LUNG_HU[1] + STORED_OFFSET)
    known = values[np.isfinite(values)]
    if not known.size:
        return
    if lung.mean() < MIN_LUNG_SHARE and shifted.mean() >= MIN_SET_SHARE:
        raise InputError(
            f"{path}: {name} lies within {known.min():g}...{known.max():g}, with "
            f"{shifted.mean():.0%} of it where lung lies in stored values (HU + {STORED_OFFSET}); "
            f"give Hounsfield units: apply each image's RescaleSlope and RescaleIntercept"
        )
    if known.min() > AIR_HU:
        raise InputError(
            f"{path}: {name} lies within {known.min():g}...{known.max():g}, and lung holds air of "
            f"less than {AIR_HU} HU; give Hounsfield units, not normalised intensities"
        )
    stored = (lung < MIN_LUNG_SHARE) & (shifted >= MIN_CROP_SHARE)
    if stored.any():
        raise InputError(
            f"{path}: {name} of cases {some(words['case_id'][stored].tolist())} holds no lung, but "
            f"would as stored values (HU + {STORED_OFFSET}); give Hounsfield units in every crop"
        )


def require_finite(arrays: Arrays, words: dict[str, pd.Series], path: Path, name: str) -> None:
    """Refuse crops outside the limits of HU, before rounding hides it."""
    chosen = arrays[name][words["row"].to_numpy()]
    low, high = schema.LIMITS.hu
    with np.errstate(invalid="ignore"):
        wrong = ~((chosen >= low) & (chosen <= high)).all(axis=(1, 2))
    if wrong.any():
        raise InputError(
            f"{path}: {name} of cases {some(words['case_id'][wrong].tolist())} is NaN or not "
            f"within {low}...{high} HU; clip scanner padding before"
        )


def require_masks(arrays: Arrays, words: dict[str, pd.Series], path: Path) -> None:
    """Refuse masks of more than one value beside 0, and votes that are no counts."""
    rows = words["row"].to_numpy()
    for name, problem in (
        ("mask", "holds other values than 0 and one for the nodule; give 0 and 1"),
        ("votes", "is no count of readers (0, 1, 2, ...) in every pixel"),
    ):
        if name in arrays:
            values = arrays[name][rows].astype(np.float64)
            right = np.isfinite(values) & (values >= 0)
            if name == "mask":
                right &= (values == 0) | (values == values.max(initial=0, where=right))
            else:
                right &= values % 1 == 0
            wrong = ~right.all(axis=(1, 2))
            if wrong.any():
                ids = some(words["case_id"][wrong].tolist())
                raise InputError(f"{path}: {name} of cases {ids} {problem}")


def _share(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float64]:
    """Return the share of each crop's pixels that lie within two values."""
    return np.asarray(((values >= low) & (values <= high)).mean(axis=(1, 2)))
