"""A study's report on disk: HTML that opens without a network, Markdown, CSV and figures.

`study_table`, `study_cost` and `study_search` compute the numbers; this module presents them.
"""

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.comparison import Comparison, comparison_of
from analysis.comparison_cells import footnotes
from analysis.comparison_files import comparison_csv, comparison_latex, comparison_markdown
from analysis.html_page import Page, Table
from analysis.study_cells import effect_notes, report_tables
from analysis.study_cost import (
    Failure,
    StageCost,
    environments,
    failures,
    stage_costs,
    total,
)
from analysis.study_figures import (
    arm_figure,
    cost_figure,
    difference_figure,
    effect_figure,
    history_figure,
    pareto_figure,
    slice_figure,
    write_figure,
)
from analysis.study_search import SearchSummary, search_summary
from analysis.study_table import StudyTable, study_table
from analysis.wording import count, seconds_text
from namd.ledger.view import StudyView
from namd.statistics.metrics import title_of
from namd.statistics.notices import RESEARCH_ONLY, simulated_notice
from namd.storage.base import Storage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Report:
    """The contents of a report.

    Attributes:
        view: The ledger's view.
        table: Arms, or a search's confirmed winners.
        search: The search; None for an ablation.
        costs: Cost per stage.
        ended: Trials that ended early.
        programs: Programs that built the artifacts.
        importance: Share per searched parameter, by objective; empty if it was not computed.
        warnings: Lines that a reader must see first, such as presets whose numbers mean nothing.
        comparison: The paper's Table 1 on this study's cohort; None if it has one method alone.
    """

    view: StudyView
    table: StudyTable
    search: SearchSummary | None
    costs: tuple[StageCost, ...]
    ended: tuple[Failure, ...]
    programs: tuple[Mapping[str, Any], ...]
    importance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    comparison: Comparison | None = None


def make_report(
    storage: Storage,
    view: StudyView,
    cohort: Path | None = None,
    importance: Mapping[str, Mapping[str, float]] | None = None,
    warnings: Sequence[str] = (),
    titles: Mapping[str, str] | None = None,
) -> Report:
    """Read and compute the contents of a study's report; `titles` are those of methods."""
    table = study_table(storage, view, cohort)
    return Report(
        view=view,
        table=table,
        search=search_summary(view) if table.kind == "search" else None,
        costs=tuple(stage_costs(storage, view)),
        ended=tuple(failures(view)),
        programs=tuple(environments(storage, view)),
        importance=importance or {},
        warnings=tuple(warnings),
        comparison=comparison_of(storage, view, table, titles),
    )


def all_tables(report: Report) -> list[tuple[str, Table]]:
    """Return the result tables by caption, the most important first."""
    return report_tables(report.table, report.search, report.importance, report.comparison)


def write_report(report: Report, folder: Path, pictures: Mapping[str, Path] | None = None) -> Path:
    """Write everything under a folder; return the HTML's path.

    Args:
        report: The contents.
        folder: Created if absent; files of an earlier report are replaced.
        pictures: Caption to PNG, shown in the HTML.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = _figures(report, folder / "figures")
    (folder / "table.md").write_text(to_markdown(report), encoding="utf-8")
    (folder / "table.csv").write_text(to_csv(report.table), encoding="utf-8")
    (folder / "seeds.csv").write_text(seeds_csv(report.table), encoding="utf-8")
    rows = json.dumps(report.table.rows, indent=1, allow_nan=False)
    (folder / "table.json").write_text(rows + "\n", encoding="utf-8")
    if report.table.effects:
        (folder / "effects.csv").write_text(effects_csv(report.table), encoding="utf-8")
        text = json.dumps(report.table.effects, indent=1, allow_nan=False)
        (folder / "effects.json").write_text(text + "\n", encoding="utf-8")
    if report.comparison is not None:
        for name, written in COMPARISONS.items():
            text = written(report.comparison, report.table)
            (folder / name).write_text(text, encoding="utf-8")
    page = folder / "report.html"
    page.write_text(to_html(report, figures, pictures or {}), encoding="utf-8")
    return page


COMPARISONS = {
    "comparison.tex": comparison_latex,
    "comparison.md": comparison_markdown,
    "comparison.csv": comparison_csv,
}
"""Files of a comparison of methods, in the form of the paper's Table 1."""


def to_markdown(report: Report) -> str:
    """Return the table and its notes as Markdown."""
    lines = [f"# {report.view.study}", "", report.table.question, ""]
    lines += [f"**{line}**" for line in banner_lines(report)]
    lines += ["", *(f"- {note}" for note in effect_notes(report.table))]
    for caption, table in all_tables(report):
        lines += ["", f"**{caption}**", "", *table.markdown()]
    lines += ["", *(f"- {note}" for note in note_lines(report))]
    return "\n".join(lines) + "\n"


def to_csv(table: StudyTable) -> str:
    """Return one line per arm and metric."""
    stream = io.StringIO()
    names = ["arm", "metric", "seeds", "seeds_planned", "mean", "low", "high", "std"]
    compared = ["difference", "difference_low", "difference_high", "p", "p_holm", "p_method"]
    writer = csv.DictWriter(stream, [*names, *compared, "simulated"], restval="")
    writer.writeheader()
    for row in table.rows:
        for metric in table.metrics:
            line = {name: row[name] for name in ("arm", "seeds", "seeds_planned")}
            line |= {"metric": metric, "simulated": table.simulated}
            own, difference = row.get(metric), row["differences"].get(metric)
            if own:
                line |= {name: own[name] for name in ("mean", "low", "high", "std")}
            if difference:
                line |= {name: difference[name] for name in ("p", "p_holm", "p_method")}
                line |= {
                    "difference": difference["mean"],
                    "difference_low": difference["low"],
                    "difference_high": difference["high"],
                }
            writer.writerow(line)
    return stream.getvalue()


def effects_csv(table: StudyTable) -> str:
    """Return one line per effect and metric."""
    stream = io.StringIO()
    numbers = ["seeds", "mean", "low", "high", "p", "p_holm", "p_method"]
    about = ["shows", "aliased_with", "missing", "simulated"]
    writer = csv.DictWriter(stream, ["effect", "metric", *numbers, *about], restval="")
    writer.writeheader()
    for effect in table.effects:
        for metric, estimate in effect["estimates"].items():
            line = {name: (estimate or {}).get(name) for name in numbers}
            line |= {"effect": effect["effect"], "metric": metric, "shows": effect["shows"]}
            if estimate is None:
                line["missing"] = effect["missing"] or "not measured in all its arms"
            line["simulated"] = table.simulated
            line["aliased_with"] = "; ".join(effect["aliases"])
            writer.writerow(line)
    return stream.getvalue()


def seeds_csv(table: StudyTable) -> str:
    """Return one line per arm, metric and training seed."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["arm", "metric", "seed", "value", f"difference_to_{table.reference}"])
    for row in table.rows:
        for metric in table.metrics:
            difference = (row["differences"].get(metric) or {}).get("per_seed", {})
            for seed, value in (row.get(metric) or {}).get("per_seed", {}).items():
                writer.writerow([row["arm"], metric, seed, value, difference.get(seed, "")])
    return stream.getvalue()


def to_html(
    report: Report, figures: Mapping[str, Path], pictures: Mapping[str, Path] | None = None
) -> str:
    """Return the report as one file without any outer resource."""
    view, table = report.view, report.table
    page = Page(f"{view.study}: {table.kind}")
    page.heading(view.study, 1)
    page.paragraph(table.question, "question")
    for line in banner_lines(report):
        page.paragraph(line, "banner")
    for line in report.warnings:
        page.paragraph(line, "warning")
    page.table(Table(("", ""), tuple(_facts(report))), header=False)
    page.heading("Result" if report.search is None else "Winners", 2)
    page.bullets(effect_notes(table))
    for caption, found in all_tables(report):
        page.table(found, caption)
    page.bullets(note_lines(report))
    for name, path in figures.items():
        page.figure(_data_uri(path, "svg+xml"), FIGURES[name][1], name)
    if pictures:
        page.heading("Draws", 2)
        for caption, path in pictures.items():
            page.figure(_data_uri(path, "png"), caption, caption)
    page.heading("How the intervals are formed", 2)
    for line in method_lines(table):
        page.paragraph(line)
    _cost_part(page, report)
    _endings_part(page, report)
    _provenance_part(page, report)
    page.paragraph(RESEARCH_ONLY, "footer")
    return page.text()


def method_lines(table: StudyTable) -> list[str]:
    """Explain how the numbers are computed, for a critical reader."""
    level = f"{table.level:.0%}"
    return [
        "AUROC and AUPRC rank the judge's probability after averaging it over the draws of a case "
        "(the rows called per draw: ranked for each draw, then averaged). An arm's value is the "
        "mean over its training seeds.",
        f"The patient is the unit: {table.num_bootstrap} resamples of patients (malignant and "
        "benign apart) are the same for all arms and seeds. Training seeds are a second random "
        "factor: the variance is that between seeds over their number, plus the covariance of two "
        "seeds under the same resamples (Obuchowski and Rockette 1995, seeds in the place of "
        f"readers); the {level} intervals use Student's t with Hillis' (2007) degrees of freedom, "
        "on the logit scale for AUROC and AUPRC.",
        f"Differences are arm minus {table.reference}, paired: same cases, same resamples, same "
        "seeds. p values are of that t; with a single seed and one case per patient, AUROC is "
        "compared by DeLong's test. Holm's correction takes all arms that the study declared as "
        "one family, for each metric apart; metrics other than "
        f"{title_of(table.primary)} are secondary and their p values are for orientation.",
        *_effect_method(table),
        "Image metrics compare draws with the real (or simulated) follow-up. Set metrics such as "
        "FID, and the share of the follow-up's gain, vary over training seeds only here; their "
        "intervals leave patients out.",
    ]


def _effect_method(table: StudyTable) -> list[str]:
    if table.design is None:
        return []
    return [
        "An effect is a weighted sum of arms, formed for each training seed and each resample of "
        "patients like a difference of two arms, and its interval and p likewise.",
    ]


FIGURES: dict[str, tuple[Callable[[Report], "Figure | None"], str]] = {
    "effects": (
        lambda report: effect_figure(report.table),
        "Each toggle's effect, and below the dotted line interactions of two: diamond and bar are "
        "mean and interval, each circle one training seed; those with a star are aliased, see the "
        "table.",
    ),
    "differences": (
        lambda report: difference_figure(report.table),
        "Paired difference to the reference arm: diamond and bar are mean and interval, each "
        "circle one training seed.",
    ),
    "arms": (
        lambda report: arm_figure(report.table),
        "Each arm: diamond and bar are mean and interval, each circle one training seed.",
    ),
    "history": (
        lambda report: history_figure(report.search) if report.search else None,
        "What the search found, proposal by proposal.",
    ),
    "slices": (
        lambda report: slice_figure(report.search) if report.search else None,
        "The objective against each parameter; later proposals are lighter, winners ringed.",
    ),
    "pareto": (
        lambda report: pareto_figure(report.search) if report.search else None,
        "Objectives against each other; numbers are proposals.",
    ),
    "cost": (
        lambda report: cost_figure(report.costs),
        "Device time per stage: executed, and that of trials without reuse.",
    ),
}


def _figures(report: Report, folder: Path) -> dict[str, Path]:
    """Write all figures that have data; return the SVGs by name."""
    found = {}
    for name, (draw, _) in FIGURES.items():
        figure = draw(report)
        if figure is not None:
            found[name] = write_figure(figure, folder, name)[1]
    return found


def banner_lines(report: Report) -> list[str]:
    """Return the notices to read before any number."""
    if report.table.simulated:
        return [f"{simulated_notice(report.table.law)} {RESEARCH_ONLY}"]
    if report.table.simulated is None:
        return [
            f"No cohort was found, so it is not known whether this is simulated. {RESEARCH_ONLY}"
        ]
    return [RESEARCH_ONLY]


def _facts(report: Report) -> list[tuple[str, str]]:
    view, table = report.view, report.table
    base = view.specification.get("base") or {}
    states = ", ".join(f"{n} {state}" for state, n in view.counts().items() if n)
    facts = [
        ("method and preset", f"{base.get('method')}, {base.get('preset') or 'no preset'}"),
        ("trials", states or "none yet"),
    ]
    if table.kind == "ablation":
        seeds = sorted({t.seed for t in view.trials.values()})
        facts.append(("training seeds", ", ".join(str(seed) for seed in seeds)))
        design = (view.specification.get("ablation") or {}).get("design", "")
        facts.append(("design", str(design) + _size(table)))
    if table.cases is not None:
        facts.append(
            (
                f"cases ({table.split} split)",
                f"{table.cases} of {table.patients} patients, {table.malignant} malignant, "
                f"{count(table.num_draws or 0, 'draw')} each",
            )
        )
    spent = total(report.costs)
    saved = spent.saved_seconds
    facts.append(("device time executed", seconds_text(spent.device_seconds)))
    if saved is not None:
        facts.append(("device time saved by reuse", seconds_text(saved)))
    return facts


def _size(table: StudyTable) -> str:
    design = table.design
    if design is None:
        return ""
    share = f": {design.num_combinations} of {2**design.num_toggles} combinations"
    return share + (f", resolution {design.resolution}" if design.resolution else "")


def note_lines(report: Report) -> list[str]:
    """Return the notes under the tables."""
    notes = list(report.table.notes)
    if report.comparison is not None:
        notes = [*footnotes(report.comparison, report.table), *notes]
    if report.search is not None:
        notes.append(
            "the value in the search is the best of many and so too good; the one on fresh "
            "training seeds is free of that, though both were measured on the validation split"
        )
        if not report.search.best:
            notes.append("no proposal is completed yet: there is no winner")
    return notes


def _cost_part(page: Page, report: Report) -> None:
    page.heading("Cost", 2)
    lines = []
    for cost in (*report.costs, total(report.costs)):
        saved = cost.saved_seconds
        lines.append(
            (
                cost.stage,
                str(cost.wanted),
                str(cost.distinct),
                str(cost.executed),
                seconds_text(cost.device_seconds),
                "unknown" if saved is None else seconds_text(saved),
            )
        )
    header = ("stage", "wanted", "distinct", "executed", "device time", "saved by reuse")
    page.table(Table(header, tuple(lines)))
    page.paragraph(
        "Wanted counts each artifact in every trial; device time is reserved accelerators (or "
        "cores, where there are none) times wall time; saved is against every trial building its "
        "own, what earlier studies left in the store included."
    )


def _endings_part(page: Page, report: Report) -> None:
    page.heading("What ended early", 2)
    if not report.ended:
        page.paragraph("Nothing.")
        return
    lines = tuple((e.state, e.reason or "no reason", "\n".join(e.trials)) for e in report.ended)
    page.table(Table(("state", "why", "trials"), lines))


def _provenance_part(page: Page, report: Report) -> None:
    page.heading("What made it", 2)
    for program in report.programs:
        libraries = program.get("libraries") or {}
        versions = ", ".join(f"{name} {version}" for name, version in sorted(libraries.items()))
        commit = str(program.get("git_commit") or "unknown")
        changed = " with uncommitted changes" if program.get("git_dirty") else ""
        page.paragraph(
            f"{count(program['artifacts'], 'artifact')}: commit {commit}{changed}; "
            f"Python {program.get('python')}; {versions}."
        )
    if not report.programs:
        page.paragraph("No manifest is in the store (any more).")
    page.details("The study file", json.dumps(report.view.specification, indent=2, sort_keys=True))
    page.details(
        "The base configuration, every automatic choice made",
        json.dumps(report.view.configuration, indent=2, sort_keys=True),
    )


def _data_uri(path: Path, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
