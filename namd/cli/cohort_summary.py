"""What `namd cohort` prints of a cohort: counts, origin, and what became of the source.

Heavy modules are imported inside, as in every command.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from namd.data.cohort import Cohort


def origin_lines(card: Mapping[str, Any]) -> list[str]:
    """Return what became of all that the source holds."""
    from namd.data.card import unused_lines, value_lines

    lines = value_lines(card)
    if card.get("split_column"):
        lines.append(f"split: column {card['split_column']} of the table, not --seed")
    lines += [f"not used: {line}" for line in unused_lines(card)]
    excluded = card.get("excluded") or {}
    listed = ", ".join(f"{number} {reason}" for reason, number in excluded.items())
    return [*lines, *([f"left out of the table: {listed}"] if listed else [])]


def summarise(cohort: "Cohort | None") -> dict[str, Any]:
    """Return what a cohort holds, as `--json` prints it; zeros for one that cannot be read."""
    if cohort is None:
        empty = {"cases": 0, "patients": 0, "splits": {}, "simulated": []}
        return {**empty, "law": None, "ideal_auroc": None}
    from namd.data.card import ideal_auroc, law_of, simulated_columns, split_counts

    return {
        "cases": len(cohort),
        "patients": int(cohort.table["patient_id"].nunique()),
        "splits": split_counts(cohort),
        "simulated": simulated_columns(cohort.card),
        "law": law_of(cohort.card),
        "ideal_auroc": ideal_auroc(cohort.card),
    }


def summary_text(summary: dict[str, Any]) -> str:
    """Return what `summarise` found, for people."""
    from namd.data.card import UNKNOWN_CEILING

    lines = [f"{summary['cases']} cases of {summary['patients']} patients"]
    for split, counts in summary["splits"].items():
        listed = ", ".join(f"{number} {name}" for name, number in counts.items())
        lines.append(f"  {split:<11}{listed}")
    if summary["simulated"]:
        ceilings = summary["ideal_auroc"] or {}
        ideal = ", ".join(f"{s} {'-' if v is None else f'{v:.3f}'}" for s, v in ceilings.items())
        law = f" (law {summary['law']})" if summary["law"] else ""
        lines.append(f"SIMULATED: {', '.join(summary['simulated'])}{law}")
        lines.append(f"ideal predictor's AUROC: {ideal or UNKNOWN_CEILING}")
    return "\n".join(lines)
