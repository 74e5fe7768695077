"""From the artifacts of a run to its result table; the numbers themselves are `namd.evaluate`'s."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from namd.data.card import law_of
from namd.data.cohort import Cohort
from namd.data.splits import evaluation_subset
from namd.evaluate.copies import DISTANCES_FILE
from namd.evaluate.scores import DRAWN, SCORES_FILE, SetMetrics, load_rows, load_scores
from namd.evaluate.table import ResultTable, RowScores, build_table
from namd.pipeline.run_configuration import RunConfiguration
from namd.pipeline.store import Artifact


def score_table(
    configuration: RunConfiguration, cohort: Path, artifacts: Mapping[str, Artifact]
) -> ResultTable:
    """Return the table of a run: rows without training, reconstruction, then the method itself.

    Args:
        configuration: Its section `evaluate` says which cases and how intervals are formed.
        cohort: The cohort's folder.
        artifacts: The run's artifacts, by label.
    """
    settings = configuration.config.evaluate
    split = settings.split
    loaded = Cohort.read(cohort, (split,))
    index = evaluation_subset(loaded.table, split, settings.num_cases, settings.minimum_malignant)
    return build_table(
        _rows(configuration, split, artifacts),
        loaded.select(index).table,
        settings,
        simulated=bool(loaded.card.get("simulation")),
        law=law_of(loaded.card),
    )


def _rows(
    configuration: RunConfiguration, split: str, artifacts: Mapping[str, Artifact]
) -> dict[str, RowScores]:
    """Return the scores of each row: what the references name themselves, theirs, the method's."""
    named: dict[str, RowScores] = {}
    alone: dict[str, list[Path]] = {}
    own: list[Path] = []
    further: list[Path] = []
    copies: list[Path] = []
    for stage in configuration.stages():
        artifact = artifacts.get(stage.label)
        if artifact is None or stage.split != split:
            continue
        if stage.role == "score":
            own.append(artifact.payload)
        elif stage.role == "rejudge":
            further.append(artifact.payload)
        elif stage.role == "copies":
            copies.append(artifact.payload)
        elif stage.role == "reference" and stage.row is not None:
            alone.setdefault(stage.row, []).append(artifact.payload)
        elif stage.role == "reference":
            found = load_rows(artifact.payload)
            named |= {name: RowScores(frame, sets) for name, (frame, sets) in found.items()}
    method = configuration.method
    joined = {name: _joined(payloads) for name, payloads in alone.items()}
    joined[method.name] = _joined(own, method.title)
    rows = named | {name: row for name, row in joined.items() if row is not None}
    for payload in further:
        rows = _with_judge(rows, payload, method.name)
    return _with_copies(rows, copies, method.name)


def _with_copies(
    rows: Mapping[str, RowScores], payloads: Sequence[Path], method: str
) -> dict[str, RowScores]:
    """Return the rows with their images' distances to the train crops, as far as there are any."""
    frames = [pd.read_parquet(payload / DISTANCES_FILE) for payload in payloads]
    if not frames:
        return dict(rows)
    frame = pd.concat(frames, ignore_index=True)
    near = {str(name): part for name, part in frame.groupby("row")}
    near[method] = near.pop(DRAWN, None)
    return {name: replace(row, nearest=near.get(name)) for name, row in rows.items()}


def _with_judge(rows: Mapping[str, RowScores], payload: Path, method: str) -> dict[str, RowScores]:
    """Return the rows with the scores of a further judge beside the first one's."""
    frame = pd.read_parquet(payload / SCORES_FILE)
    frame["row"] = frame["row"].replace(DRAWN, method)
    scored = {str(name): part.drop(columns="row") for name, part in frame.groupby("row")}
    return {
        name: replace(row, further=(*row.further, scored[name])) if name in scored else row
        for name, row in rows.items()
    }


def _joined(payloads: Sequence[Path], title: str | None = None) -> RowScores | None:
    """Join the draws of one row; None if none of them scored a case."""
    frames: list[pd.DataFrame] = []
    sets: list[SetMetrics] = []
    for payload in payloads:
        frame, found = load_scores(payload)
        frames += [frame] if len(frame) else []
        sets += found
    return RowScores(pd.concat(frames, ignore_index=True), sets, title) if frames else None
