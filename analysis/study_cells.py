"""A study's result tables as text cells, for HTML and Markdown alike."""

from collections.abc import Callable, Mapping
from typing import Any

from analysis.comparison import Comparison
from analysis.comparison_cells import comparison_tables
from analysis.html_page import Table
from analysis.study_effects import Effects
from analysis.study_search import SearchSummary
from analysis.study_table import StudyTable
from analysis.wording import count, number, p_text, setting, signed
from namd.statistics.metrics import title_of

CONTEXT = "For orientation: rows that need no training, on the same cases"


def report_tables(
    table: StudyTable,
    search: SearchSummary | None,
    importance: Mapping[str, Mapping[str, float]],
    comparison: Comparison | None = None,
) -> list[tuple[str, Table]]:
    """Return the result tables of a report by caption, the most important first."""
    found = [] if comparison is None else comparison_tables(comparison, table)
    if search is not None:
        found.append(("Chosen by the search, and the same on fresh seeds", _winner_table(search)))
        for metric, shares in importance.items():
            lines = sorted(shares.items(), key=lambda item: -item[1])
            rows = tuple((name, number(share, 3)) for name, share in lines)
            found.append(
                (
                    f"Importance for {title_of(metric)} (PED-ANOVA)",
                    Table(("parameter", ""), rows),
                )
            )
    if table.effects:
        found.append((_effect_caption(table), effect_table(table)))
    if table.rows:
        found.append((_main_caption(table), _main_table(table)))
    if table.context:
        found.append((CONTEXT, _context_table(table)))
    if table.kind == "ablation" and any(row.get(m) for row in table.rows for m in table.metrics):
        found.append(
            (f"Every metric, and its difference to {table.reference}", _metric_table(table))
        )
    if any(effect["estimates"][m] for effect in table.effects for m in table.metrics[1:]):
        found.append(("Every effect on the other metrics", _other_effects(table)))
    return found


def effect_table(table: StudyTable) -> Table:
    """Return the effects on the primary metric, with a column of aliases if there are any."""
    change = f"change of {title_of(table.primary)}"
    header: tuple[str, ...] = ("effect", "seeds", change, "p", "p (Holm)")
    lines = [_effect_cells(effect, effect["estimate"]) for effect in table.effects]
    if any(effect["aliases"] for effect in table.effects):
        header = (*header, "aliased with")
        lines = [(*line, _aliases(e)) for line, e in zip(lines, table.effects, strict=True)]
    return Table(header, tuple(lines))


def effect_notes(table: StudyTable) -> list[str]:
    """Return notes on a design's effects and their aliases; none without effects."""
    design = table.design
    if design is None:
        return []
    how = "averaged over the design's combinations of the other toggles"
    formed = "the same average of (both applied - first alone - second alone + neither)"
    if design.design == "pairwise":
        how = f"every other part left on: the arm that applies it alone minus {table.reference}"
        formed = f"{table.reference} - first alone - second alone + both"
    sign = "so an effect below zero means that switching the part off lowered the metric"
    notes = [
        f"the effect of a toggle is applied minus not applied, {how}; a toggle switches a part "
        f"off, {sign}",
        "an interaction, first \u00d7 second, is how much the effect of the one changes if the "
        f"other is applied too ({formed}); it is zero if effects are additive",
        f"each effect is measured over the training seeds that all its arms have completed; Holm's "
        f"correction takes all {count(len(table.effects), 'effect')} on a metric as one family",
    ]
    return notes if design.resolution is None else [*notes, _fraction_note(design)]


def _fraction_note(design: Effects) -> str:
    resolution = design.resolution or 0
    meaning = {
        3: "effects of toggles are aliased with interactions of two others",
        4: "no toggle is aliased with an interaction of two, but some of these with each other",
    }.get(resolution, "no toggle or interaction of two is aliased with another")
    return (
        f"a fraction of resolution {resolution}: {design.num_combinations} of "
        f"{2**design.num_toggles} combinations are run, and {meaning}; interactions of three and "
        "more toggles are assumed to be zero"
    )


def _effect_caption(table: StudyTable) -> str:
    return (
        f"Effects on {title_of(table.primary)}: toggle applied minus not applied, "
        f"{table.level:.0%} intervals" + (" (simulated)" if table.simulated else "")
    )


def _effect_cells(effect: Mapping[str, Any], estimate: Mapping[str, Any] | None) -> tuple[str, ...]:
    if estimate is None:
        return (effect["effect"], f"0 of {effect['seeds_planned']}", effect["missing"], "-", "-")
    seeds, planned = estimate["seeds"], effect["seeds_planned"]
    return (
        effect["effect"],
        str(seeds) if seeds == planned else f"{seeds} of {planned}",
        _estimate(estimate, signed),
        p_text(estimate["p"]),
        p_text(estimate["p_holm"]),
    )


def _aliases(effect: Mapping[str, Any]) -> str:
    if not effect["aliases"]:
        return "-"
    return f"{', '.join(effect['aliases'])} (shown: {effect['shows']})"


def _other_effects(table: StudyTable) -> Table:
    cells = []
    for effect in table.effects:
        for metric in table.metrics[1:]:
            estimate = effect["estimates"][metric]
            if estimate is not None:
                first, *rest = _effect_cells(effect, estimate)
                cells.append((first, title_of(metric), *rest))
    return Table(("effect", "metric", "seeds", "change", "p", "p (Holm)"), tuple(cells))


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
        f"minus {table.reference}",
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
        for metric in (name for name in metrics if row.get(name)):
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
    header = ("arm", "metric", "mean over seeds", f"minus {table.reference}", "p", "p (Holm)")
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
                    "not yet"
                    if mean is None
                    else f"{number(mean)} ({count(fresh['seeds'], 'seed')})",
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
