"""Stage `reference-<split>`: the rows of the table that need no training of a generator."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.data.schema import EHR_FEATURES
from namd.evaluate.scores import Scorer, SetMetrics, plain_scores, save_rows
from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import read_split
from namd.methods.shared.draws import evaluation_cases
from namd.methods.shared.scores import make_scorer

NUMBERS = ("SCT_LONG_DIA", "SCT_PERP_DIA", "age")
Row = tuple[pd.DataFrame, list[SetMetrics]]


def run(context: StageContext) -> Iterator[Step]:
    """Score real images and plain predictors; on simulated cohorts also the ideal predictor.

    Reads `judge`; writes `scores.parquet` with a column `row` and `sets.json`.
    """
    cohort = evaluation_cases(context)
    rows = _real_rows(cohort, make_scorer(context, cohort), context.settings.image.size)
    rows |= _predictor_rows(context, cohort)
    if "sim_p" in cohort.table:
        rows["ideal_predictor"] = (_plain(cohort, cohort.table["sim_p"].to_numpy()), [])
    save_rows(context.out, rows)
    yield Step(1, 1, {})


def _real_rows(cohort: Cohort, scorer: Scorer, size: int) -> dict[str, Row]:
    """Real baseline, real follow-up, and the baseline handed in as the follow-up.

    The copied baseline has the real baseline's probabilities; only it is compared with the
    follow-up as an image.
    """
    baseline = to_unit(centre_cut(cohort.baseline, size))
    followup = to_unit(centre_cut(np.asarray(cohort.followup), size))
    copied, sets = scorer.score(baseline)
    plain = copied.assign(ssim=np.nan, psnr=np.nan, lpips=np.nan)
    real, _ = scorer.score(followup, is_followup=True)
    return {
        "real_baseline": (plain, []),
        "real_followup": (real, []),
        "copied_baseline": (copied, [sets]),
    }


def _predictor_rows(context: StageContext, cohort: Cohort) -> dict[str, Row]:
    """Longest diameter alone, and logistic regression on the 13 features.

    A case without a longest diameter is scored with the evaluated cases' median.
    """
    diameters = cohort.table["SCT_LONG_DIA"].to_numpy(float)
    known = np.isfinite(diameters)
    rows: dict[str, Row] = {}
    if known.any():
        filled = np.where(known, diameters, np.median(diameters[known]))
        rows["longest_diameter"] = (_plain(cohort, filled), [])
    train = read_split(context.cohort, "train").table
    train = train[train["label"].notna()]
    if train["label"].nunique() == 2:
        model = ehr_model().fit(train[list(EHR_FEATURES)], train["label"].astype(int))
        probability = model.predict_proba(cohort.table[list(EHR_FEATURES)])[:, 1]
        rows["ehr_logistic_regression"] = (_plain(cohort, probability), [])
    else:
        context.warn("the train split lacks a class: no EHR logistic regression")
    return rows


def ehr_model() -> Pipeline:
    """Return the unfitted regression; a missing value is a category, or an indicator of its own."""
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    codes = make_pipeline(
        SimpleImputer(strategy="constant", fill_value=-1.0, keep_empty_features=True),
        OneHotEncoder(handle_unknown="ignore"),
    )
    coded = [name for name in EHR_FEATURES if name not in NUMBERS]
    columns = ColumnTransformer([("numbers", numbers, list(NUMBERS)), ("codes", codes, coded)])
    return make_pipeline(columns, LogisticRegression(max_iter=2000))


def _plain(cohort: Cohort, values: np.ndarray) -> pd.DataFrame:
    return plain_scores(cohort.table["case_id"].to_numpy(), values)
