"""`namd study plan`: what a study will run, what is there already, what the rest costs."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from namd.cli.output import answer, columns, duration, echo
from namd.cli.study_inputs import (
    find_study_cohort,
    read_spec,
    source_of,
    store_url,
)
from namd.config.errors import about
from namd.data.named_cohort import not_built
from namd.study.opening import past

if TYPE_CHECKING:
    from namd.study.designs import Fraction
    from namd.study.plan import Cluster, StudyPlan
    from namd.study.spec import StudySpec

REFUSED = 2
MAX_ALIASES = 4
"""Toggles whose aliases a plan for people names; --json has them all."""


def plan_command(arguments: argparse.Namespace) -> int:
    """Print a study's plan: 0 if it can run, 2 with the reason where it cannot.

    Raises InputError if the file, the cohort or the store cannot be used.
    """
    from namd.cli.run import announce_weights
    from namd.pipeline.store import view_store
    from namd.study.calibrated_plan import calibrated_plan
    from namd.study.trials import Configurator

    spec = read_spec(arguments.file, arguments.store)
    source = source_of(arguments.file)
    with about(source):
        configurator = Configurator(spec)
        configurator.check()
        configurator.check_measured()
        url = store_url(arguments.store, spec)
        store = view_store(url)
        if store.is_empty:
            echo(f"store {url}: nothing is there yet; `namd study run` makes it")
        view = past(url, spec.name)
        recorded = view.about.get("cohort") if view is not None else None
        cohort = find_study_cohort(
            arguments.cohort, spec, url, recorded, configurator.demands(), build=False
        )
        announce_weights(configurator.base())
        plan = calibrated_plan(
            configurator,
            cluster_at(arguments.address),
            cohort=cohort,
            store=store,
            view=view,
            calibrated=arguments.calibration,
            say=echo,
        )
    built = cohort.exists()
    text = as_text(plan, spec) if built else f"{as_text(plan, spec)}\n{not_built(cohort)}"
    answer(arguments, plan.to_mapping() | {"cohort_built": built}, text)
    if plan.refused is not None:
        echo(f"refused: {source}: {plan.refused}")
    return REFUSED if plan.refused is not None else 0


def cluster_at(address: str | None) -> "Cluster":
    """Return what a Ray cluster has, or what this machine has where no address is given."""
    if address not in (None, "local"):
        from namd.distributed.session import open_session

        with open_session(address) as session:
            return session.cluster
    from namd.study.this_machine import this_machine

    return this_machine()


def as_text(plan: "StudyPlan", spec: "StudySpec") -> str:
    """Return a plan for people."""
    lines = [f"{plan.study}: {_size(plan, spec)}"]
    if spec.question:
        lines.append(spec.question)
    if plan.fraction is not None:
        lines.append(_fraction_line(plan.fraction))
    lines += ["", *(_arm_lines(plan, spec) if spec.ablation else _space_lines(spec))]
    lines += ["", *_stage_lines(plan), "", *_cost_lines(plan)]
    return "\n".join(lines)


def _size(plan: "StudyPlan", spec: "StudySpec") -> str:
    if spec.search is None:
        seeds = len(spec.train_seeds)
        return f"{len(plan.arms)} arms x {seeds} training seeds = {plan.trials} trials"
    search = spec.search
    text = f"{plan.trials} trials: {search.num_trials} proposals by {search.sampler}"
    text += f" x {search.seeds} training seeds" if search.seeds > 1 else ""
    return f"{text}, the best one again on {search.confirm_seeds} fresh seeds"


def _fraction_line(fraction: "Fraction") -> str:
    """Return how much of a design is run, its resolution, and what toggles stand for besides."""
    plan = fraction.to_mapping()
    toggles, base = len(fraction.factors), fraction.num_base
    if not fraction.words:
        return f"fraction: all 2^{toggles} = {plan['runs']} combinations, so nothing is confounded"
    size = f"2^({toggles}-{toggles - base}) = {plan['runs']} of {plan['combinations']} combinations"
    line = f"fraction: {size}, resolution {plan['resolution']}"
    pairs = [
        f"{name} = {' = '.join(' × '.join(pair) for pair in found)}"
        for name, found in plan["aliases"].items()
        if found
    ]
    if not pairs:
        return f"{line}: no toggle is confounded with another one or with two together"
    more = f", and {len(pairs) - MAX_ALIASES} more" if len(pairs) > MAX_ALIASES else ""
    return f"{line}; aliased: {', '.join(pairs[:MAX_ALIASES])}{more}"


def _arm_lines(plan: "StudyPlan", spec: "StudySpec") -> list[str]:
    if spec.ablation is None:
        return []
    overrides = {arm.name: arm.overrides for arm in spec.ablation.arms()}
    rows = [
        [
            name,
            ", ".join(f"{path}={value}" for path, value in overrides[name].items()) or "the base",
            f"same as {', '.join(same)}" if same else "",
        ]
        for name, same in plan.arms.items()
    ]
    return _filled(["arm", "sets", "merged"], rows)


def _space_lines(spec: "StudySpec") -> list[str]:
    if spec.search is None:
        return []
    rows = []
    for name, values in spec.search.space.items():
        kept = dict(values) if isinstance(values, Mapping) else {"": values}
        when = kept.pop("when", None)
        rows.append(
            [
                name,
                ", ".join(f"{word} {value}" for word, value in kept.items()),
                "" if when is None else str(when),
            ]
        )
    objectives = [f"{o.metric} ({o.mode}, {o.split})" for o in spec.search.objectives]
    return [*_filled(["parameter", "values", "when"], rows), f"for {', '.join(objectives)}"]


def _stage_lines(plan: "StudyPlan") -> list[str]:
    rows = []
    for stage in plan.stages:
        missing = stage.distinct - stage.in_store
        known = stage.seconds_each is not None and missing
        rows.append(
            [
                stage.stage,
                str(stage.distinct),
                str(stage.in_store),
                str(missing),
                _seconds(stage.seconds_each or 0.0) if known else "-",
                _seconds(stage.seconds) if known else "-",
                stage.source,
                f"{stage.other_source} by other source" if stage.other_source else "",
            ]
        )
    header = ["stage", "distinct", "in store", "to build", "each", "together", "known from", "note"]
    lines = _filled(header, rows)
    distinct = sum(stage.distinct for stage in plan.stages)
    held = sum(stage.in_store for stage in plan.stages)
    return [
        *lines,
        "",
        f"{plan.stages_total} stages in all trials, {distinct} of them distinct: {held} in the "
        f"store, {distinct - held} to build",
    ]


def _cost_lines(plan: "StudyPlan") -> list[str]:
    least = "at least " if plan.unknown else ""
    hours = f"{least}{plan.device_hours:.2f} device hours to go"
    if plan.unknown and not plan.device_hours:
        hours = "cost unknown: no stage like these was built in this store before"
    elif plan.unknown:
        hours += f" (not counting {', '.join(plan.unknown)}, of which nothing is known)"
    if plan.spent_hours:
        hours += f", {plan.spent_hours:.2f} spent"
    if plan.budget_hours is not None:
        hours += f", budget {plan.budget_hours:g}"
    lines = [hours]
    if plan.peak_concurrency and plan.device_hours:
        wall = plan.wall_seconds / plan.peak_concurrency
        lines.append(
            f"estimated wall time {least}{duration(wall)} with {plan.peak_concurrency} concurrent "
            f"stage{'s' if plan.peak_concurrency > 1 else ''}"
        )
    elif plan.peak_concurrency:
        lines.append(f"at most {plan.peak_concurrency} stages are built at once")
    if plan.estimated:
        lines.append(
            "later proposals depend on outcomes: random points of the space stand in for them"
        )
    return lines


def _filled(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table's lines without the columns in which nothing stands."""
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    picked = [[row[i] for i in kept] for row in rows]
    return columns([header[i] for i in kept], picked).splitlines()


def _seconds(seconds: float) -> str:
    """Return a duration; tenths where seconds are few."""
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
