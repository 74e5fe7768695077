"""The Brock (PanCan) probability of malignancy belongs here; who draws labels from it does not.

Full model with spiculation, McWilliams et al., N Engl J Med 2013;369:910-919; coefficients as
tabulated in PMC6717521, Table 2. Image and record terms are kept apart so that a simulation may
weigh them.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit

AGE_PER_YEAR = 0.0287
CENTRE_AGE_YEARS = 62.0
FEMALE = 0.6011
FAMILY_HISTORY = 0.2961
EMPHYSEMA = 0.2953
SIZE = -5.3854
CENTRE_SIZE = 1.58113883
PART_SOLID = 0.377
NON_SOLID = -0.1276
UPPER_LOBE = 0.6581
SPICULATION = 0.7729
COUNT_PER_NODULE = -0.0824
CENTRE_COUNT = 4
INTERCEPT = -6.7892

GROUND_GLASS_CODE = 2
MIXED_CODE = 3
SPICULATED_CODE = 1
FEMALE_CODE = 2
UPPER_LOBE_CODES = (1, 4, 5)

Floats = NDArray[np.float64]
Numbers = NDArray[np.number]
"""Codes: whole numbers, or floats where some are missing."""


def image_logit(
    long_mm: Numbers, perp_mm: Numbers, attenuation: Numbers, margins: Numbers
) -> Floats:
    """Log-odds of what the scan shows: size (mean of two diameters, mm), type, spiculation.

    Codes are NLST's (SCT_PRE_ATT, SCT_MARGINS); a missing code counts as solid or smooth.
    """
    diameter_cm = (np.asarray(long_mm) + np.asarray(perp_mm)) / 20.0
    return (
        SIZE * (diameter_cm**-0.5 - CENTRE_SIZE)
        + PART_SOLID * (np.asarray(attenuation) == MIXED_CODE)
        + NON_SOLID * (np.asarray(attenuation) == GROUND_GLASS_CODE)
        + SPICULATION * (np.asarray(margins) == SPICULATED_CODE)
    )


def record_logit(
    age: Numbers, gender: Numbers, family: Numbers, emphysema: Numbers, lobe: ArrayLike
) -> Floats:
    """Log-odds of age (years), sex, any family history, emphysema and lobe (SCT_EPI_LOC).

    The lingula counts as upper lobe.
    """
    return (
        AGE_PER_YEAR * (np.asarray(age) - CENTRE_AGE_YEARS)
        + FEMALE * (np.asarray(gender) == FEMALE_CODE)
        + FAMILY_HISTORY * (np.asarray(family) > 0)
        + EMPHYSEMA * (np.asarray(emphysema) > 0)
        + UPPER_LOBE * np.isin(lobe, UPPER_LOBE_CODES)
    )


def probability(image: Floats, record: Floats, num_nodules: int = CENTRE_COUNT) -> Floats:
    """The published probability from both logits."""
    count = COUNT_PER_NODULE * (num_nodules - CENTRE_COUNT)
    return expit(INTERCEPT + np.asarray(image) + np.asarray(record) + count)


def solve_intercept(logit: Floats, prevalence: float) -> float:
    """Return the intercept at which the mean of expit(intercept + logit) is `prevalence`.

    Raises ValueError for an empty or non-finite logit.
    """
    logit = np.asarray(logit, dtype=float)
    if logit.size == 0 or not np.isfinite(logit).all():
        raise ValueError(f"an intercept needs finite logits, got {logit.size} of them")
    centre = -float(np.median(logit))
    return float(brentq(lambda b: expit(b + logit).mean() - prevalence, centre - 60, centre + 60))
