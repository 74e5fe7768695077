"""The (case, k) pairs of a split under evaluation: listed, cut into blocks, counted as they return.

Independent of Ray.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from namd.config.errors import InputError, StageError
from namd.data.cohort import CASES_FILE, read_schema
from namd.data.splits import evaluation_subset

MAX_ROWS = 128
"""Pairs per block, at most: the drawers' batch, and the loss if a worker dies."""

NAMED = 3
"""Pairs that a message lists before it counts the rest."""

SUBSET_COLUMNS = ("case_id", "patient_id", "split", "label")


def evaluated_case_ids(cohort: Path, split: str, settings: SimpleNamespace) -> list[str]:
    """Return the ids of the cases under evaluation, in the order of every artifact's rows.

    `settings` is the slice of `evaluate` that a stage declares.

    Reads four columns and no image. Raises InputError if the split is empty.
    """
    read_schema(cohort)
    table = pq.read_table(
        cohort / CASES_FILE, columns=list(SUBSET_COLUMNS), filters=[("split", "==", split)]
    )
    cases = table.to_pandas().sort_values("case_id", kind="stable", ignore_index=True)
    if cases.empty:
        raise InputError(f"{cohort}: no case in split {split}; build the cohort with more patients")
    index = evaluation_subset(cases, split, settings.num_cases, settings.minimum_malignant)
    return [str(case) for case in cases["case_id"].to_numpy()[index]]


def block_rows(num_cases: int) -> int:
    """Return the pairs per block: equal parts of the cases, so that most blocks hold one draw."""
    return math.ceil(num_cases / math.ceil(num_cases / MAX_ROWS))


def pair_blocks(case_ids: Sequence[str], indices: Sequence[int], rows: int) -> list[pa.Table]:
    """Return all pairs, one draw index after the other, in tables of at most `rows` rows."""
    pairs = pa.table(
        {
            "case_id": pa.array(np.tile(np.asarray(case_ids, object), len(indices)), pa.string()),
            "k": pa.array(np.repeat(np.asarray(indices, np.int64), len(case_ids))),
        }
    )
    return [pairs.slice(first, rows) for first in range(0, len(pairs), rows)]


def pair_text(case: str, k: int) -> str:
    """Return a pair as messages show it; namd.tracking.privacy recognises the form."""
    return f"(case {case}, k={k})"


class Coverage:
    """Counts pairs as they return, in any order: each of N x K exactly once.

    Args:
        name: The stage's name, for messages.
        case_ids: The N cases, without duplicates.
        indices: The K draw indices.
    """

    def __init__(self, name: str, case_ids: Sequence[str], indices: Sequence[int]) -> None:
        self.name = name
        self.case_ids = [str(case) for case in case_ids]
        self._places = {case: place for place, case in enumerate(self.case_ids)}
        self._seen = {k: np.zeros(len(self.case_ids), bool) for k in indices}

    def add(
        self, case_ids: Sequence[str] | np.ndarray, ks: Sequence[int] | np.ndarray
    ) -> npt.NDArray[np.intp]:
        """Count the pairs of a block; return the index of each one's case.

        Raises StageError naming a pair that was not requested, or was returned before.
        """
        pairs = [(str(case), int(k)) for case, k in zip(case_ids, ks, strict=True)]
        unknown = [
            pair for pair in pairs if pair[0] not in self._places or pair[1] not in self._seen
        ]
        if unknown:
            raise StageError(f"{self.name}: {_named(unknown)} returned but not requested")
        places = np.array([self._places[case] for case, _ in pairs], np.intp)
        doubled = []
        for place, (case, k) in zip(places, pairs, strict=True):
            if self._seen[k][place]:
                doubled.append((case, k))
            self._seen[k][place] = True
        if doubled:
            raise StageError(f"{self.name}: {_named(doubled)} returned twice")
        return places

    def count(self, k: int) -> int:
        """Return how many cases of a draw index have returned."""
        return int(self._seen[k].sum())

    def complete(self, k: int) -> bool:
        """Whether every case of a draw index has returned."""
        return bool(self._seen[k].all())

    def require(self) -> None:
        """Raise StageError naming the pairs that did not return."""
        missing = [
            (self.case_ids[place], k)
            for k, seen in self._seen.items()
            for place in np.flatnonzero(~seen)
        ]
        if missing:
            raise StageError(f"{self.name}: {_named(missing)} did not return")


def _named(pairs: Sequence[tuple[str, int]]) -> str:
    first = ", ".join(pair_text(case, k) for case, k in pairs[:NAMED])
    rest = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    return f"pair{'s' if len(pairs) > 1 else ''} {first}{rest}"
