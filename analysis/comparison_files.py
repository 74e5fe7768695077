"""A comparison of methods as files: LaTeX and Markdown of its tables, CSV of its numbers."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from analysis.comparison import Comparison
from analysis.comparison_cells import (
    COLUMNS,
    DIFFERENCES,
    ORDER_CAPTION,
    WITH_INTERVAL,
    comparison_tables,
    footnotes,
)
from analysis.latex import PREAMBLE, latex_table
from analysis.study_table import StudyTable

LABELS = ("tab:comparison", "tab:differences", "tab:order")


def comparison_latex(comparison: Comparison, table: StudyTable) -> str:
    """Return the tables as LaTeX, the footnotes under the first one."""
    notes = footnotes(comparison, table)
    parts = [
        latex_table(
            found,
            caption,
            label,
            notes if label == LABELS[0] else (),
            sentences=caption == ORDER_CAPTION,
        )
        for (caption, found), label in zip(
            comparison_tables(comparison, table), LABELS, strict=False
        )
    ]
    return "\n".join([PREAMBLE, *parts])


def comparison_markdown(comparison: Comparison, table: StudyTable) -> str:
    """Return the tables and the footnotes as Markdown."""
    lines = []
    for caption, found in comparison_tables(comparison, table):
        lines += [f"**{caption}**", "", *found.markdown(), ""]
    return "\n".join([*lines, *(f"- {note}" for note in footnotes(comparison, table))]) + "\n"


def comparison_csv(comparison: Comparison, table: StudyTable) -> str:
    """Return one line per row with every number of the table, and the paper's beside them."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _names(), restval="")
    writer.writeheader()
    for row in table.context:
        once = {f"{m}_per_draw": row[m] for m in WITH_INTERVAL if row.get(m)}
        line = {"row": row["row"], "simulated": table.simulated}
        line |= {"num_draws": row["num_draws"]} if "num_draws" in row else {}
        writer.writerow(line | _numbers(once | row))
    for arm in comparison.arms:
        line = {"row": arm.title, "arm": arm.arm, "method": arm.method}
        line |= {"seeds": arm.row["seeds"], "num_draws": arm.row["num_draws"]}
        if arm.size is not None:
            line["parameters"] = arm.size.parameters
            line["training_seconds"] = arm.size.training_seconds
        if arm.published is not None:
            line |= {f"paper_{name}": value for name, value in arm.published.values.items()}
        line |= {"interpreted": arm.method in comparison.interpreted, "simulated": table.simulated}
        writer.writerow(line | _numbers(arm.row) | _compared(arm.row["differences"]))
    return stream.getvalue()


def _names() -> list[str]:
    about = ["row", "arm", "method", "seeds", "num_draws", "parameters", "training_seconds"]
    numbers = [f"{c.metric}{part}" for c in COLUMNS for part in ("", "_low", "_high", "_std_draws")]
    compared = [
        f"{metric}_difference{part}"
        for metric in DIFFERENCES
        for part in ("", "_low", "_high", "_p", "_p_holm")
    ]
    paper = [f"paper_{name}" for name in ("lpips", "fid", "auroc", "auprc")]
    return [*about, *numbers, *compared, *paper, "interpreted", "simulated"]


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    line = {}
    for column in COLUMNS:
        if found := row.get(column.metric):
            line[column.metric] = found["mean"]
            line |= {f"{column.metric}_{part}": found[part] for part in ("low", "high")}
            line[f"{column.metric}_std_draws"] = found.get("std_draws")
    return line


def _compared(differences: Mapping[str, Any]) -> dict[str, Any]:
    line = {}
    for metric in DIFFERENCES:
        if found := differences.get(metric):
            name = f"{metric}_difference"
            line[name] = found["mean"]
            line |= {f"{name}_{part}": found[part] for part in ("low", "high", "p", "p_holm")}
    return line
