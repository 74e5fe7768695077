"""Patients' records drawn where a source has none. Labels and images are not its business."""

from collections.abc import Hashable

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from namd.config.seeding import generator
from namd.data.simulation.settings import RecordSettings

FAMILY = ("famfather", "fammother", "fambrother", "famsister", "famchild")
MALE, FEMALE = 1, 2
LOBES = {
    "R": {"upper": 1, "middle": 2, "lower": 3},
    "L": {"upper": 4, "middle": 5, "lower": 6},
}
ALL_LOBES = (1, 2, 3, 4, 5, 6)


def draw_patient(
    settings: RecordSettings, seed: int, patient_id: str, replicate: int
) -> dict[str, float]:
    """Draw one patient's record under NLST's names and codes; age in whole years."""
    rng = generator("simulated-record", seed, patient_id, replicate)
    uniform = rng.random(3 + len(FAMILY))
    record = {
        "age": _age(settings, uniform[0]),
        "gender": MALE if uniform[1] < settings.male else FEMALE,
        "diagemph": int(uniform[2] < settings.emphysema),
    }
    flags = uniform[3:] < settings.family_flag
    return record | {name: int(flag) for name, flag in zip(FAMILY, flags, strict=True)}


def draw_records(
    settings: RecordSettings, seed: int, patients: pd.Series, replicates: pd.Series | pd.Index
) -> pd.DataFrame:
    """Draw the records of cases; cases of one (patient, replicate) share theirs."""
    drawn: dict[Hashable, dict[str, float]] = {}
    keys = list(zip(patients.astype(str), replicates.astype(int), strict=True))
    for key in keys:
        if key not in drawn:
            drawn[key] = draw_patient(settings, seed, *key)
    return pd.DataFrame([drawn[key] for key in keys], index=patients.index)


def draw_lobe(seed: int, case_id: str, side: object, z_frac: object) -> int:
    """NLST lobe code of a nodule: by thirds of height where side (R, L) and z_frac are known.

    `z_frac` is 0 at the lowest slice; the left middle third is the lingula. A nodule whose
    place is unknown gets one of the six lobes, each as likely.
    """
    if side in LOBES and z_frac is not None and not pd.isna(z_frac):
        height = float(str(z_frac))
        third = "upper" if height > 2 / 3 else "middle" if height > 1 / 3 else "lower"
        return LOBES[str(side)][third]
    return int(generator("simulated-lobe", seed, case_id).choice(ALL_LOBES))


def lobe_is_missing(settings: RecordSettings, seed: int, case_id: str) -> bool:
    """Whether the record leaves the lobe out, though the truth knows it."""
    if settings.missing_lobe == 0:
        return False
    return bool(generator("simulated-missing-lobe", seed, case_id).random() < settings.missing_lobe)


def _age(settings: RecordSettings, uniform: float) -> float:
    centre, scale = settings.mean_age_years, settings.sd_age_years
    low = ndtr((settings.youngest_years - centre) / scale)
    high = ndtr((settings.oldest_years - centre) / scale)
    return float(np.round(centre + scale * ndtri(low + uniform * (high - low))))
