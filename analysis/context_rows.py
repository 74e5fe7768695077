"""Rows of a study's table that need no training: real images, plain predictors, ceilings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.study_contrasts import Basis, arm_mean, plain
from analysis.study_measures import Truth, measure, rank_once
from analysis.study_scores import TrialScores, select
from namd.statistics.intervals import patients_x_seeds
from namd.statistics.seeds import class_patients, seed_mean

SAMPLER = "ideal_sampler"


def plain_rows(
    references: Mapping[str, pd.DataFrame],
    table: pd.DataFrame,
    weights: npt.NDArray[np.float32],
    level: float,
) -> tuple[dict[str, Any], ...]:
    """Return AUROC and AUPRC of the rows without training that scored every one of the cases."""
    labels, ids = table["label"].to_numpy(int), table["case_id"]
    patients = class_patients(table["patient_id"].to_numpy(str), labels)
    rows = []
    for name, frame in references.items():
        values = frame["score"].reindex(ids).to_numpy(float)
        if not np.isfinite(values).all():
            continue
        row: dict[str, Any] = {"row": name}
        for metric, (value, replicates) in rank_once(values, labels, weights).items():
            mean = seed_mean(np.array([value]), replicates[None], patients)
            row[metric] = plain(patients_x_seeds(metric, mean, level))
        rows.append(row)
    return tuple(rows)


def sampler_rows(
    sampler: TrialScores | None, truth: Truth, weights: npt.NDArray[np.float32], basis: Basis
) -> tuple[dict[str, Any], ...]:
    """Return the ideal sampler's row, measured like an arm's; none if a case lacks its score.

    Args:
        sampler: Its scores; None if the cohort has no ideal sampler.
        truth: Of the cases in the basis.
        weights: Of resampled patients.
        basis: The cases, and how intervals are formed.
    """
    if sampler is None or basis.cases is None:
        return ()
    ids = basis.cases["case_id"].to_numpy(str)
    if not set(ids) <= set(sampler.case_ids):
        return ()
    ours = select(sampler, ids)
    if not np.isfinite(ours.score).all():
        return ()
    measured = measure([ours], truth, weights)
    alone = Basis(basis.view, {}, {SAMPLER: measured}, basis.num_patients, basis.level)
    row = {name: arm_mean(name, SAMPLER, alone) for name in measured}
    return ({"row": SAMPLER, "num_draws": len(ours.score), **row},)
