"""What a source knows already: kept beside what is simulated, unless it is to be replaced."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from namd.config.errors import InputError
from namd.config.parsing import nearest
from namd.data.checks import RefusedCohortError, month_problems, value_problems
from namd.data.cohort import Cohort
from namd.data.schema import FAMILY_FEATURES, FOLLOWUP_DIAMETERS, PATIENT_FEATURES

FOLLOWUP = "followup"
SIMULATED = (
    "label",
    "months",
    "age",
    "gender",
    "diagemph",
    *FAMILY_FEATURES,
    "SCT_EPI_LOC",
    FOLLOWUP,
    *FOLLOWUP_DIAMETERS,
)
"""Everything that the simulation can draw, in the order in which cards list it."""


@dataclass(frozen=True)
class Known:
    """What is kept of a cohort, case by case.

    Attributes:
        values: By column, float64 (N,), NaN where there is nothing to keep.
        followed: Cases that keep a follow-up of their own, bool (N,).
        counts: By column, how many of its cases are kept, simulated, replaced and left missing.
    """

    values: dict[str, NDArray[np.float64]]
    followed: NDArray[np.bool_]
    counts: dict[str, dict[str, int]]

    @property
    def drawn(self) -> list[str]:
        """The columns of which at least one value is drawn."""
        return [name for name, n in self.counts.items() if n["simulated"] or n["replaced"]]


def require_columns(names: Collection[str]) -> None:
    """Raise InputError for a name that the simulation does not draw."""
    for name in names:
        if name not in SIMULATED:
            raise InputError(f"--replace {name}: is not simulated{nearest(name, SIMULATED)}")


def find_known(cohort: Cohort, replace: Collection[str] = ()) -> Known:
    """Return what a cohort keeps when all but `replace` of what it knows is kept.

    A record's value that one case of a patient lacks is that of the patient's other cases. A case
    with a follow-up of its own gets no label, months or diameters: none could be true of it.

    Raises:
        InputError: a name is unknown, or what is kept contradicts what would be drawn.
    """
    require_columns(replace)
    given = _given(cohort)
    replaced = _replaced(replace)
    followed = _followed(cohort) & (not replaced[FOLLOWUP])
    _require_consistent(cohort, given, replaced, followed)
    values = {name: np.where(replaced[name], np.nan, column) for name, column in given.items()}
    known = {name: np.isfinite(column) for name, column in given.items()}
    known[FOLLOWUP] = _followed(cohort)
    counts = {}
    for name in SIMULATED:
        kept = known[name] & (not replaced[name])
        drawable = ~kept if name in (*PATIENT_FEATURES, "SCT_EPI_LOC") else ~kept & ~followed
        counts[name] = {
            "kept": int(kept.sum()),
            "simulated": int((drawable & ~known[name]).sum()),
            "replaced": int((drawable & known[name]).sum()),
            "missing": int((~kept & ~drawable).sum()),
        }
    return Known(values, followed, counts)


def require_possible(cohort: Cohort, replace: Collection[str] = ()) -> None:
    """Raise RefusedCohortError for values outside their codes and limits that would be kept."""
    idle = [name for name, gone in _replaced(replace).items() if gone and name != FOLLOWUP]
    table = cohort.table.assign(**dict.fromkeys(idle, np.nan))
    problems = list(value_problems(table, cohort.card))
    if problems:
        raise RefusedCohortError(problems)


def _replaced(replace: Collection[str]) -> dict[str, bool]:
    """Return which columns are drawn anew; a follow-up's diameters go with it."""
    replaced = {name: name in replace for name in SIMULATED}
    for name in FOLLOWUP_DIAMETERS:
        replaced[name] |= replaced[FOLLOWUP]
    return replaced


def _given(cohort: Cohort) -> dict[str, NDArray[np.float64]]:
    table = cohort.table
    columns = {}
    for name in SIMULATED:
        if name == FOLLOWUP:
            continue
        values = table[name] if name in table else pd.Series(np.nan, index=table.index)
        if name in PATIENT_FEATURES:
            values = values.fillna(values.groupby(table["patient_id"]).transform("first"))
        columns[name] = values.to_numpy(np.float64, na_value=np.nan)
    return columns


def _require_consistent(
    cohort: Cohort,
    given: dict[str, NDArray[np.float64]],
    replaced: dict[str, bool],
    followed: NDArray[np.bool_],
) -> None:
    if replaced["label"] and followed.any():
        raise InputError(
            f"--replace label: {int(followed.sum())} cases keep a follow-up of their own, which a "
            "drawn label would contradict; add followup to --replace"
        )
    if replaced["months"] and followed.any():
        raise InputError(
            f"--replace months: {int(followed.sum())} cases keep a follow-up of their own, and "
            "only the scans say when it was; add followup to --replace"
        )
    timeless = list(month_problems(cohort.table.assign(months=given["months"]), followed))
    if timeless:
        raise RefusedCohortError(timeless)
    for name in FOLLOWUP_DIAMETERS:
        alone = np.isfinite(given[name]) & ~followed & (not replaced[name])
        if alone.any():
            case = cohort.table["case_id"].iloc[int(np.flatnonzero(alone)[0])]
            raise InputError(
                f"{int(alone.sum())} cases have {name} and no follow-up (first: {case}); a "
                f"simulated one has its own size: add {name} to --replace, give the follow-ups, "
                "or leave the column out"
            )


def _followed(cohort: Cohort) -> NDArray[np.bool_]:
    if cohort.has_followup is None:
        return np.zeros(len(cohort), dtype=bool)
    return np.asarray(cohort.has_followup, dtype=bool)
