"""From score frames to the rows of a result table: every row on the same cases and resamples.

How a table looks is `rendering`'s; nothing here touches an image or a network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from namd.evaluate.calibration import (
    DiameterCalibration,
    QuintileMean,
    diameter_calibration,
    quintile_means,
)
from namd.evaluate.copies import NearestTrain, nearest_train
from namd.evaluate.ideal_share import ShareOfIdeal, share_of_ideal
from namd.evaluate.ranking import METRICS, Ranked, Ranking, rank
from namd.evaluate.scores import SetMetrics
from namd.evaluate.settings import BASELINE, FOLLOWUP, IDEAL, PREDICTOR, EvaluateSettings
from namd.statistics.intervals import PATIENT_BOOTSTRAP, PATIENTS_X_JUDGES
from namd.statistics.metrics import IMAGE_METRICS, SET_METRICS

TITLES = {
    BASELINE: "real baseline",
    FOLLOWUP: "real follow-up",
    "copied_baseline": "baseline copied as follow-up",
    "longest_diameter": "longest diameter alone",
    "ehr_logistic_regression": "EHR logistic regression",
    PREDICTOR: "ideal predictor (p itself)",
    IDEAL: "ideal sampler",
    "reconstruction": "reconstructed follow-up",
}


@dataclass(frozen=True)
class RowScores:
    """One row's input.

    Attributes:
        frame: Score frame, one line per (case_id, k).
        sets: Set metrics per draw; empty where the row has none.
        title: What people read; None: from the row's name.
        further: Score frames of further judges; empty for a row that no judge scores.
        nearest: Distances to the train crops, one line per (case_id, k); None: not measured.
    """

    frame: pd.DataFrame
    sets: Sequence[SetMetrics] = ()
    title: str | None = None
    further: Sequence[pd.DataFrame] = ()
    nearest: pd.DataFrame | None = None


@dataclass(frozen=True)
class Spread:
    """A metric with its interval, and its spread over draws if it is of single draws.

    Attributes:
        mean: Its value; of single draws the mean over them.
        std: Of the draws, ddof 1; None for a single draw, or for the mean over draws.
        std_population: The same with ddof 0 (the released code's).
        low: Of the interval over patients, crossed with draws, and over judges if several.
        high: Likewise.
    """

    mean: float | None
    std: float | None
    std_population: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Row:
    """One row of the table; what could not be measured is None.

    Attributes:
        row: Name.
        title: For people.
        num_draws: K of this row.
        auroc: Of the probability averaged over draws, which has no spread.
        auprc: Likewise.
        auroc_per_draw: Of each draw, averaged over draws, as in the paper.
        auprc_per_draw: Likewise.
        difference_to_baseline: Paired differences to the real baseline, per metric: value, low,
            high.
        gap_recovered: Share of real follow-up minus real baseline, by `auroc`.
        gap_recovered_per_draw: Likewise by `auroc_per_draw`.
        share_of_ideal: On simulated cohorts.
        mean_probability: Of the judge, over cases and draws.
        copies: Share of the draws that are as near a train crop as copies.
        nearest_train: The same with its interval, and the distances.
        diameter: Calibration of the drawn diameters.
        quintiles: Mean judge probability per quintile of the simulation's p.
        lpips, ssim, psnr, fid, kid, fid_judge, kid_judge: Means over draws, against the real
            follow-up.
        image_metrics_std: Their standard deviations over draws (ddof 1).
    """

    row: str
    title: str
    num_draws: int
    auroc: Spread
    auprc: Spread
    auroc_per_draw: Spread
    auprc_per_draw: Spread
    difference_to_baseline: dict[str, dict[str, float | None]] | None = None
    gap_recovered: float | None = None
    gap_recovered_per_draw: float | None = None
    share_of_ideal: ShareOfIdeal | None = None
    mean_probability: float | None = None
    copies: float | None = None
    nearest_train: NearestTrain | None = None
    diameter: DiameterCalibration | None = None
    quintiles: tuple[QuintileMean, ...] | None = None
    lpips: float | None = None
    ssim: float | None = None
    psnr: float | None = None
    fid: float | None = None
    kid: float | None = None
    fid_judge: float | None = None
    kid_judge: float | None = None
    image_metrics_std: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultTable:
    """All rows, and on what they were measured.

    Attributes:
        rows: In the order given.
        split: Evaluated split.
        cases: Cases of known label that every row scored; the AUROCs are over these.
        patients: Of these.
        malignant: Of these.
        simulated: Whether the follow-ups and labels are simulated.
        interval: How the intervals are formed.
        level: Central share of the intervals.
        num_bootstrap: Resamples of patients.
        notes: What a reader must know.
        law: That the cohort was simulated under; None if it was not, or does not say.
        deviation: Which deviation over draws is shown: `sample` (ddof 1) or `population` (0).
    """

    rows: tuple[Row, ...]
    split: str
    cases: int
    patients: int
    malignant: int
    simulated: bool
    interval: str
    level: float
    num_bootstrap: int
    notes: tuple[str, ...] = ()
    law: str | None = None
    deviation: str = "sample"

    def row(self, name: str) -> Row:
        """Return the row of a name. Raises KeyError if there is none."""
        for row in self.rows:
            if row.row == name:
                return row
        raise KeyError(f"no row {name} among {', '.join(row.row for row in self.rows)}")

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON types."""
        plain: dict[str, Any] = asdict(self)
        plain["rows"] = list(plain["rows"])
        plain["notes"] = list(plain["notes"])
        for row in plain["rows"]:
            row["quintiles"] = None if row["quintiles"] is None else list(row["quintiles"])
            if (share := row["share_of_ideal"]) is not None:
                share["by_draws"] = list(share["by_draws"])
        return plain


def build_table(
    rows: Mapping[str, RowScores],
    cases: pd.DataFrame,
    settings: EvaluateSettings,
    *,
    simulated: bool,
    law: str | None = None,
) -> ResultTable:
    """Return the table of some rows over the evaluated cases.

    Args:
        rows: By name, in the order to be shown; `real_baseline`, `real_followup` and
            `ideal_sampler` serve the others as references where they are present.
        cases: The cohort's table of the evaluated cases: case_id, patient_id, label and, where
            known, followup_SCT_LONG_DIA and sim_p.
        settings: Intervals and their resamples.
        simulated: Whether labels and follow-ups are simulated.
        law: Under which law.
    """
    cases = cases.reset_index(drop=True)
    scores = {name: _matrix(row.frame, "score", cases) for name, row in rows.items()}
    ranked = _ranked_cases(scores, cases)
    further = _further_scores(rows, cases)
    for own in further:
        ranked = ranked & _ranked_cases(own, cases)
    ranking = rank(
        {name: s[:, ranked] for name, s in scores.items()},
        cases[ranked],
        settings,
        [{name: s[:, ranked] for name, s in own.items()} for own in further],
    )
    found = tuple(
        _with_images(_ranking_row(name, row, ranking), row, rows, cases, settings)
        for name, row in rows.items()
    )
    labels = cases["label"][ranked]
    return ResultTable(
        rows=found,
        split=settings.split,
        cases=int(ranked.sum()),
        patients=int(cases["patient_id"][ranked].nunique()),
        malignant=int((labels == 1).sum()),
        simulated=simulated,
        interval=PATIENTS_X_JUDGES if further else PATIENT_BOOTSTRAP,
        level=settings.interval,
        num_bootstrap=settings.num_bootstrap,
        notes=_notes(found, labels, len(cases) - int(ranked.sum()), settings, 1 + len(further)),
        law=law,
        deviation=settings.deviation,
    )


def _further_scores(
    rows: Mapping[str, RowScores], cases: pd.DataFrame
) -> list[dict[str, np.ndarray]]:
    """Return the scores of each further judge, by row."""
    count = max((len(row.further) for row in rows.values()), default=0)
    return [
        {
            name: _matrix(row.further[judge], "score", cases)
            for name, row in rows.items()
            if judge < len(row.further)
        }
        for judge in range(count)
    ]


def _ranked_cases(scores: Mapping[str, np.ndarray], cases: pd.DataFrame) -> np.ndarray:
    """Which cases have a label and a score in every row: rows compare on the same cases only."""
    ranked = cases["label"].isin((0, 1)).to_numpy()
    for values in scores.values():
        ranked = ranked & np.isfinite(values).all(axis=0)
    return np.asarray(ranked)


def _matrix(frame: pd.DataFrame, column: str, cases: pd.DataFrame) -> np.ndarray:
    """A column of a score frame as (K, N), in the order of the cases; NaN where absent."""
    wide = frame.pivot(index="k", columns="case_id", values=column).sort_index()
    return wide.reindex(columns=cases["case_id"]).to_numpy(float)


def _ranking_row(name: str, row: RowScores, ranking: Ranking) -> Row:
    """The parts of a row that rank cases."""
    title = row.title or TITLES.get(name, name)
    num_draws = int(row.frame["k"].nunique())
    own = ranking.rows.get(name)
    if own is None:
        nothing = Spread(None, None, None, None, None)
        return Row(name, title, num_draws, nothing, nothing, nothing, nothing)
    level = ranking.settings.interval
    found = Row(
        row=name,
        title=title,
        num_draws=num_draws,
        auroc=_of_mean(own, "auroc", level),
        auprc=_of_mean(own, "auprc", level),
        auroc_per_draw=_spread(own, "auroc", level),
        auprc_per_draw=_spread(own, "auprc", level),
    )
    return _with_references(found, own, ranking)


def _spread(own: Ranked, metric: str, level: float) -> Spread:
    values = own.per_draw[metric]
    several = len(values) > 1
    bounds = own.interval(f"{metric}_per_draw", level).to_mapping()
    return Spread(
        mean=bounds["value"],
        std=float(values.std(ddof=1)) if several else None,
        std_population=float(values.std()) if several else None,
        low=bounds["low"],
        high=bounds["high"],
    )


def _of_mean(own: Ranked, metric: str, level: float) -> Spread:
    bounds = own.interval(metric, level).to_mapping()
    return Spread(bounds["value"], None, None, bounds["low"], bounds["high"])


def _with_references(found: Row, own: Ranked, ranking: Ranking) -> Row:
    """Add the paired differences to real baseline, real follow-up and ideal sampler."""
    level = ranking.settings.interval
    baseline = ranking.rows.get(BASELINE)
    if baseline is None:
        return found
    differences = {}
    for name in METRICS:
        for metric in (name, f"{name}_per_draw"):
            differences[metric] = own.difference(baseline, metric, level)
    found = replace(
        found, difference_to_baseline={name: d.to_mapping() for name, d in differences.items()}
    )
    followup, ideal = ranking.rows.get(FOLLOWUP), ranking.rows.get(IDEAL)
    gain = differences["auroc"]
    if followup is not None:
        gap = followup.of_mean["auroc"] - baseline.of_mean["auroc"]
        found = replace(
            found,
            gap_recovered=_ratio(gain.value, gap),
            gap_recovered_per_draw=_ratio(differences["auroc_per_draw"].value, gap),
        )
    if ideal is not None:
        predictor = ranking.rows.get(PREDICTOR)
        share = share_of_ideal(
            own.at_draws,
            ideal.at_draws,
            baseline.at_draws[1],
            None if predictor is None else predictor.at_draws[1],
            level,
            own.num_patients,
        )
        found = replace(found, share_of_ideal=share)
    return found


def _ratio(part: float, whole: float) -> float | None:
    return None if whole == 0 else part / whole


def _with_images(
    found: Row,
    row: RowScores,
    rows: Mapping[str, RowScores],
    cases: pd.DataFrame,
    settings: EvaluateSettings,
) -> Row:
    """Add image metrics and the calibration of drawn diameters and probabilities."""
    means, deviations = _image_metrics(row)
    found = replace(found, **means, image_metrics_std=deviations)  # type: ignore[arg-type]
    if row.nearest is not None and (real := rows.get(FOLLOWUP)) and real.nearest is not None:
        near = nearest_train(row.nearest, real.nearest, cases, settings)
        copies = None if near is None else near.copies["value"]
        found = replace(found, copies=copies, nearest_train=near)
    probability = _matrix(row.frame, "probability", cases)
    if not np.isfinite(probability).any():
        return found
    found = replace(found, mean_probability=float(np.nanmean(probability)))
    if "sim_p" in cases:
        ideal = rows.get(IDEAL)
        other = None if ideal is None else _matrix(ideal.frame, "probability", cases)
        means_by_p = quintile_means(cases["sim_p"].to_numpy(float), probability, other)
        found = replace(found, quintiles=means_by_p)
    if FOLLOWUP in rows and found.row != FOLLOWUP:
        measured = _matrix(rows[FOLLOWUP].frame, "diameter_mm", cases)[0]
        drawn = _matrix(row.frame, "diameter_mm", cases).T
        found = replace(found, diameter=diameter_calibration(drawn, measured, cases, settings))
    return found


def _image_metrics(row: RowScores) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Means and standard deviations over draws of the per-image and the set metrics."""
    by_draw = row.frame.groupby("k")[list(IMAGE_METRICS)].mean()
    values = {name: by_draw[name].to_numpy(float) for name in IMAGE_METRICS}
    for name in SET_METRICS:
        known = [getattr(entry, name) for entry in row.sets]
        values[name] = np.array([np.nan if v is None else v for v in known], float)
    means: dict[str, float | None] = {}
    deviations: dict[str, float | None] = {}
    for name, measured in values.items():
        per_draw = measured[np.isfinite(measured)]
        means[name] = float(per_draw.mean()) if len(per_draw) else None
        deviations[name] = float(per_draw.std(ddof=1)) if len(per_draw) > 1 else None
    return means, deviations


def _notes(
    rows: Sequence[Row],
    labels: pd.Series,
    left_out: int,
    settings: EvaluateSettings,
    num_judges: int,
) -> tuple[str, ...]:
    notes = []
    if num_judges > 1:
        notes.append(
            f"AUROC and AUPRC are means over {num_judges} judges of other seeds; mean probability, "
            "quintiles and distances of judge features are the first one's"
        )
    if settings.ensemble == "logit":
        notes.append("the mean over draws is that of the judge's logits")
    if labels.nunique() < 2:
        notes.append("one class only among the evaluated cases: no AUROC, no AUPRC")
    if left_out:
        notes.append(f"{left_out} cases without label or without a score in every row left out")
    compared = [row for row in rows if row.fid_judge is not None]
    if compared and all(row.lpips is None for row in compared):
        notes.append("LPIPS: AlexNet's trunk is not on disk, or lpips is off")
    if compared and all(row.fid is None for row in compared):
        notes.append("FID, KID: Inception's weights are not on disk, or fid is off")
    if any(row.fid is not None for row in compared):
        notes.append("FID is biased upwards at this number of cases")
    near = next((row.nearest_train for row in rows if row.nearest_train), None)
    if near is not None:
        notes.append(
            "copies: share of images as near a train crop of another patient as the nearest 1% of "
            f"{near.real_cases} real follow-ups (cf. Dar et al. 2025)"
        )
    return tuple(notes)
