"""A study's result tables as text cells, for HTML and Markdown alike."""

from collections.abc import Callable, Mapping
from typing import Any

from analysis.html_page import Table
from analysis.study_effects import REFERENCE
from analysis.study_search import SearchSummary
from analysis.study_table import StudyTable
from analysis.wording import number, p_text, setting, signed, title_of

CONTEXT = "For orientation: rows that need no training, on the same cases"


def report_tables(
    table: StudyTable,
    search: SearchSummary | None,
    importance: Mapping[str, Mapping[str, float]],
) -> list[tuple[str, Table]]:
    """Return the result tables of a report by caption, the most important first."""
    found: list[tuple[str, Table]] = []
    if search is not None:
        found.append(("Chosen by the search, and the same on fresh seeds", _winner_table(search)))
        for metric, shares in importance.items():
            lines = sorted(shares.items(), key=lambda item: -item[1])
            rows = tuple((name, number(share, 3)) for name, share in lines)
            found.append(
                (f"Importance for {title_of(metric)} (PED-ANOVA)", Table(("parameter", ""), rows))
            )
    if table.rows:
        found.append((_main_caption(table), _main_table(table)))
    if table.context:
        found.append((CONTEXT, _context_table(table)))
    if table.kind == "ablation" and any(row.get(m) for row in table.rows for m in table.metrics):
        found.append((f"Every metric, and its difference to {REFERENCE}", _metric_table(table)))
    return found


def _context_table(table: StudyTable) -> Table:
    lines = tuple(
        (str(row["row"]).replace("_", " "), _estimate(row["auroc"]), _estimate(row["auprc"]))
        for row in table.context
    )
    return Table(("row", "AUROC", "AUPRC"), lines)


def _main_caption(table: StudyTable) -> str:
    name = title_of(table.primary)
    return f"{name}, {table.level:.0%} intervals" + (" (simulated)" if table.simulated else "")


def _main_table(table: StudyTable) -> Table:
    name = title_of(table.primary)
    header = (
        "arm",
        "changed",
        "seeds",
        name,
        f"minus {REFERENCE}",
        "p",
        "p (Holm)",
        "sign flips p (smallest possible)",
    )
    lines = tuple(_main_cells(row, table.primary) for row in table.rows)
    if table.kind == "search":
        return Table(header[:4], tuple(line[:4] for line in lines))
    return Table(header, lines)


def _main_cells(row: Mapping[str, Any], primary: str) -> tuple[str, ...]:
    difference = row["difference"] or {}
    flips = difference.get("sign_flip") or {}
    seeds = str(row["seeds"]) if row["finished"] else f"{row['seeds']} of {row['seeds_planned']}"
    sign = "" if flips.get("p") is None else f"{p_text(flips['p'])} ({p_text(flips['floor'])})"
    return (
        row["arm"],
        "\n".join(setting(path, value) for path, value in row["overrides"].items()) or "nothing",
        seeds,
        _estimate(row.get(primary)),
        _estimate(difference or None, signed),
        p_text(difference.get("p")),
        p_text(difference.get("p_holm")),
        sign,
    )


def _metric_table(table: StudyTable) -> Table:
    metrics = [m for m in table.metrics if any(row.get(m) for row in table.rows)]
    cells = []
    for row in table.rows:
        for metric in metrics:
            difference = row["differences"].get(metric)
            cells.append(
                (
                    row["arm"],
                    title_of(metric),
                    _estimate(row.get(metric)),
                    _estimate(difference, signed),
                    p_text((difference or {}).get("p")),
                    p_text((difference or {}).get("p_holm")),
                )
            )
    header = ("arm", "metric", "mean over seeds", f"minus {REFERENCE}", "p", "p (Holm)")
    return Table(header, tuple(cells))


def _winner_table(search: SearchSummary) -> Table:
    header = ("proposal", "point", "metric", "in the search", "on fresh seeds", "optimism")
    cells = []
    for winner in search.winners:
        for metric, value in winner["search"].items():
            fresh = (winner["confirmed"] or {}).get(metric) or {"mean": None, "seeds": 0}
            mean = fresh["mean"]
            cells.append(
                (
                    str(winner["proposal"]),
                    "\n".join(setting(n, v) for n, v in winner["point"].items()),
                    title_of(metric),
                    number(value),
                    "not yet" if mean is None else f"{number(mean)} ({fresh['seeds']} seeds)",
                    "" if mean is None else signed(value - mean),
                )
            )
    return Table(header, tuple(cells))


def _estimate(found: Mapping[str, Any] | None, form: Callable[[float | None], str] = number) -> str:
    if not found or found["mean"] is None:
        return "-"
    if found["low"] is None:
        return form(found["mean"])
    return f"{form(found['mean'])} [{form(found['low'])}, {form(found['high'])}]"
