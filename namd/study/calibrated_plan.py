"""A study's plan; short runs here measure the costs that no manifest holds."""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from namd.config.errors import InputError, StageError
from namd.data.cohort import CASES_FILE
from namd.data.named_cohort import stand_in
from namd.ledger.view import StudyView
from namd.pipeline.run_configuration import RunConfiguration
from namd.pipeline.store import Store
from namd.study.calibration import NUM_RUNS, CohortSize, calibrate, measure_with_launcher
from namd.study.plan import Cluster, StudyPlan, make_study_plan
from namd.study.trials import Configurator

Say = Callable[[str], None]

MAX_NAMED = 4
"""Stages without a cost that a line names; of more it says the number."""


def calibrated_plan(
    configurator: Configurator,
    cluster: Cluster,
    *,
    cohort: Path,
    store: Store,
    view: StudyView | None,
    calibrated: bool,
    say: Say,
) -> StudyPlan:
    """Return a study's plan; short runs measure costs that no manifest holds, if allowed.

    Args:
        configurator: Of the study.
        cluster: What there is to run on.
        cohort: The cohort's folder; a phantom's need not exist yet, and is then not measured on.
        store: Where artifacts may already be.
        view: The study's ledger, if it was started before.
        calibrated: Whether short runs are allowed.
        say: Called with progress.

    Raises:
        InputError: As `make_study_plan`.
    """
    built = cohort.exists()
    planned = partial(
        make_study_plan,
        configurator.spec,
        configurator,
        cluster,
        cohort=cohort,
        store=store,
        view=view,
        cohort_digest=None if built else stand_in(cohort),
        say=say,
    )
    plan = planned()
    # Short runs read cases.
    if not plan.unknown or not calibrated or not built:
        return plan
    return planned(calibration=measured_costs(configurator, cohort, plan.unknown, say))


def measured_costs(
    configurator: Configurator, cohort: Path, unknown: tuple[str, ...], say: Say
) -> Mapping[str, float]:
    """Return the seconds of one worker per stage, by short runs; empty if these fail."""
    measure, begun = measure_with_launcher(cohort), itertools.count(1)

    def announced(configuration: RunConfiguration) -> Mapping[str, float]:
        number = next(begun)
        word = ", to warm the machine" if number == 1 else ""
        say(f"short run {number} of {NUM_RUNS}{word}")
        return measure(configuration)

    named = ", ".join(unknown) if len(unknown) <= MAX_NAMED else f"{len(unknown)} stages"
    say(f"no recorded cost of {named}: measuring by short runs (--no-calibration leaves it)")
    size = cohort_size(cohort, configurator.spec.split)
    try:
        return calibrate(configurator.base(), size, announced)
    except (InputError, StageError) as error:
        say(f"the short runs failed ({error}); these costs stay unknown")
        return {}


def cohort_size(cohort: Path, split: str) -> CohortSize:
    """Return how many cases a cohort has to train on, and to evaluate."""
    splits = pq.read_table(cohort / CASES_FILE, columns=["split"])["split"].to_pylist()
    return CohortSize(splits.count("train"), splits.count(split))
