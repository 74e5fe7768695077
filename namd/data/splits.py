"""Which split a patient belongs to, and which part of a split is evaluated.

The patient is the unit: nothing here looks at a single nodule, or at the source it came from.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from namd.config.seeding import derive_seed
from namd.data.schema import MALIGNANT, SPLITS
from namd.data.settings import SplitFractions


def assign_split(patient_id: str, seed: int, fractions: SplitFractions | None = None) -> str:
    """Return the split of a patient.

    It depends on the patient and the split seed alone: neither on the source (a patient of two
    sources lands in one split) nor on who else is in the cohort.
    """
    fractions = fractions or SplitFractions()
    position = derive_seed("split", seed, str(patient_id)) / 2**128
    threshold = 0.0
    for split in SPLITS:
        threshold += getattr(fractions, split)
        if position < threshold:
            return split
    return max(SPLITS, key=lambda split: float(getattr(fractions, split)))


def evaluation_subset(
    table: pd.DataFrame,
    split: str,
    num_cases: int | None = None,
    minimum_malignant: int = 0,
) -> npt.NDArray[np.intp]:
    """Return the positions of the cases of a split that are evaluated, in table order.

    Whole patients enter in the order of their hash until there are at least `num_cases` cases
    and `minimum_malignant` malignant ones; a split too small for either is taken whole. The
    order is the same for every cohort and split seed, so subsets of two sizes are nested.

    Args:
        table: A cohort's table.
        split: One of the three.
        num_cases: None: every case.
        minimum_malignant: Cases with label 1.
    """
    rows = np.flatnonzero((table["split"] == split).to_numpy())
    if num_cases is None:
        return rows
    patients = table["patient_id"].to_numpy()[rows]
    malignant = (table["label"] == MALIGNANT).to_numpy()[rows]
    members: dict[str, list[int]] = {}
    for place, patient in enumerate(patients):
        members.setdefault(str(patient), []).append(place)
    chosen: list[int] = []
    num_malignant = 0
    for patient in sorted(members, key=lambda name: derive_seed("evaluation-order", name)):
        if len(chosen) >= num_cases and num_malignant >= minimum_malignant:
            break
        chosen += members[patient]
        num_malignant += int(malignant[members[patient]].sum())
    return rows[np.sort(np.array(chosen, dtype=np.intp))]
