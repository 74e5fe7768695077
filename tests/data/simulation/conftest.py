import numpy as np
import pandas as pd
import pytest

from namd.config.seeding import generator
from namd.data import schema
from namd.data.cohort import Cohort

SIZE, SPACING = 64, 0.5


def disc(radius_mm, size=SIZE, spacing=SPACING):
    axis = (np.arange(size) - (size - 1) / 2) * spacing
    return (np.hypot(axis[:, None], axis[None, :]) <= radius_mm).astype(np.uint8)


@pytest.fixture(scope="session")
def nodules() -> Cohort:
    """Discs on noisy lung: 120 nodules of 60 patients, of every type and several sizes."""
    rows, baseline, mask = [], [], []
    for number in range(120):
        rng = generator("test-nodules", number)
        radius = float(rng.uniform(2.0, 8.0))
        inside = disc(radius)
        hu = -860 + 20 * rng.standard_normal((SIZE, SIZE)) + 800.0 * inside
        baseline.append(hu.round().astype(np.int16))
        mask.append(inside)
        patient = number // 2
        rows.append(
            {
                "case_id": f"n{number:03d}",
                "patient_id": f"p{patient:03d}",
                "lesion_id": f"l{number:03d}",
                "source": "test",
                "split": ("train", "test", "train", "test", "validation")[patient % 5],
                "spacing_mm": SPACING,
                "SCT_PRE_ATT": float(1 + number % 3),
                "SCT_MARGINS": float(1 + number % 2),
                "SCT_LONG_DIA": round(2 * radius),
                "SCT_PERP_DIA": round(2 * radius),
                "source_side": "RL"[number % 2],
                "source_z_frac": float(rng.random()),
            }
        )
    table = pd.DataFrame(rows)
    for name in schema.COLUMN_TYPES:
        if name not in table:
            table[name] = np.nan
    return Cohort(table=table, baseline=np.stack(baseline), mask=np.stack(mask))
