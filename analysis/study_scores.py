"""The scores of a study's trials in the store: score frames per trial, and the scored cases.

Files are read through the ledger's storage, so a study on S3 needs no other code.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from namd.data.card import law_of
from namd.data.cohort import CASES_FILE, read_card
from namd.data.schema import MALIGNANT
from namd.ledger.view import StageExecution, StudyView, TrialView
from namd.statistics.ensembles import Ensemble, mean_over_draws
from namd.statistics.metrics import IMAGE_METRICS, SET_METRICS
from namd.storage.artifacts import read_payload
from namd.storage.base import Storage

DIAMETER = "diameter_mm"
"""Column of a score frame: the diameter measured on an image, NaN if no nodule stands out."""

FOLLOWUP = "real_followup"
"""Row of the references against whose diameters those of draws are held."""


@dataclass(frozen=True)
class TrialScores:
    """One trial's scores, draws first.

    Attributes:
        seed: Its training seed.
        case_ids: Ids of the scored cases, (N,).
        score: Judge probability, (K, N).
        images: Per-image metrics averaged over draws, by name, (N,); NaN without follow-up.
        sets: Set metrics averaged over draws, by name, if they were measured.
        ensemble: How a case's draws are averaged: as probabilities or as logits.
        further: Probabilities of further judges, each like `score`.
        diameters: Diameters in mm measured on the draws, like `score`; NaN if nothing stands out.
        each_draw: Image and set metrics of single draws, by name, (K,).
    """

    seed: int
    case_ids: npt.NDArray[np.str_]
    score: npt.NDArray[np.floating]
    images: Mapping[str, npt.NDArray[np.floating]]
    sets: Mapping[str, float]
    ensemble: Ensemble = "probability"
    further: tuple[npt.NDArray[np.floating], ...] = ()
    diameters: npt.NDArray[np.floating] | None = None
    each_draw: Mapping[str, npt.NDArray[np.floating]] = field(default_factory=dict)

    @property
    def of_mean(self) -> npt.NDArray[np.floating]:
        """The score of the mean over draws, (N,), under the first judge."""
        return mean_over_draws(self.score, self.ensemble)


@dataclass(frozen=True)
class Cases:
    """The cohort's side of the scored cases.

    Attributes:
        table: case_id, patient_id and label of every case of the evaluated split.
        simulated: Whether labels or follow-ups are simulated.
        card: The cohort's data card.
    """

    table: pd.DataFrame
    simulated: bool
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def law(self) -> str | None:
        """The law that it was simulated under; None if it was not, or does not say."""
        return law_of(self.card)


def completed(view: StudyView, arm: str) -> dict[int, TrialView]:
    """Return an arm's completed trials by training seed, in order of seed."""
    found = {
        trial.seed: trial
        for trial in view.trials.values()
        if trial.arm == arm and trial.state == "completed"
    }
    return dict(sorted(found.items()))


def needed_stages(trial: TrialView) -> list[StageExecution]:
    """Return the stages that a trial needed, of each what its last attempt had."""
    return list({done.stage.label: done for done in trial.stages}.values())


def trial_scores(
    storage: Storage, trial: TrialView, split: str, ensemble: Ensemble = "probability"
) -> TrialScores | None:
    """Return a trial's scores of a split; None if a draw of it is not in the store."""
    stages = _draw_by_draw(trial, "score", split)
    return _scores(storage, trial.seed, stages, ensemble, _rejudged(storage, trial, split))


def ideal_scores(
    storage: Storage, trial: TrialView, split: str, ensemble: Ensemble = "probability"
) -> TrialScores | None:
    """Return the ideal sampler's scores; None if the cohort has none, or one is not in the store.

    It is no model: the seed is the trial's, and says nothing.
    """
    return _scores(storage, trial.seed, _draw_by_draw(trial, "reference", split), ensemble)


def _draw_by_draw(trial: TrialView, role: str, split: str) -> list[StageExecution]:
    """Return the stages of a role that score one draw each."""
    return [
        done
        for done in needed_stages(trial)
        if (done.stage.role, done.stage.split) == (role, split) and done.stage.index is not None
    ]


def _scores(
    storage: Storage,
    seed: int,
    stages: Sequence[StageExecution],
    ensemble: Ensemble,
    rejudged: Iterable[pd.DataFrame] = (),
) -> TrialScores | None:
    frames, sets = [], []
    for done in stages:
        scores = read_payload(storage, done.stage.name, done.key, "scores.parquet")
        if scores is None:
            return None
        frames.append(pd.read_parquet(io.BytesIO(scores)))
        data = read_payload(storage, done.stage.name, done.key, "sets.json", optional=True)
        sets += json.loads(data or b"[]")
    if not any(len(frame) for frame in frames):
        return None
    frame = pd.concat(frames, ignore_index=True)
    wide = _by_draw(frame)
    ids = wide.columns.to_numpy(dtype=str)
    further = [_by_draw(found).reindex(columns=ids) for found in rejudged]
    measured = [name for name in IMAGE_METRICS if name in frame]
    means = frame.groupby("case_id")[measured].mean().reindex(ids)
    single = frame.groupby("k")[measured].mean().sort_index()
    diameters = _by_draw(frame, DIAMETER).to_numpy(float) if DIAMETER in frame else None
    return TrialScores(
        seed=seed,
        case_ids=ids,
        score=wide.to_numpy(float),
        images={name: means[name].to_numpy(float) for name in means},
        sets={name: float(values.mean()) for name, values in _known_sets(sets).items()},
        ensemble=ensemble,
        further=tuple(each.to_numpy(float) for each in further),
        diameters=diameters,
        each_draw={name: single[name].to_numpy(float) for name in single} | _known_sets(sets),
    )


def _by_draw(frame: pd.DataFrame, column: str = "score") -> pd.DataFrame:
    return frame.pivot(index="k", columns="case_id", values=column).sort_index()


def _rejudged(storage: Storage, trial: TrialView, split: str) -> Iterable[pd.DataFrame]:
    """Yield how each further judge scored a trial's draws, as far as the store has it."""
    for done in needed_stages(trial):
        if (done.stage.role, done.stage.split) == ("rejudge", split):
            raw = read_payload(storage, done.stage.name, done.key, "scores.parquet")
            if raw is not None:
                frame = pd.read_parquet(io.BytesIO(raw))
                yield frame[frame["row"] == "drawn"]


def reference_rows(storage: Storage, trial: TrialView, split: str) -> dict[str, pd.DataFrame]:
    """Return the score frames of the rows that need no training, if they are in the store.

    Real baselines and follow-ups under the judge, a diameter alone, and the like, by row name, each
    with its cases as index. Other references score one row each and name none.
    """
    for done in needed_stages(trial):
        stage = done.stage
        if (stage.role, stage.split, stage.index) != ("reference", split, None):
            continue
        raw = read_payload(storage, stage.name, done.key, "scores.parquet")
        frame = None if raw is None else pd.read_parquet(io.BytesIO(raw))
        if frame is not None and "row" in frame:
            rows = frame.groupby("row", sort=False)
            return {str(name): part.set_index("case_id") for name, part in rows}
    return {}


def find_cases(
    storage: Storage,
    view: StudyView,
    case_ids: Iterable[str],
    split: str,
    cohort: Path | None = None,
) -> Cases | None:
    """Return the cohort's rows of the scored cases, or None if no cohort on disk has them.

    Candidates, in this order: the given folder, the one in the ledger, the one in the
    study file, and the cohorts in the store.
    """
    wanted = set(case_ids)
    for folder in _cohorts(storage, view, cohort):
        if not (folder / CASES_FILE).is_file():
            continue
        columns = ["case_id", "patient_id", "label", "split"]
        table = pq.read_table(folder / CASES_FILE, columns=columns).to_pandas()
        table = table[table["split"] == split].reset_index(drop=True)
        if wanted <= set(table["case_id"]):
            card = read_card(folder)
            return Cases(table, bool(card.get("simulation")), card)
    return None


def aligned(
    trials: Sequence[TrialScores], cases: Cases
) -> tuple[pd.DataFrame, list[TrialScores], int]:
    """Bring all trials to the same labelled cases; return them, and how many cases were left out.

    A case is used if its label is known and every trial scored all its draws.
    """
    scored = [
        set(trial.case_ids[np.isfinite(np.concatenate([trial.score, *trial.further])).all(axis=0)])
        for trial in trials
    ]
    seen = set().union(*(set(trial.case_ids) for trial in trials))
    common = set.intersection(*scored)
    table = cases.table
    kept = table[table["case_id"].isin(common) & table["label"].isin((0, MALIGNANT))]
    kept = kept.sort_values("case_id").reset_index(drop=True)
    ids = kept["case_id"].to_numpy(dtype=str)
    return kept, [select(trial, ids) for trial in trials], len(seen) - len(ids)


def select(trial: TrialScores, ids: npt.NDArray[np.str_]) -> TrialScores:
    """Return the scores of these cases, in their order; each must be among the trial's."""
    place = pd.Index(trial.case_ids).get_indexer(ids)
    images = {name: values[place] for name, values in trial.images.items()}
    further = tuple(each[:, place] for each in trial.further)
    diameters = None if trial.diameters is None else trial.diameters[:, place]
    return replace(
        trial,
        case_ids=ids,
        score=trial.score[:, place],
        images=images,
        further=further,
        diameters=diameters,
    )


def _known_sets(entries: Sequence[Mapping[str, Any]]) -> dict[str, npt.NDArray[np.floating]]:
    """Return the set metrics that were measured, an entry per draw."""
    found = {}
    for name in SET_METRICS:
        known = [entry[name] for entry in entries if entry.get(name) is not None]
        if known:
            found[name] = np.array(known, float)
    return found


def _cohorts(storage: Storage, view: StudyView, cohort: Path | None) -> Iterable[Path]:
    if cohort is not None:
        yield cohort
    named = view.about.get("cohort")
    if named:
        yield Path(str(named))
    base = view.specification.get("base") or {}
    if base.get("cohort"):
        yield Path(str(base["cohort"])).expanduser()
    for name in storage.names("cohorts"):
        yield Path(storage.root) / "cohorts" / name
