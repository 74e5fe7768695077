"""The table of a study: arms with intervals and paired differences to the reference arm.

Read from the ledger and from the stored scores; the statistics are `namd.statistics`', and how a
table looks is `study_report`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.study_measures import RANKING, Measured, measure, rank_once, told
from analysis.study_scores import (
    TrialScores,
    aligned,
    completed,
    find_cases,
    reference_scores,
    trial_scores,
)
from namd.ledger.storage import Storage, open_storage
from namd.ledger.view import StudyView, TrialView, read_view
from namd.statistics.ranges import within_range
from namd.statistics.resampling import Estimate
from namd.statistics.seeds import SeedMean, arm_weights, class_patients, seed_mean
from namd.statistics.testing import delong, holm, sign_flip_floor, sign_flip_p

REFERENCE = "full"
CONFIRMATION = "confirm_p"
NUM_BOOTSTRAP = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class StudyTable:
    """What a study comes to.

    Attributes:
        study: Its name.
        question: What it asks.
        kind: `ablation` or `search`.
        split: Evaluated split.
        primary: The metric that it is about.
        metrics: Metrics of the rows, the primary one first.
        rows: One mapping per arm (of a search: per confirmed winner), JSON-able.
        cases, patients, malignant: On which every row is measured; None without stored scores.
        num_draws: K; None without stored scores.
        simulated: Whether labels or follow-ups are simulated; None where no cohort was found.
        level: Central share of the intervals.
        num_bootstrap: Resamples of patients.
        notes: What a reader must know.
        context: Rows that need no training, on the same cases: row, auroc, auprc.
    """

    study: str
    question: str
    kind: str
    split: str
    primary: str
    metrics: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    cases: int | None = None
    patients: int | None = None
    malignant: int | None = None
    num_draws: int | None = None
    simulated: bool | None = None
    level: float = LEVEL
    num_bootstrap: int = NUM_BOOTSTRAP
    notes: tuple[str, ...] = ()
    context: tuple[dict[str, Any], ...] = ()

    def row(self, arm: str) -> dict[str, Any]:
        """Return the row of an arm. Raises KeyError where there is none."""
        for row in self.rows:
            if row["arm"] == arm:
                return row
        raise KeyError(f"no arm {arm} among {', '.join(row['arm'] for row in self.rows)}")


@dataclass(frozen=True)
class _Basis:
    """All that the rows of one study are formed from."""

    view: StudyView
    arms: Mapping[str, Mapping[int, TrialView]]
    measured: Mapping[str, Mapping[str, Measured]]
    num_patients: int
    level: float
    cases: pd.DataFrame | None = None
    scores: Mapping[str, Sequence[TrialScores]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    simulated: bool | None = None
    context: tuple[dict[str, Any], ...] = ()


def arm_rows(store: str, study: str, cohort: Path | None = None) -> list[dict[str, Any]]:
    """Return the arms of a study (of a search: its confirmed winners), JSON-able.

    Args:
        store: Folder or URL.
        study: Its name.
        cohort: Where the cases lie; None: where the ledger says.
    """
    storage = open_storage(store)
    return list(study_table(storage, read_view(storage, study), cohort).rows)


def study_table(storage: Storage, view: StudyView, cohort: Path | None = None) -> StudyTable:
    """Return the table of a study as far as it has come."""
    evaluate = view.specification.get("evaluate") or {}
    settings = view.configuration.get("evaluate") or {}
    kind = "search" if view.specification.get("search") else "ablation"
    split = str(settings.get("split") or evaluate.get("split") or "test")
    level = float(settings.get("interval", LEVEL))
    num_bootstrap = int(settings.get("num_bootstrap", NUM_BOOTSTRAP))
    basis = _basis(storage, view, kind, split, cohort, num_bootstrap, level)
    primary = str(evaluate.get("primary") or "auroc")
    metrics = _metrics(primary, evaluate.get("secondary") or (), basis.measured)
    rows = [_row(arm, basis, primary, metrics) for arm in basis.arms]
    _correct(rows, metrics)
    about: dict[str, Any] = {}
    if basis.cases is not None:
        about = {
            "cases": len(basis.cases),
            "patients": int(basis.cases["patient_id"].nunique()),
            "malignant": int((basis.cases["label"] == 1).sum()),
            "num_draws": max(len(t.score) for arm in basis.scores.values() for t in arm),
        }
    return StudyTable(
        study=view.study,
        question=str(view.specification.get("question", "")),
        kind=kind,
        split=split,
        primary=primary,
        metrics=metrics,
        rows=tuple(rows),
        simulated=basis.simulated,
        level=level,
        num_bootstrap=num_bootstrap,
        notes=_notes(view, rows, basis, kind),
        context=basis.context,
        **about,
    )


def arm_names(view: StudyView, kind: str) -> list[str]:
    """Return the arms in the order in which they were queued, the reference first."""
    found = dict.fromkeys(str(t.body.get("arm") or "") for t in view.trials.values())
    names = [name for name in found if name and (kind == "ablation" or CONFIRMATION in name)]
    return sorted(names, key=lambda name: name != REFERENCE)


def _basis(
    storage: Storage,
    view: StudyView,
    kind: str,
    split: str,
    cohort: Path | None,
    num_bootstrap: int,
    level: float,
) -> _Basis:
    """Read every arm's scores; where they or the cohort are missing, the ledger's own values."""
    arms = {arm: completed(view, arm) for arm in arm_names(view, kind)}
    read = {
        arm: [trial_scores(storage, trial, split) for trial in trials.values()]
        for arm, trials in arms.items()
    }
    missing = sum(scores is None for found in read.values() for scores in found)
    scores = {a: [s for s in found if s is not None] for a, found in read.items()}
    everything = [trial for found in scores.values() for trial in found]
    notes: list[str] = []
    ids = (str(case) for trial in everything for case in trial.case_ids)
    cases = find_cases(storage, view, ids, split, cohort)
    if missing:
        notes.append(f"{missing} completed trials have no scores in the store (any more)")
    if everything and cases is None:
        notes.append("no cohort with the scored cases was found: name it with --cohort")
    if missing or cases is None or not everything:
        if any(arms.values()):
            notes.append("values are those of the ledger; no interval over patients")
        simulated = None if cases is None else cases.simulated
        values = {arm: told(trials) for arm, trials in arms.items()}
        return _Basis(view, arms, values, 0, level, notes=tuple(notes), simulated=simulated)
    table, trials, left_out = aligned(everything, cases)
    if left_out:
        notes.append(f"{left_out} cases without label or without a score in every trial left out")
    rest = iter(trials)
    scores = {arm: [next(rest) for _ in found] for arm, found in scores.items()}
    labels = table["label"].to_numpy(int)
    if min((labels == 0).sum(), (labels == 1).sum()) == 0:
        notes.append("one class only among the evaluated cases: nothing can be ranked")
        return _Basis(view, arms, {a: {} for a in arms}, 0, level, table, scores, tuple(notes))
    patients = table["patient_id"].to_numpy(str)
    seed = int((view.configuration.get("evaluate") or {}).get("bootstrap_seed", 0))
    weights = arm_weights(patients, labels, num_bootstrap, seed)
    return _Basis(
        view=view,
        arms=arms,
        measured={arm: measure(found, labels, weights) for arm, found in scores.items()},
        num_patients=class_patients(patients, labels),
        level=level,
        cases=table,
        scores=scores,
        notes=tuple(notes),
        simulated=cases.simulated,
        context=_context(storage, arms, split, table, weights, level),
    )


def _context(
    storage: Storage,
    arms: Mapping[str, Mapping[int, TrialView]],
    split: str,
    table: pd.DataFrame,
    weights: npt.NDArray[np.float32],
    level: float,
) -> tuple[dict[str, Any], ...]:
    """Return AUROC and AUPRC of the rows without training that scored every one of the cases."""
    trial = next((trial for trials in arms.values() for trial in trials.values()), None)
    found = {} if trial is None else reference_scores(storage, trial, split)
    labels, ids = table["label"].to_numpy(int), table["case_id"]
    patients = class_patients(table["patient_id"].to_numpy(str), labels)
    rows = []
    for name, scores in found.items():
        values = scores.reindex(ids).to_numpy(float)
        if not np.isfinite(values).all():
            continue
        row: dict[str, Any] = {"row": name}
        for metric, (value, replicates) in rank_once(values, labels, weights).items():
            mean = seed_mean(np.array([value]), replicates[None], patients)
            row[metric] = _plain(mean.logit_interval(level))
        rows.append(row)
    return tuple(rows)


def _metrics(
    primary: str, secondary: Sequence[str], measured: Mapping[str, Mapping[str, Measured]]
) -> tuple[str, ...]:
    """Return the metrics in the order of the study file, then what else was measured."""
    known = dict.fromkeys(name for arm in measured.values() for name in arm)
    return tuple(dict.fromkeys([primary, *secondary, *known]))


def _row(arm: str, basis: _Basis, primary: str, metrics: Sequence[str]) -> dict[str, Any]:
    own = basis.measured.get(arm, {})
    planned = [t for t in basis.view.trials.values() if t.body.get("arm") == arm]
    states = {state: sum(t.state == state for t in planned) for state in {t.state for t in planned}}
    row: dict[str, Any] = {
        "arm": arm,
        "overrides": dict(planned[0].body.get("overrides") or {}),
        "seeds": len(basis.arms[arm]),
        "seeds_planned": len(planned),
        "states": states,
        "finished": len(basis.arms[arm]) == len(planned),
    }
    for name in metrics:
        row[name] = _mean(name, own.get(name), basis)
    differences = {}
    if arm != REFERENCE and REFERENCE in basis.arms:
        reference = basis.measured.get(REFERENCE, {})
        for name in metrics:
            if name in own and name in reference:
                differences[name] = _difference(name, arm, own[name], reference[name], basis)
            else:
                differences[name] = None
    row["differences"] = differences
    row["difference"] = differences.get(primary)
    return row


def _mean(name: str, measured: Measured | None, basis: _Basis) -> dict[str, Any] | None:
    if measured is None or not len(measured.values):
        return None
    estimate = _estimate(measured, basis)
    bounded = name in RANKING
    interval = estimate.logit_interval(basis.level) if bounded else estimate.interval(basis.level)
    low, high = within_range(name, interval.low), within_range(name, interval.high)
    return _plain(Estimate(interval.value, low, high)) | {
        "std": float(measured.values.std(ddof=1)) if len(measured.values) > 1 else None,
        "per_seed": _per_seed(measured.seeds, measured.values),
    }


def _difference(
    name: str, arm: str, own: Measured, reference: Measured, basis: _Basis
) -> dict[str, Any] | None:
    """Return arm minus reference at the seeds that both have."""
    seeds = [seed for seed in own.seeds if seed in reference.seeds]
    if not seeds:
        return None
    ours, theirs = own.at(seeds), reference.at(seeds)
    replicates = None
    if ours.replicates is not None and theirs.replicates is not None:
        replicates = ours.replicates - theirs.replicates
    measured = Measured(tuple(seeds), ours.values - theirs.values, replicates)
    estimate = _estimate(measured, basis)
    p, method = estimate.p_value(), "t, patients resampled, training seeds as a random factor"
    if len(seeds) == 1:
        method = "t, patients resampled; training seeds not varied"
    if replicates is None:
        method = "t over training seeds only"
    found = _plain(estimate.interval(basis.level)) | {
        "p_method": method,
        "seeds": len(seeds),
        "per_seed": _per_seed(seeds, measured.values),
        "sign_flip": {"p": sign_flip_p(measured.values), "floor": sign_flip_floor(len(seeds))},
    }
    if len(seeds) == 1 and name == "auroc" and basis.cases is not None:
        p, extra = _delong(arm, seeds[0], basis, p)
        found |= extra
    return found | {"p": _finite(p), "p_holm": None}


def _delong(arm: str, seed: int, basis: _Basis, p: float) -> tuple[float, dict[str, Any]]:
    """DeLong's test of one pair of models; its p counts where every case is another patient."""
    assert basis.cases is not None, "asked only where there are scores"
    scores = {
        name: next(t for t in basis.scores[name] if t.seed == seed).score.mean(axis=0)
        for name in (arm, REFERENCE)
    }
    labels = basis.cases["label"].to_numpy(int)
    if min((labels == 0).sum(), (labels == 1).sum()) < 2:
        return p, {}
    test = delong(labels, scores[arm], scores[REFERENCE], basis.level)
    shown = {"p": test.p_value, "low": test.low, "high": test.high, "z": _finite(test.z)}
    if basis.cases["patient_id"].is_unique:
        return test.p_value, {"delong": shown, "p_method": "DeLong, one pair of models"}
    return p, {"delong": shown}


def _estimate(measured: Measured, basis: _Basis) -> SeedMean:
    """Return the mean over seeds; without resamples seeds alone give the error."""
    if measured.replicates is not None:
        return seed_mean(measured.values, measured.replicates, basis.num_patients)
    if len(measured.values) < 2:
        return SeedMean(float(measured.values.mean()), measured.values, np.nan, np.nan)
    error = float(measured.values.std(ddof=1)) / np.sqrt(len(measured.values))
    freedom = float(len(measured.values) - 1)
    return SeedMean(float(measured.values.mean()), measured.values, float(error), freedom)


def _correct(rows: Sequence[dict[str, Any]], metrics: Sequence[str]) -> None:
    """Write Holm's p into the rows: one family per metric, its size all declared comparisons.

    A comparison that is not there yet counts as one with p = 1, so that what is shown of an
    unfinished study cannot become less strict later.
    """
    compared = [row for row in rows if row["arm"] != REFERENCE]
    for name in metrics:
        found = [row["differences"].get(name) for row in compared]
        p = [1.0 if d is None or d["p"] is None else float(d["p"]) for d in found]
        if not p:
            continue
        for difference, adjusted in zip(found, holm(np.array(p)), strict=True):
            if difference is not None and difference["p"] is not None:
                difference["p_holm"] = float(adjusted)


def _notes(
    view: StudyView, rows: Sequence[Mapping[str, Any]], basis: _Basis, kind: str
) -> tuple[str, ...]:
    notes = list(basis.notes)
    for row in rows:
        if not row["finished"]:
            states = ", ".join(f"{n} {state}" for state, n in sorted(row["states"].items()))
            notes.append(f"arm {row['arm']} is not finished: {states}")
    if kind == "ablation" and rows and not any(row["arm"] == REFERENCE for row in rows):
        notes.append(f"no arm is called {REFERENCE}: nothing to compare with")
    seeds = max((row["seeds"] for row in rows), default=0)
    if seeds == 1:
        notes.append(
            "one training seed: intervals speak of these trained models, not of the method"
        )
    if seeds > 1 and kind == "ablation":
        floor = sign_flip_floor(seeds)
        notes.append(
            f"{seeds} training seeds: an exact sign-flip test over seeds cannot give less than "
            f"p = {floor:.4g}" + (", so it can never reach 0.05" if floor > 0.05 else "")
        )
    if seeds == 2:
        notes.append(
            "two training seeds: in simulations such intervals held the truth in 90%, not 95%"
        )
    if not view.ended:
        notes.append("the study is not closed: more may follow")
    return tuple(notes)


def _plain(interval: Estimate) -> dict[str, float | None]:
    found = interval.to_mapping()
    return {"mean": found["value"], "low": found["low"], "high": found["high"]}


def _per_seed(seeds: Sequence[int], values: npt.NDArray[np.floating]) -> dict[str, float]:
    return {str(seed): float(value) for seed, value in zip(seeds, values, strict=True)}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
