"""A small cohort that every test of the room can bend."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from namd.config.seeding import generator
from namd.data import schema
from namd.data.cohort import Cohort
from namd.data.splits import assign_split


def make_cohort(num_patients: int = 12, size: int = 16, cases_each: int = 2) -> Cohort:
    rng = generator("test-cohort", num_patients, size, cases_each)
    rows = []
    for patient in range(num_patients):
        for case in range(cases_each):
            rows.append(
                {
                    "case_id": f"case-{patient:03d}-{case}",
                    "patient_id": f"patient-{patient:03d}",
                    "lesion_id": f"lesion-{patient:03d}-{case}",
                    "source": "test",
                    "split": assign_split(f"patient-{patient:03d}", 1),
                    "label": float((patient + case) % 2) if patient else np.nan,
                    "months": 12.0,
                    "spacing_mm": 0.5,
                    "SCT_PRE_ATT": 1.0 + (patient % 3),
                    "SCT_EPI_LOC": 1.0 + (patient % 6),
                    "SCT_MARGINS": 1.0 + (case % 3),
                    "SCT_LONG_DIA": 6.3 + patient,
                    "SCT_PERP_DIA": 5.1 + patient,
                    "age": 60.0 + patient,
                    "gender": 1.0 + (patient % 2),
                    "diagemph": float(patient % 2),
                }
            )
    table = pd.DataFrame(rows).reindex(columns=list(schema.COLUMN_TYPES))
    shape = (len(table), size, size)
    mask = np.zeros(shape, dtype=np.uint8)
    mask[:, 6:10, 6:10] = 1
    has = np.arange(len(table)) % 4 != 3
    followup = rng.integers(-1000, 400, shape).astype(np.int16)
    followup[~has] = 0
    return Cohort(
        table=table,
        baseline=rng.integers(-1000, 400, shape).astype(np.int16),
        followup=followup,
        has_followup=has,
        mask=mask,
        card={"source": "test", "real": ["baseline"]},
    )


@pytest.fixture
def cohort() -> Cohort:
    return make_cohort()


@pytest.fixture
def cohort_of() -> Callable[..., Cohort]:
    return make_cohort
