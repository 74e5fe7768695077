"""The table of a study: arms with intervals and paired differences to the reference arm.

Read from the ledger and from the stored scores; `namd.statistics` has the statistics, and
`study_report` the layout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.context_rows import plain_rows, sampler_rows
from analysis.study_contrasts import Basis, adjust, arm_mean, contrast
from analysis.study_effects import REFERENCE, Effect, Effects, design_effects, reference_arm
from analysis.study_measures import Measured, Truth, measure, recorded
from analysis.study_scores import (
    DIAMETER,
    FOLLOWUP,
    Cases,
    TrialScores,
    aligned,
    completed,
    find_cases,
    ideal_scores,
    reference_rows,
    trial_scores,
)
from namd.ledger.schema import CONFIRM
from namd.ledger.view import StudyView, TrialView, read_view
from namd.statistics.ensembles import Ensemble
from namd.statistics.intervals import PATIENTS_X_SEEDS, PATIENTS_X_SEEDS_X_JUDGES
from namd.statistics.seeds import arm_weights, class_patients
from namd.statistics.testing import sign_flip_floor
from namd.storage.base import Storage
from namd.storage.opening import open_storage

NUM_BOOTSTRAP = 2000
LEVEL = 0.95
AS_RECORDED = ("gap_recovered", "gap_recovered_per_draw", "copies")
"""Metrics of whole runs, which no scores of cases repeat."""


@dataclass(frozen=True)
class StudyTable:
    """The results of a study.

    Attributes:
        study: Its name.
        question: Its question.
        kind: `ablation` or `search`.
        split: Evaluated split.
        primary: Its primary metric.
        metrics: Metrics of the rows, the primary one first.
        rows: One mapping per arm (in a search: per confirmed winner), JSON-able.
        cases, patients, malignant: Counts behind every row; None without stored scores.
        num_draws: K; None without stored scores.
        simulated: Whether labels or follow-ups are simulated; None if no cohort was found.
        law: The law of the simulation; None if it is not known.
        level: Central share of the intervals.
        num_bootstrap: Resamples of patients.
        notes: Remarks for the reader.
        context: Rows that need no training, on the same cases: row, auroc, auprc.
        design: The design of the effects; None if it has none.
        effects: One mapping per effect of a toggle and per interaction of two, JSON-able.
        reference: The arm that the others are compared with.
        deviation: Of what a deviation over draws is: a `sample` (ddof 1) or the `population` (0).
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
    law: str | None = None
    level: float = LEVEL
    num_bootstrap: int = NUM_BOOTSTRAP
    notes: tuple[str, ...] = ()
    context: tuple[dict[str, Any], ...] = ()
    design: Effects | None = None
    effects: tuple[dict[str, Any], ...] = ()
    reference: str = REFERENCE
    deviation: str = "sample"

    def row(self, arm: str) -> dict[str, Any]:
        """Return the row of an arm. Raises KeyError if there is none."""
        for row in self.rows:
            if row["arm"] == arm:
                return row
        raise KeyError(f"no arm {arm} among {', '.join(row['arm'] for row in self.rows)}")

    def effect(self, name: str) -> dict[str, Any]:
        """Return an effect by name. Raises KeyError if there is none."""
        for effect in self.effects:
            if effect["effect"] == name:
                return effect
        raise KeyError(f"no effect {name} among {', '.join(e['effect'] for e in self.effects)}")


def arm_rows(store: str, study: str, cohort: Path | None = None) -> list[dict[str, Any]]:
    """Return the arms of a study (in a search: its confirmed winners), JSON-able.

    Args:
        store: Folder or URL.
        study: Its name.
        cohort: The cohort's folder; None: the one in the ledger.
    """
    storage = open_storage(store)
    return list(study_table(storage, read_view(storage, study), cohort).rows)


def study_table(storage: Storage, view: StudyView, cohort: Path | None = None) -> StudyTable:
    """Return the table of a study, finished or not."""
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
    reference = reference_arm(view)
    compared = [row["differences"] for row in rows if row["arm"] != reference]
    design = design_effects(view) if kind == "ablation" else None
    effects = [
        _effect(found, basis, primary, metrics) for found in (design.effects if design else ())
    ]
    for family in (compared, [effect["estimates"] for effect in effects]):
        for name in metrics:
            adjust([found.get(name) for found in family])
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
        law=basis.law,
        level=level,
        num_bootstrap=num_bootstrap,
        notes=_notes(view, rows, basis, kind),
        context=basis.context,
        design=design,
        effects=tuple(effects),
        reference=reference,
        deviation=str(settings.get("deviation", "sample")),
        **about,
    )


def arm_names(view: StudyView, kind: str) -> list[str]:
    """Return the arms in the order in which they were queued, the reference first."""
    found = dict.fromkeys(t.arm for t in view.trials.values())
    names = [name for name in found if name and (kind == "ablation" or CONFIRM in name)]
    reference = reference_arm(view)
    return sorted(names, key=lambda name: name != reference)


def _basis(
    storage: Storage,
    view: StudyView,
    kind: str,
    split: str,
    cohort: Path | None,
    num_bootstrap: int,
    level: float,
) -> Basis:
    """Read every arm's scores; if they or the cohort are missing, the ledger's own values."""
    arms = {arm: completed(view, arm) for arm in arm_names(view, kind)}
    settings = view.configuration.get("evaluate") or {}
    scores, missing = _stored_scores(storage, arms, split, settings.get("ensemble", "probability"))
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
        return _ledgers_own(view, arms, level, cases, notes)
    table, trials, left_out = aligned(everything, cases)
    if left_out:
        notes.append(f"{left_out} cases without label or without a score in every trial left out")
    rest = iter(trials)
    scores = {arm: [next(rest) for _ in found] for arm, found in scores.items()}
    labels = table["label"].to_numpy(int)
    if min((labels == 0).sum(), (labels == 1).sum()) == 0:
        notes.append("one class only among the evaluated cases: nothing can be ranked")
        return Basis(view, arms, {a: {} for a in arms}, 0, level, table, scores, tuple(notes))
    patients = table["patient_id"].to_numpy(str)
    num_patients = class_patients(patients, labels)
    if num_patients == 1:
        notes.append(
            "all cases of one class are one patient's: AUROC and AUPRC have neither intervals nor p"
        )
    weights = arm_weights(patients, labels, num_bootstrap, int(settings.get("bootstrap_seed", 0)))
    first = next(trial for trials in arms.values() for trial in trials.values())
    references = reference_rows(storage, first, split)
    truth = _truth(table, references, settings)
    basis = Basis(
        view=view,
        arms=arms,
        measured={a: _measured(found, arms[a], truth, weights) for a, found in scores.items()},
        num_patients=num_patients,
        level=level,
        cases=table,
        scores=scores,
        notes=tuple(notes),
        simulated=cases.simulated,
        law=cases.law,
    )
    sampler = ideal_scores(storage, first, split, settings.get("ensemble", "probability"))
    context = plain_rows(references, table, weights, level)
    return replace(basis, context=(*context, *sampler_rows(sampler, truth, weights, basis)))


def _ledgers_own(
    view: StudyView,
    arms: Mapping[str, Mapping[int, TrialView]],
    level: float,
    cases: Cases | None,
    notes: Sequence[str],
) -> Basis:
    """Return the metrics that the ledger recorded, without scores of cases."""
    simulated, law = (None, None) if cases is None else (cases.simulated, cases.law)
    values = {arm: recorded(trials) for arm, trials in arms.items()}
    return Basis(view, arms, values, 0, level, notes=tuple(notes), simulated=simulated, law=law)


def _truth(
    table: pd.DataFrame, references: Mapping[str, pd.DataFrame], settings: Mapping[str, Any]
) -> Truth:
    """Return what draws are held against: labels, and diameters measured on real follow-ups."""
    followup = references.get(FOLLOWUP)
    diameters = None
    if followup is not None and DIAMETER in followup:
        diameters = followup[DIAMETER].reindex(table["case_id"]).to_numpy(float)
    return Truth(
        table["label"].to_numpy(int),
        diameters,
        float(settings.get("coverage", 0.9)),
        0 if settings.get("deviation") == "population" else 1,
    )


def _measured(
    scores: Sequence[TrialScores],
    trials: Mapping[int, TrialView],
    truth: Truth,
    weights: npt.NDArray[np.float32],
) -> dict[str, Measured]:
    """Measure an arm, and add the metrics that each of its runs recorded of itself."""
    measured, known = measure(scores, truth, weights), recorded(trials)
    added = {name: known[name] for name in AS_RECORDED if name in known and measured}
    return {**measured, **added}


def _stored_scores(
    storage: Storage, arms: Mapping[str, Mapping[int, TrialView]], split: str, ensemble: Ensemble
) -> tuple[dict[str, list[TrialScores]], int]:
    """Return the scores of each arm's trials, and how many trials have none in the store."""
    read = {
        arm: [trial_scores(storage, trial, split, ensemble) for trial in trials.values()]
        for arm, trials in arms.items()
    }
    missing = sum(scores is None for found in read.values() for scores in found)
    return {a: [s for s in found if s is not None] for a, found in read.items()}, missing


def _metrics(
    primary: str, secondary: Sequence[str], measured: Mapping[str, Mapping[str, Measured]]
) -> tuple[str, ...]:
    """Return the metrics in the order of the study file, then all others."""
    known = dict.fromkeys(name for arm in measured.values() for name in arm)
    return tuple(dict.fromkeys([primary, *secondary, *known]))


def _row(arm: str, basis: Basis, primary: str, metrics: Sequence[str]) -> dict[str, Any]:
    planned = [t for t in basis.view.trials.values() if t.arm == arm]
    states = {state: sum(t.state == state for t in planned) for state in {t.state for t in planned}}
    judged = any(each.judges for each in basis.measured.get(arm, {}).values())
    row: dict[str, Any] = {
        "arm": arm,
        "overrides": dict(planned[0].overrides),
        "num_draws": max((len(found.score) for found in basis.scores.get(arm, ())), default=None),
        "seeds": len(basis.arms[arm]),
        "seeds_planned": len(planned),
        "states": states,
        "finished": len(basis.arms[arm]) == len(planned),
        "interval": PATIENTS_X_SEEDS_X_JUDGES if judged else PATIENTS_X_SEEDS,
    }
    for name in metrics:
        row[name] = arm_mean(name, arm, basis)
    differences = {}
    reference = reference_arm(basis.view)
    if arm != reference and reference in basis.arms:
        weights = {arm: 1.0, reference: -1.0}
        differences = {name: contrast(name, weights, basis) for name in metrics}
    row["differences"] = differences
    row["difference"] = differences.get(primary)
    return row


def _effect(effect: Effect, basis: Basis, primary: str, metrics: Sequence[str]) -> dict[str, Any]:
    """Return one effect: its definition, its arms, and its estimate per metric."""
    complete = not effect.unknown and bool(effect.weights)
    estimates = {m: contrast(m, effect.weights, basis) if complete else None for m in metrics}
    planned = {t.seed for t in basis.view.trials.values() if t.queued}
    return {
        "effect": effect.name,
        "toggles": list(effect.toggles),
        "aliases": list(effect.aliases),
        "shows": effect.shows,
        "arms": dict(effect.weights),
        "seeds_planned": len(planned),
        "estimates": estimates,
        "estimate": estimates.get(primary),
        "missing": "" if estimates.get(primary) else _why_missing(effect, basis),
    }


def _why_missing(effect: Effect, basis: Basis) -> str:
    """Return why an effect has no estimate."""
    if effect.unknown:
        return f"{effect.unknown} of its combinations have no arm in the ledger"
    if not effect.weights:
        return "all its combinations give one configuration"
    seeds = [set(basis.arms.get(arm, {})) for arm in effect.weights]
    if not set.intersection(*seeds):
        return f"no training seed that all its {len(seeds)} arms have completed"
    return "not measured in all its arms"


def _notes(
    view: StudyView, rows: Sequence[Mapping[str, Any]], basis: Basis, kind: str
) -> tuple[str, ...]:
    notes = list(basis.notes)
    for row in rows:
        if not row["finished"]:
            states = ", ".join(f"{n} {state}" for state, n in sorted(row["states"].items()))
            notes.append(f"arm {row['arm']} is not finished: {states}")
    reference = reference_arm(view)
    if kind == "ablation" and rows and not any(row["arm"] == reference for row in rows):
        notes.append(f"no arm is called {reference}: nothing to compare with")
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
    if seeds == 2 and basis.num_patients != 1:
        notes.append(
            "two training seeds: in simulations such intervals held the truth in 90%, not 95%"
        )
    design = (view.specification.get("ablation") or {}).get("design")
    if design == "fractional" and design_effects(view) is None:
        notes.append("the ledger does not name all arms of the fraction yet: no effects are formed")
    if not view.ended:
        notes.append("the study is not closed: more may follow")
    return tuple(notes)
