"""A comparison of methods as text cells: the paper's Table 1, differences, order, footnotes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.comparison import ComparedArm, Comparison, OrderAgreement
from analysis.html_page import Table
from analysis.published import SOURCE
from analysis.study_table import StudyTable
from analysis.wording import count, number, p_text, signed
from namd.statistics.metrics import METRICS, title_of
from namd.statistics.notices import simulated_notice

TITLES = {
    "real_baseline": "real baseline",
    "real_followup": "real follow-up",
    "copied_baseline": "baseline copied as follow-up",
    "longest_diameter": "longest diameter alone",
    "ehr_logistic_regression": "EHR logistic regression",
    "ideal_predictor": "ideal predictor (p itself)",
    "ideal_sampler": "ideal sampler",
}
"""Of rows without training; all but the last have one probability a case."""

WEIGHTS_OF = {"lpips": "AlexNet's trunk is", "fid": "Inception's weights are"}
"""Columns of the paper that need pretrained weights."""

ARROWS = {True: " \u2193", False: " \u2191", None: ""}
"""By whether lower values are better; None: neither direction is."""

PER_DRAW = ("lpips", "fid", "kid_judge", "auroc_per_draw", "auprc_per_draw")
WITH_INTERVAL = ("auroc", "auprc")


@dataclass(frozen=True)
class Column:
    """A column of the table: the metric, and what stands over it."""

    metric: str
    title: str

    @property
    def header(self) -> str:
        """The title with an arrow towards better values, if either direction is better."""
        return f"{self.title}{ARROWS[METRICS[self.metric].lower_is_better]}"


COLUMNS = (
    Column("lpips", "LPIPS"),
    Column("fid", "FID"),
    Column("kid_judge", "KID of judge"),
    Column("auroc_per_draw", "AUROC per draw"),
    Column("auprc_per_draw", "AUPRC per draw"),
    Column("auroc", "AUROC of mean"),
    Column("auprc", "AUPRC of mean"),
    Column("gap_recovered", "gap recovered"),
    Column("diameter_coverage", "coverage"),
    Column("diameter_crps_mm", "CRPS mm"),
    Column("copies", "copies"),
)

DIFFERENCES = (
    "auroc",
    "auprc",
    "auroc_per_draw",
    "auprc_per_draw",
    "lpips",
    "fid",
    "kid_judge",
    "diameter_crps_mm",
)


def comparison_tables(comparison: Comparison, table: StudyTable) -> list[tuple[str, Table]]:
    """Return the tables of a comparison by caption."""
    found = [(main_caption(table), main_table(comparison, table))]
    if any(arm.row["differences"] for arm in comparison.arms):
        found.append((difference_caption(table), difference_table(comparison, table)))
    if comparison.orders:
        found.append((ORDER_CAPTION, order_table(comparison)))
    return found


ORDER_CAPTION = f"The order of the rows beside the paper's ({SOURCE})"


def main_caption(table: StudyTable) -> str:
    """Return what stands over the table in the paper's form."""
    simulated = "; SIMULATED follow-ups and labels" if table.simulated else ""
    return f"The paper's Table 1 on this cohort, {table.split} split{simulated}"


def difference_caption(table: StudyTable) -> str:
    """Return what stands over the differences."""
    simulated = " (simulated)" if table.simulated else ""
    return (
        f"Differences to {table.reference}, paired, with {table.level:.0%} interval and Holm's p"
        f"{simulated}"
    )


def main_table(comparison: Comparison, table: StudyTable) -> Table:
    """Return the table in the paper's form: rows without training, the paper's rows, the others."""
    columns = [c for c in COLUMNS if any(arm.row.get(c.metric) for arm in comparison.arms)]
    header = ("row", *(c.header for c in columns), "draws", "parameters", "training s")
    context = [
        (
            TITLES.get(str(row["row"]), str(row["row"])),
            *(_context(row, c) for c in columns),
            str(row.get("num_draws", "-")),
            "-",
            "-",
        )
        for row in table.context
    ]
    arms = [
        (_title(arm, comparison), *(_cell(arm.row, c.metric) for c in columns), *_sizes(arm))
        for arm in comparison.arms
    ]
    return Table(header, (*context, *arms))


def difference_table(comparison: Comparison, table: StudyTable) -> Table:
    """Return the paired differences to the reference, one column a metric."""
    metrics = [
        metric
        for metric in DIFFERENCES
        if any(arm.row["differences"].get(metric) for arm in comparison.arms)
    ]
    rows = tuple(
        (
            _title(arm, comparison),
            *(_difference(arm.row["differences"].get(metric)) for metric in metrics),
        )
        for arm in comparison.arms
        if arm.arm != table.reference
    )
    return Table(("row", *(title_of(metric) for metric in metrics)), rows)


def order_table(comparison: Comparison) -> Table:
    """Return Spearman's correlation of each metric's order with the paper's, in words too."""
    rows = tuple(
        (
            title_of(order.metric),
            f"{_column_title(order.against)} of {len(order.titles)} rows",
            number(order.rho, 2),
            order_sentence(order),
        )
        for order in comparison.orders
    )
    return Table(("metric", "against the paper's", "Spearman", "in words"), rows)


def order_sentence(order: OrderAgreement) -> str:
    """Say in a sentence what an order shares with the paper's, and where it departs most."""
    if order.rho is None:
        return "all rows have the same value, so there is no order to compare."
    if abs(order.rho) > order.chance:
        verdict = f"{'like' if order.rho > 0 else 'against'} the paper's, beyond chance"
    else:
        verdict = "no closer to the paper's than chance"
    moved = max(
        range(len(order.titles)),
        key=lambda i: (abs(order.ours[i] - order.theirs[i]), -order.theirs[i]),
    )
    first = order.titles[min(range(len(order.titles)), key=lambda i: order.ours[i])]
    best = order.titles[min(range(len(order.titles)), key=lambda i: order.theirs[i])]
    lead = f"{first} leads here" + (" as there" if first == best else f", {best} there")
    if order.ours[moved] == order.theirs[moved]:
        rest = "no row changes its place"
    else:
        rest = (
            f"{order.titles[moved]} moves most, from place {order.theirs[moved]:g} to "
            f"{order.ours[moved]:g}"
        )
    return f"{verdict} (|rho| {order.chance:.2f} at 5%); {lead}; {rest}."


def footnotes(comparison: Comparison, table: StudyTable) -> list[str]:
    """Return what a reader of the table must know, the marked footnotes first."""
    notes = [f"({mark}) {text}." for mark, text in _marked(comparison).items()]
    if table.simulated:
        notes.insert(0, simulated_notice(table.law))
    once = [arm.title for arm in comparison.arms if arm.draws_once]
    if once:
        notes.append(
            f"{', '.join(once)}: every draw would be the same, so there is one, without spread "
            "over draws and without coverage; its CRPS is the absolute error."
        )
    notes.append(
        "LPIPS, FID, KID and the columns per draw are means over draws and training seeds, "
        f"\u00b1 the deviation over draws (of the {table.deviation}); of mean: the probability "
        f"averaged over draws, with {table.level:.0%} interval over patients and training seeds. "
        "Gap recovered is the share of the real follow-up's gain in AUROC over the real baseline, "
        "of mean."
    )
    if any(arm.row.get("copies") for arm in comparison.arms):
        notes.append(
            "Copies: share of draws as near to a train crop of another patient as the nearest 1% "
            "of real follow-ups, which stand at 0.01."
        )
    notes.append(
        "Parameters: the numbers stored in what the draws read, without pretrained weights from "
        "local folders. Training: device seconds of every training that the draws depend on, "
        "shared ones in full."
    )
    for metric, weights in WEIGHTS_OF.items():
        measured = any(arm.row.get(metric) for arm in comparison.arms)
        if not measured:
            notes.append(f"No {title_of(metric)}: {weights} not on disk, or it is off.")
        elif metric == "fid" and table.cases is not None:
            notes.append(f"FID of {count(table.cases, 'case')} is biased upwards.")
    return notes


def _title(arm: ComparedArm, comparison: Comparison) -> str:
    """Return an arm's title with the marks of its footnotes."""
    marks = [mark for mark, text in _marked(comparison).items() if text in _texts(arm, comparison)]
    return " ".join([arm.title, *(f"({mark})" for mark in marks)])


def _marked(comparison: Comparison) -> dict[str, str]:
    """Return the footnotes that belong to single rows, by their letter."""
    texts = [text for arm in comparison.arms for text in _texts(arm, comparison)]
    return {chr(ord("a") + i): text for i, text in enumerate(dict.fromkeys(texts))}


def _texts(arm: ComparedArm, comparison: Comparison) -> list[str]:
    found = (comparison.interpreted.get(arm.method), comparison.confounded.get(arm.arm))
    return [text for text in found if text]


def _cell(row: Mapping[str, Any], metric: str) -> str:
    found = row.get(metric)
    if not found or found["mean"] is None:
        return "-"
    value = number(found["mean"])
    if metric in PER_DRAW and found.get("std_draws") is not None:
        return f"{value} \u00b1 {number(found['std_draws'])}"
    if metric in WITH_INTERVAL and found["low"] is not None:
        return f"{value} [{number(found['low'])}, {number(found['high'])}]"
    return value


def _context(row: Mapping[str, Any], column: Column) -> str:
    """Return a cell of a row without training, whose single score stands for every draw."""
    if column.metric in WITH_INTERVAL or row.get(column.metric):
        return _cell(row, column.metric)
    of_mean = row.get(column.metric.removesuffix("_per_draw"))
    is_score = column.metric.endswith("_per_draw") and of_mean
    return number(of_mean["mean"]) if of_mean and is_score else "-"


def _sizes(arm: ComparedArm) -> tuple[str, str, str]:
    draws, size = arm.row.get("num_draws"), arm.size
    known: tuple[tuple[Any, Callable[[Any], str]], ...] = (
        (draws, str),
        (None if size is None else size.parameters, _large),
        (None if size is None else size.training_seconds, lambda value: f"{value:.0f}"),
    )
    first, second, third = ("-" if value is None else form(value) for value, form in known)
    return first, second, third


def _large(value: int) -> str:
    """Return a count in thousands or millions, to three digits."""
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "-"
    text = signed(found["mean"])
    if found["low"] is not None:
        text += f" [{signed(found['low'])}, {signed(found['high'])}]"
    p = p_text(found["p_holm"])
    return text if p == "-" else f"{text}\np {p if p.startswith('<') else f'= {p}'}"


def _column_title(metric: str) -> str:
    return metric.upper()
