"""What stages cost on this machine, from two short runs of a study's base configuration.

For stages without a manifest. A stage's cost is taken as a fixed part and a part in
proportion to its optimiser steps, or to the cases it draws and scores; two lengths give both. A
shorter run goes before them and is not counted: imports and first calls would all be its share, and
the longer run would look like the faster one.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namd.config.parsing import to_mapping
from namd.methods.base import Stage
from namd.pipeline.graph import make_plan
from namd.pipeline.launcher import Launcher
from namd.pipeline.reporting import SilentReporter
from namd.pipeline.run_configuration import RunConfiguration, from_mapping
from namd.pipeline.store import open_store

NUM_RUNS = 3
"""Short runs of a calibration, the one that warms the machine among them."""

Measure = Callable[[RunConfiguration], Mapping[str, float]]


@dataclass(frozen=True)
class CalibrationLengths:
    """How short the two runs are.

    Attributes:
        steps: Optimiser steps of every training stage in the first and second run.
        cases: Cases that are drawn and scored, likewise.
        warm_up: Steps and cases of the run that goes before them.
    """

    steps: tuple[int, int] = (4, 20)
    cases: tuple[int, int] = (16, 64)
    warm_up: tuple[int, int] = (1, 8)

    def __post_init__(self) -> None:
        """Reject runs of one length, which give no slope."""
        for name in ("steps", "cases"):
            first, second = getattr(self, name)
            if not 0 < first < second:
                raise ValueError(f"{name} rise from above 0, not {first}, {second}")


@dataclass(frozen=True)
class CohortSize:
    """Cases of the cohort: those trained on, and those of the evaluated split."""

    train: int
    evaluated: int


def calibrate(
    configuration: RunConfiguration,
    size: CohortSize,
    measure: Measure,
    lengths: CalibrationLengths | None = None,
    methods: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Return the seconds that one worker takes for one artifact of each stage of a configuration.

    What they are charged follows from what a worker reserves (see namd.study.worker_groups).

    Args:
        configuration: What will be run at full length.
        size: Of the cohort.
        measure: Runs a configuration and returns the seconds of one worker per stage name.
        lengths: Of the two short runs.
        methods: Replaces the registry.
    """
    lengths = lengths or CalibrationLengths()
    whole = to_mapping(configuration.config)
    measured = []
    for steps, cases in (lengths.warm_up, *zip(lengths.steps, lengths.cases, strict=True)):
        short = shortened(whole, steps, cases)
        short["method"] = configuration.method.name
        measured.append(measure(from_mapping(short, None, methods)))
    del measured[0]
    stages = {stage.name: stage for stage in configuration.stages()}
    found = {}
    for name, first in measured[0].items():
        low, high, full = amounts(stages[name], whole, size, lengths)
        # Noise may make the longer run the faster one; a cost never falls with the length.
        slope = max(0.0, (measured[1][name] - first) / (high - low)) if high > low else 0.0
        found[name] = max(0.0, first + slope * (full - low))
    return found


def measure_with_launcher(cohort: Path) -> Measure:
    """Return a measure that builds the stages here, in a scratch store that is then removed."""

    def measure(configuration: RunConfiguration) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="namd-calibration-") as folder:
            launcher = Launcher(open_store(f"{folder}/store"), cohort, SilentReporter())
            plan = make_plan(configuration.stages(), configuration.config, cohort)
            _, artifacts = launcher.build(plan)
            return {
                artifact.stage: float(artifact.manifest()["device_seconds"])
                for artifact in artifacts.values()
            }

    return measure


def amounts(
    stage: Stage, whole: Mapping[str, Any], size: CohortSize, lengths: CalibrationLengths
) -> tuple[int, int, int]:
    """Return what a stage's cost is in proportion to: in the two short runs and at full length."""
    section = _training(stage, whole)
    if section is not None:
        full = _steps(section, size.train)
        return min(lengths.steps[0], full), min(lengths.steps[1], full), full
    if stage.role in ("draw", "score"):
        full = min(whole["evaluate"].get("num_cases") or size.evaluated, size.evaluated)
        return min(lengths.cases[0], full), min(lengths.cases[1], full), full
    return 0, 0, 0


def _training(stage: Stage, whole: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the mapping that states a training's steps.

    It is the first section that the stage reads and that has them, or a mapping right inside it.
    """
    sections = [whole.get(path) for path in stage.reads] if stage.role == "train" else []
    for section in sections:
        if isinstance(section, Mapping):
            for found in (section, *section.values()):
                if isinstance(found, Mapping) and "num_steps" in found:
                    return found
    return None


def _steps(section: Mapping[str, Any], num_cases: int) -> int:
    if section.get("num_epochs") is not None:
        return int(section["num_epochs"]) * max(1, num_cases // int(section["batch_size"]))
    return int(section["num_steps"])


def shortened(whole: Mapping[str, Any], steps: int, cases: int) -> dict[str, Any]:
    """Return the configuration with every training cut to `steps` and one draw of `cases`."""

    def cut(value: Any) -> Any:  # noqa: ANN401 - any configuration value
        if not isinstance(value, Mapping):
            return value
        result = {name: cut(item) for name, item in value.items()}
        if "num_steps" in result:
            epochs = result.get("num_epochs")
            result["num_steps"] = steps if epochs else min(steps, result["num_steps"])
            if "num_epochs" in result:
                result["num_epochs"] = None
        return result

    short = cut(whole)
    known = short["evaluate"].get("num_cases")
    short["evaluate"]["num_draws"] = 1
    if "num_cases" in short["evaluate"]:
        short["evaluate"]["num_cases"] = min(cases, known or cases)
        short["evaluate"]["minimum_malignant"] = min(
            2, short["evaluate"].get("minimum_malignant", 2)
        )
    return short
