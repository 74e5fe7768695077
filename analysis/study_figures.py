"""Figures of a study: differences, arms, cost, and the course of a search. PNG and SVG.

Colours are Okabe and Ito's colour-blind safe palette; no information is in colour alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from analysis.study_cost import StageCost
from analysis.study_search import Proposed, SearchSummary
from analysis.study_table import StudyTable
from analysis.wording import number, p_text, signed
from namd.statistics.metrics import title_of

mpl.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, GREEN = "#0072B2", "#D55E00", "#6b6b6b", "#009E73"
STYLE = {
    "svg.hashsalt": "namd",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}
SHOWN_SLICES = 12


def write_figure(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG and close it; the same figure gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    with mpl.rc_context(STYLE):
        figure.savefig(paths[0], dpi=130, bbox_inches="tight")
        figure.savefig(paths[1], bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return paths


def difference_figure(table: StudyTable) -> "Figure | None":
    """Return the forest plot: arm minus reference with interval and every seed's point."""
    name = table.primary
    rows = [row for row in table.rows if row["difference"] is not None]
    if not rows:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 1.1 + 0.55 * len(rows)), layout="constrained")
        axes.axvline(0, color=GREY, linewidth=1)
        for place, row in enumerate(rows):
            found = row["difference"]
            _row(axes, found, place, _difference_text(found))
        _arm_axis(axes, [row["arm"] for row in rows])
        axes.set_xlabel(f"{title_of(name)}: arm minus {table.reference}, same cases and seeds")
        axes.set_title(_heading(table), fontsize=9, loc="left")
        return figure


def effect_figure(table: StudyTable) -> "Figure | None":
    """Return the forest plot of a design's effects: toggles above the line, interactions below."""
    rows = [effect for effect in table.effects if effect["estimate"] is not None]
    if not rows:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 1.1 + 0.55 * len(rows)), layout="constrained")
        axes.axvline(0, color=GREY, linewidth=1)
        for place, row in enumerate(rows):
            _row(axes, row["estimate"], place, _difference_text(row["estimate"]))
        single = sum(len(row["toggles"]) == 1 for row in rows)
        if 0 < single < len(rows):
            axes.axhline(single - 0.45, color=GREY, linewidth=0.8, linestyle=":")
        _arm_axis(axes, [row["effect"] + ("*" if row["aliases"] else "") for row in rows])
        axes.set_xlabel(f"{title_of(table.primary)}: applied minus not applied")
        axes.set_title(_heading(table), fontsize=9, loc="left")
        return figure


def arm_figure(table: StudyTable) -> "Figure | None":
    """Return the primary metric per arm: mean, interval, every seed."""
    name = table.primary
    rows = [row for row in table.rows if row.get(name) is not None]
    if not rows:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 1.1 + 0.5 * len(rows)), layout="constrained")
        for place, row in enumerate(rows):
            found = row[name]
            _row(axes, found, place, _estimate_text(found))
        _arm_axis(axes, [row["arm"] for row in rows])
        axes.set_xlabel(title_of(name))
        axes.set_title(_heading(table), fontsize=9, loc="left")
        return figure


def cost_figure(costs: Sequence[StageCost]) -> "Figure | None":
    """Return device time per stage: executed, beside that of trials without reuse."""
    shown = [cost for cost in costs if cost.wanted]
    if not shown:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 1.1 + 0.42 * len(shown)), layout="constrained")
        place = np.arange(len(shown))
        most = max(max(c.alone_seconds or 0, c.device_seconds) for c in shown)
        unit, scale = ("s", 1.0) if most < 300 else ("min", 60.0)
        if most >= 4 * 3600:
            unit, scale = "h", 3600.0
        alone = [(cost.alone_seconds or 0.0) / scale for cost in shown]
        spent = [cost.device_seconds / scale for cost in shown]
        axes.barh(
            place - 0.19,
            alone,
            0.36,
            color="white",
            edgecolor=GREY,
            hatch="///",
            label="trials without reuse",
        )
        axes.barh(place + 0.19, spent, 0.36, color=BLUE, label="executed")
        for line, cost in enumerate(shown):
            axes.annotate(
                f"{cost.executed} built for {cost.wanted} wanted",
                (max(alone[line], spent[line]), line),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
            )
        axes.set_yticks(place, [cost.stage for cost in shown])
        axes.invert_yaxis()
        axes.margins(x=0.25)
        axes.set_xlabel(f"device time, {unit}")
        axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        return figure


def history_figure(summary: SearchSummary) -> "Figure | None":
    """Return the objectives over the proposals, with the best so far."""
    if not any(proposal.values for proposal in summary.proposals):
        return None
    with mpl.rc_context(STYLE):
        count = len(summary.objectives)
        figure, panels = plt.subplots(
            count, 1, figsize=(7.6, 2.6 * count), squeeze=False, layout="constrained"
        )
        for axes, (metric, mode) in zip(panels[:, 0], summary.objectives.items(), strict=True):
            _history(axes, summary, metric, mode)
        return figure


def slice_figure(summary: SearchSummary) -> "Figure | None":
    """Return the first objective against each searched parameter."""
    done = [proposal for proposal in summary.proposals if proposal.values]
    names = list(dict.fromkeys(name for proposal in done for name in proposal.point))[:SHOWN_SLICES]
    if not names:
        return None
    metric = next(iter(summary.objectives))
    with mpl.rc_context(STYLE):
        columns = min(3, len(names))
        lines = -(-len(names) // columns)
        figure, panels = plt.subplots(
            lines,
            columns,
            figsize=(2.9 * columns + 0.4, 2.4 * lines),
            squeeze=False,
            sharey=True,
            layout="constrained",
        )
        for axes in panels.flat[len(names) :]:
            axes.set_visible(False)
        for axes, name in zip(panels.flat, names, strict=False):
            _slice(axes, done, name, metric, summary)
        for axes in panels[:, 0]:
            axes.set_ylabel(title_of(metric))
        return figure


def pareto_figure(summary: SearchSummary) -> "Figure | None":
    """Return the first two objectives against each other; None for a single one."""
    done = [proposal for proposal in summary.proposals if proposal.values]
    if len(summary.objectives) < 2 or not done:
        return None
    (first, first_mode), (second, second_mode) = list(summary.objectives.items())[:2]
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
        front = sorted((p for p in done if p.number in summary.best), key=lambda p: p.values[first])
        axes.scatter(
            [p.values[first] for p in done],
            [p.values[second] for p in done],
            s=22,
            color=GREY,
            label="completed",
        )
        axes.plot(
            [p.values[first] for p in front],
            [p.values[second] for p in front],
            "D-",
            color=ORANGE,
            markersize=6,
            linewidth=1,
            label="not dominated",
        )
        for place, proposal in enumerate(front):
            axes.annotate(
                str(proposal.number),
                (proposal.values[first], proposal.values[second]),
                xytext=(0, 6 if place % 2 else -13),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axes.set_xlabel(f"{title_of(first)} ({first_mode})")
        axes.set_ylabel(f"{title_of(second)} ({second_mode})")
        axes.legend(frameon=False, fontsize=8)
        return figure


def _history(axes: "Axes", summary: SearchSummary, metric: str, mode: str) -> None:
    done = [proposal for proposal in summary.proposals if proposal.values]
    numbers = [proposal.number for proposal in done]
    values = np.array([proposal.values[metric] for proposal in done])
    best = np.maximum.accumulate(values) if mode == "max" else np.minimum.accumulate(values)
    axes.scatter(numbers, values, s=20, color=BLUE, label="completed")
    axes.step(numbers, best, where="post", color=ORANGE, linewidth=1.2, label="best so far")
    ended = [p.number for p in summary.proposals if p.state in ("pruned", "failed", "diverged")]
    if ended:
        low = float(values.min())
        axes.scatter(
            ended, [low] * len(ended), s=24, marker="x", color=GREY, label="pruned or failed"
        )
    axes.set_xlabel("proposal")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylabel(f"{title_of(metric)} ({mode})")
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


def _slice(
    axes: "Axes", done: Sequence[Proposed], name: str, metric: str, summary: SearchSummary
) -> None:
    shown = [proposal for proposal in done if name in proposal.point]
    raw = [proposal.point[name] for proposal in shown]
    values = [proposal.values[metric] for proposal in shown]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in raw)
    places: Sequence[Any] = raw
    if not numeric:
        levels = list(dict.fromkeys(str(v) for v in raw))
        places = [levels.index(str(v)) for v in raw]
        axes.set_xticks(range(len(levels)), levels, fontsize=7)
        axes.margins(x=0.3)
    elif name in summary.logarithmic:
        axes.set_xscale("log")
    order = [proposal.number for proposal in shown]
    axes.scatter(places, values, c=order, cmap="cividis", s=20, vmin=0, vmax=max(order) or 1)
    for proposal, place, value in zip(shown, places, values, strict=True):
        if proposal.number in summary.best:
            axes.scatter([place], [value], s=70, facecolors="none", edgecolors=ORANGE, linewidths=2)
    axes.set_title(name, fontsize=8)


def _row(axes: "Axes", found: Mapping[str, Any], place: int, text: str) -> None:
    """Draw every seed's point, the interval, and the numbers at the right edge."""
    _points(axes, found["per_seed"].values(), place)
    _interval(axes, found, place)
    axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)


def _points(axes: "Axes", values: Any, place: int) -> None:  # noqa: ANN401 - a view of floats
    found = list(values)
    if len(found) > 1:
        axes.scatter(
            found,
            [place + 0.2] * len(found),
            s=22,
            facecolors="none",
            edgecolors=ORANGE,
            linewidths=1.2,
            zorder=3,
        )


def _interval(axes: "Axes", found: Mapping[str, Any], place: int) -> None:
    if found["low"] is not None:
        axes.plot([found["low"], found["high"]], [place, place], color=BLUE, linewidth=2)
    axes.plot([found["mean"]], [place], marker="D", color=BLUE, markersize=6, zorder=4)


def _arm_axis(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.grid(axis="x", color="#e3e3e3", linewidth=0.6)


def _heading(table: StudyTable) -> str:
    parts = [f"{table.level:.0%} intervals, circles: one training seed each"]
    if table.cases is not None:
        parts.append(f"{table.split} split, {table.cases} cases")
    if table.simulated:
        parts.append("SIMULATED cohort")
    return "; ".join(parts)


def _estimate_text(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return number(found["mean"])
    return f"{number(found['mean'])} [{number(found['low'])}, {number(found['high'])}]"


def _difference_text(found: Mapping[str, Any]) -> str:
    text = signed(found["mean"])
    if found["low"] is not None:
        text += f" [{signed(found['low'])}, {signed(found['high'])}]"
    if found["p_holm"] is not None:
        text += f"\np {p_text(found['p_holm'])} (Holm)"
    return text
