"""Random records without patients: what a language model learns to read reports on.

They follow no cohort's distribution on purpose. Every value is as likely as the next and every
clause may be missing, so that a model trained on them reads the report of any cohort.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from namd.data.report import report_text
from namd.data.schema import CODES, FAMILY_FEATURES

Record = dict[str, float]

_CATEGORIES = {
    name: tuple(CODES[name])
    for name in ("SCT_PRE_ATT", "SCT_EPI_LOC", "SCT_MARGINS", "gender", "diagemph")
}
_NUMBERS = ("age", "SCT_LONG_DIA", "SCT_PERP_DIA")
_DRAWS = 2 * (len(_CATEGORIES) + len(FAMILY_FEATURES)) + len(_NUMBERS) + 5
"""Uniform numbers per record, drawn at once; a few stay unused."""


@dataclass(frozen=True)
class RandomRecords:
    """Ranges that random records are drawn from.

    Attributes:
        age_years: Youngest and oldest, both possible.
        diameter_mm: Smallest and largest longest diameter, in whole mm; half of the draws are
            uniform in the logarithm, so that small nodules are not rare.
        min_ratio: The perpendicular diameter is at least this share of the longest.
        missing: Probability that a clause is left out.
        relative: Probability of `yes` for each relative; 0.13 makes a positive family history
            as likely as a negative one.
        perpendicular: Share of reports with the perpendicular diameter.
    """

    age_years: tuple[int, int] = (18, 99)
    diameter_mm: tuple[int, int] = (2, 60)
    min_ratio: float = 0.5
    missing: float = 0.15
    relative: float = 0.13
    perpendicular: float = 0.2

    def draw(self, rng: np.random.Generator) -> Record:
        """Draw one record under NLST's names and codes; what is missing is absent."""
        uniform = iter(rng.random(_DRAWS).tolist())
        record: Record = {
            name: codes[int(next(uniform) * len(codes))] for name, codes in _CATEGORIES.items()
        }
        youngest, oldest = self.age_years
        record["age"] = youngest + int(next(uniform) * (oldest - youngest + 1))
        long_mm = self._diameter(next(uniform), next(uniform))
        ratio = self.min_ratio + next(uniform) * (1 - self.min_ratio)
        record["SCT_LONG_DIA"] = long_mm
        record["SCT_PERP_DIA"] = max(1, round(ratio * long_mm))
        clauses = [*((name,) for name in record), FAMILY_FEATURES]
        record |= {name: int(next(uniform) < self.relative) for name in FAMILY_FEATURES}
        left_out = {n for clause in clauses if next(uniform) < self.missing for n in clause}
        return {name: value for name, value in record.items() if name not in left_out}

    def report(self, record: Mapping[str, float], rng: np.random.Generator) -> str:
        """Return the report of a record, sometimes with its perpendicular diameter."""
        return report_text(record, perpendicular=bool(rng.random() < self.perpendicular))

    def _diameter(self, kind: float, uniform: float) -> int:
        low, high = self.diameter_mm
        if kind < 0.5:
            return low + int(uniform * (high - low + 1))
        return round(low * (high / low) ** uniform)


def family_history(record: Mapping[str, float]) -> int | None:
    """Return what the report's family clause says: 1 yes, 0 no, None nothing."""
    flags = [record[name] for name in FAMILY_FEATURES if name in record]
    if any(flags):
        return 1
    return 0 if len(flags) == len(FAMILY_FEATURES) else None
