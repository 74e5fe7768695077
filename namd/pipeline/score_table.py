"""From the artifacts of a run to its result table; the numbers themselves are `namd.evaluate`'s."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from namd.data.cohort import Cohort
from namd.data.splits import evaluation_subset
from namd.evaluate.scores import SetMetrics, load_rows, load_scores
from namd.evaluate.table import IDEAL, ResultTable, RowScores, build_table
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
    rows: dict[str, RowScores] = {}
    reference = artifacts.get(f"reference-{split}")
    if reference is not None:
        for name, (frame, sets) in load_rows(reference.payload).items():
            rows[name] = RowScores(frame, sets)
    for name, stage, title in (
        (IDEAL, f"ideal-{split}", None),
        ("reconstruction", f"reconstruction-{split}", None),
        (configuration.method.name, f"scores-{split}", configuration.method.title),
    ):
        row = _row(artifacts, stage, title)
        if row is not None:
            rows[name] = row
    return build_table(
        rows,
        loaded.select(index).table,
        settings,
        simulated=bool(loaded.card.get("simulation")),
    )


def _row(artifacts: Mapping[str, Artifact], stage: str, title: str | None) -> RowScores | None:
    """Join the draws of one row; None if the run has no such stage or it scored nothing."""
    frames: list[pd.DataFrame] = []
    sets: list[SetMetrics] = []
    for label, artifact in artifacts.items():
        if label.partition("[")[0] == stage:
            frame, found = load_scores(artifact.payload)
            frames += [frame] if len(frame) else []
            sets += found
    return RowScores(pd.concat(frames, ignore_index=True), sets, title) if frames else None
