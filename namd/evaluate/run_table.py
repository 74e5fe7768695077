"""The result table of one run, from the folders that its stages left."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from namd.data.cohort import Cohort
from namd.data.splits import evaluation_subset
from namd.evaluate.scores import SetMetrics, load_rows, load_scores
from namd.evaluate.settings import EvaluateSettings
from namd.evaluate.table import IDEAL, ResultTable, RowScores, build_table


def table_of_run(
    folders: Mapping[str, Path],
    cohort: Path,
    settings: EvaluateSettings,
    name: str,
    title: str,
) -> ResultTable:
    """Return the rows without training, the ideals, the reconstruction and the method itself.

    Args:
        folders: Payload of each stage by label: `scores-test[3]`, `reference-test`, ...; other
            stages may be among them.
        cohort: The cohort's folder.
        settings: The run's evaluation.
        name: The method's name, its row's name here.
        title: The method's title.
    """
    split = settings.split
    rows: dict[str, RowScores] = {}
    if f"reference-{split}" in folders:
        found = load_rows(folders[f"reference-{split}"])
        rows |= {row: RowScores(frame, sets) for row, (frame, sets) in found.items()}
    for row, family, heading in (
        (IDEAL, f"ideal-{split}", None),
        ("reconstruction", f"reconstruction-{split}", None),
        (name, f"scores-{split}", title),
    ):
        frame, sets = _family(folders, family)
        if len(frame):
            rows[row] = RowScores(frame, sets, heading)
    evaluated = Cohort.read(cohort, splits=(split,))
    index = evaluation_subset(
        evaluated.table, split, settings.num_cases, settings.minimum_malignant
    )
    return build_table(
        rows,
        evaluated.table.iloc[index],
        settings,
        simulated=bool(evaluated.card.get("simulation")),
    )


def _family(folders: Mapping[str, Path], stage: str) -> tuple[pd.DataFrame, list[SetMetrics]]:
    """Return the joined score frame of a stage's artifacts, one or one per draw."""
    frames, sets = [pd.DataFrame(columns=["case_id", "k"])], []
    for label, folder in folders.items():
        if label == stage or label.startswith(f"{stage}["):
            frame, entries = load_scores(folder)
            if len(frame):
                frames.append(frame)
                sets += entries
    together = pd.concat(frames[1:], ignore_index=True) if len(frames) > 1 else frames[0]
    return together, sorted(sets, key=lambda entry: entry.k)
