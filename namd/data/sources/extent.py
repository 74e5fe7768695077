"""How far a source's crops reach: the size that all of them can be stored with, and which cannot.

No corner is invented: a crop that ends before the stored one does is refused, left out if that
is asked for, or makes every stored crop smaller. Each of these names the cases.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from namd.data import schema
from namd.data.resampling import reaches
from namd.data.settings import CropSettings
from namd.data.sources.archive import Arrays
from namd.data.sources.columns import CropFiles, numbers, some

ROOMY_PX = 92
"""Holds an image of 64 pixels turned by any angle (64 sqrt(2) = 90.5); even, as the phantom's."""

MIN_PX = 64
"""The images of the presets, which turn by multiples of 90 degrees alone in crops of their size."""


def wanted(settings: CropSettings) -> int:
    """Return the pixels of a stored crop if every crop of the source reaches as far."""
    return ROOMY_PX if settings.size is None else settings.size


def stored_size(
    settings: CropSettings,
    words: dict[str, pd.Series],
    arrays: Arrays,
    files: CropFiles,
    has: npt.NDArray[np.bool_] | None,
) -> tuple[int, list[str]]:
    """Return the pixels of a stored crop, and a remark if they are not those that are wanted.

    A size that was asked for stays as it is; whether all crops reach as far is checked later.
    """
    if settings.size is not None:
        return settings.size, []
    short = falls_short(settings, words, arrays, files, has)
    if not short.any():
        return ROOMY_PX, []
    ids, rest = words["case_id"][short].tolist(), int((~short).sum())
    remark = (
        f"{len(ids)} of {len(short)} crops hold less than {ROOMY_PX} pixels of "
        f"{settings.spacing_mm:g} mm (cases {some(ids)}), so all are stored with {MIN_PX}; "
        f"images of {MIN_PX} pixels then turn by multiples of 90 degrees alone; "
        f"--size {ROOMY_PX} --leave-out-short keeps the other {rest} and every turn"
    )
    return MIN_PX, [remark]


def falls_short(
    settings: CropSettings,
    words: dict[str, pd.Series],
    arrays: Arrays,
    files: CropFiles,
    has: npt.NDArray[np.bool_] | None,
) -> npt.NDArray[np.bool_]:
    """Return which lines have a crop, of either time point, that ends before the stored one does.

    A spacing that is missing or impossible is another fault, and no line falls short for it.
    """
    pairs = [("spacing_mm", np.ones(len(words["row"]), dtype=bool))]
    if has is not None:
        word = "followup_spacing_mm" if "followup_spacing_mm" in words else "spacing_mm"
        pairs.append((word, has))
    short = np.zeros(len(words["row"]), dtype=bool)
    low, high = schema.LIMITS.spacing_mm
    for word, concerned in pairs:
        spacing = numbers(words, word, files).to_numpy()
        possible = (spacing >= low) & (spacing <= high)
        far = reaches(arrays["hu"].shape[-1], spacing, wanted(settings), settings.spacing_mm)
        short |= concerned & possible & ~far
    return short
