"""What a simulated cohort's truth rests on: the figures that a sceptic asks for first.

They are computed from the cohort, not from the law's settings; nothing is drawn or trained here.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import map_coordinates
from scipy.special import expit

from namd.data.cohort import Cohort
from namd.data.simulation import brock
from namd.data.simulation.change import Change, SoberChange, sources
from namd.data.simulation.ideal import settings_of
from namd.data.simulation.second_slice import mean_inside, tissues
from namd.data.simulation.settings import SecondSliceSettings, SimulationSettings, SoberSettings
from namd.data.simulation.simulate import read_nodules
from namd.statistics.ranking import auroc

IMAGE_TERMS: Mapping[str, float] = {
    "part_solid": brock.PART_SOLID,
    "non_solid": brock.NON_SOLID,
    "spiculated": brock.SPICULATION,
}
RECORD_TERMS: Mapping[str, float] = {
    "female": brock.FEMALE,
    "family_history": brock.FAMILY_HISTORY,
    "emphysema": brock.EMPHYSEMA,
    "upper_lobe": brock.UPPER_LOBE,
    "ten_years_of_age": 10 * brock.AGE_PER_YEAR,
}
MIN_LUNG_PX = 200
DETAIL_MM = 2.5


@dataclasses.dataclass(frozen=True)
class TruthFigures:
    """What the labels and follow-ups of a simulated cohort rest on.

    Attributes:
        law: Its law.
        cases: Number of cases.
        futures_per_nodule: Cases for each nodule, mean.
        record_share: Share of the logit's variance that the record's part covers, 0...1; the
            image's part covers the rest.
        odds_ratios: By term of the model, as the law weighs it.
        brock_prevalence: Mean probability under Brock's own intercept and factors of 1.
        auroc_sign: Of the drawn sign alone, for the label; None if no case shows one.
        auroc_growth: Of the drawn ratio of diameters alone.
        auroc_diameter: Of the baseline's longest diameter alone.
        auroc_record: Of the record's part of the logit alone.
        auroc_p: Of the true probability: the ideal predictor.
        warp_correlation: Of a follow-up's lung detail with that of the baseline moved as the
            follow-up was, mean over cases; 1: the same slice warped, without noise.
    """

    law: str
    cases: int
    futures_per_nodule: float
    record_share: float
    odds_ratios: dict[str, float]
    brock_prevalence: float
    auroc_sign: float | None
    auroc_growth: float
    auroc_diameter: float
    auroc_record: float
    auroc_p: float
    warp_correlation: float


def truth_figures(cohort: Cohort, num_images: int = 200) -> TruthFigures:
    """Return the figures of a simulated cohort, all splits together.

    Args:
        cohort: With labels and follow-ups that are all simulated.
        num_images: Cases whose images are compared, evenly spaced.

    Raises:
        InputError: The cohort is not simulated.
        ValueError: Its cases all have one label.
    """
    settings, table = settings_of(cohort), cohort.table
    label = table["label"].to_numpy(dtype=int)
    shown = table["sim_sign"].to_numpy(float)
    image, record = (table[f"sim_{part}_logit"].to_numpy(float) for part in ("image", "record"))
    rows = np.unique(np.linspace(0, len(cohort) - 1, min(num_images, len(cohort))).astype(int))
    return TruthFigures(
        law=settings.law,
        cases=len(cohort),
        futures_per_nodule=len(cohort) / _nodules(table),
        record_share=record_share(table, settings),
        odds_ratios=odds_ratios(settings),
        brock_prevalence=float(expit(brock.INTERCEPT + image + record).mean()),
        auroc_sign=auroc(label, shown) if shown.any() else None,
        auroc_growth=auroc(label, table["sim_growth_ratio"].to_numpy(float)),
        auroc_diameter=auroc(label, table["SCT_LONG_DIA"].to_numpy(float)),
        auroc_record=auroc(label, record),
        auroc_p=auroc(label, table["sim_p"].to_numpy(float)),
        warp_correlation=warp_correlation(cohort, rows),
    )


def odds_ratios(settings: SimulationSettings) -> dict[str, float]:
    """Return the odds ratio of each term of Brock's model under a law."""
    parts = ((settings.image_factor, IMAGE_TERMS), (settings.record_factor, RECORD_TERMS))
    return {
        name: float(np.exp(factor * weight))
        for factor, terms in parts
        for name, weight in terms.items()
    }


def record_share(table: pd.DataFrame, settings: SimulationSettings) -> float:
    """Return the share of the logit's variance that the record covers, 0...1.

    Its covariance with the whole logit over the logit's variance, so that the image's share is
    the rest.
    """
    record = settings.record_factor * table["sim_record_logit"].to_numpy(float)
    whole = record + settings.image_factor * table["sim_image_logit"].to_numpy(float)
    return float(np.cov(record, whole)[0, 1] / whole.var(ddof=1))


def warp_correlation(cohort: Cohort, rows: npt.NDArray[np.integer]) -> float:
    """Return how much of the baseline's lung detail is found in follow-ups, mean over cases.

    The baseline is moved as the follow-up was (growth, motion and breathing as recorded), and the
    two are correlated over lung well away from nodule and wall. Cases with less than 200 such
    pixels are left out.
    """
    found = []
    for row, nodule in zip(rows, read_nodules(cohort, rows), strict=True):
        spacing = nodule.spacing_mm
        change = recorded_change(cohort, int(row))
        moved_rows, moved_columns, near, _ = sources(nodule, change)
        lung = _lung(nodule.baseline, nodule.mask, spacing)
        place = (moved_rows, moved_columns)
        lung = (map_coordinates(lung.astype(float), place, order=1) > 0.99) & ~near
        if lung.sum() < MIN_LUNG_PX:
            continue
        warped = map_coordinates(nodule.baseline.astype(float), place, order=1, mode="mirror")
        after = cohort.stacks["followup"][row].astype(float)
        found.append(detail_correlation(warped, after, lung, spacing))
    return float(np.mean(found)) if found else float("nan")


def detail_correlation(
    first: npt.NDArray[np.float64],
    second: npt.NDArray[np.float64],
    lung: npt.NDArray[np.bool_],
    spacing_mm: float,
) -> float:
    """Return the correlation of two slices over some pixels, each without its Gaussian mean there.

    The mean has a standard deviation of 2.5 mm. Between slices of a real chest CT the correlation
    falls to 0.07 within 3 mm.
    """
    details = [
        image - mean_inside(image, lung, DETAIL_MM / spacing_mm) for image in (first, second)
    ]
    return float(np.corrcoef(details[0][lung], details[1][lung])[0, 1])


def recorded_change(cohort: Cohort, row: int) -> Change:
    """Return what was drawn for a case, from its `sim_*` columns."""
    kind = SoberChange if isinstance(settings_of(cohort), SoberSettings) else Change
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: float(cohort.table[f"sim_{name}"].iloc[row]) for name in names})


def _lung(
    hu: npt.NDArray[np.int16], mask: npt.NDArray[np.uint8], spacing_mm: float
) -> npt.NDArray[np.bool_]:
    parts = tissues(hu.astype(float), mask > 0, spacing_mm, SecondSliceSettings())
    for inside, level_mm in parts:
        if level_mm is not None:
            return inside
    return np.zeros(hu.shape, dtype=bool)


def _nodules(table: pd.DataFrame) -> int:
    """Number of nodules: cases of the first replicate."""
    return int((table["sim_replicate"] == 0).sum())
