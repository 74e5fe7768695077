"""How large the stages of a method are and how long one of their steps takes on this machine.

From short runs like those of a plan's calibration, so that it holds for any method that is
registered. The judge, which every method shares, is left out.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from namd.config.parsing import to_mapping
from namd.methods.base import Stage
from namd.pipeline.graph import make_plan
from namd.pipeline.launcher import Launcher
from namd.pipeline.reporting import SilentReporter
from namd.pipeline.run_configuration import RunConfiguration, from_mapping
from namd.pipeline.store import open_store
from namd.storage.tensor_counts import stored_numbers
from namd.study.calibration import CalibrationLengths, CohortSize, amounts, shortened

LENGTHS = CalibrationLengths(steps=(2, 10), cases=(8, 24), warm_up=(1, 8))
"""Short enough for a preset whose steps take a second."""

UNITS = {"train": "step", "draw": "image"}
"""What is counted in a stage of a role; of other roles nothing is."""


@dataclass(frozen=True)
class Built:
    """One stage of a short run.

    Attributes:
        seconds: Of one worker.
        parameters: Numbers stored in its artifact.
    """

    seconds: float
    parameters: int


@dataclass(frozen=True)
class StageCost:
    """What one stage costs.

    Attributes:
        stage: Its name.
        unit: `step` of a training, or `image` of a draw.
        amount: How many at full length.
        parameters: Numbers stored in its artifact, buffers included; of draws, those of all that
            they read.
        seconds_each: Seconds for one, without validations and what is done once.
    """

    stage: str
    unit: str
    amount: int
    parameters: int
    seconds_each: float

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


Measure = Callable[[RunConfiguration], Mapping[str, Built]]


def method_costs(
    configuration: RunConfiguration,
    size: CohortSize,
    measure: Measure,
    methods: Mapping[str, Any] | None = None,
) -> list[StageCost]:
    """Return the cost of each training and of the draws, upstream first.

    Args:
        configuration: What would be run at full length.
        size: Of the cohort.
        measure: Runs a configuration and returns what was built, by stage name.
        methods: Replaces the registry.
    """
    whole = to_mapping(configuration.config)
    lengths = (LENGTHS.warm_up, *zip(LENGTHS.steps, LENGTHS.cases, strict=True))
    _, short, longer = (
        measure(_cut(configuration, whole, steps, cases, methods)) for steps, cases in lengths
    )
    stages = {stage.name: stage for stage in configuration.stages() if stage.role in UNITS}
    return [
        StageCost(
            stage=name,
            unit=UNITS[stage.role],
            amount=(counts := amounts(stage, whole, size, LENGTHS))[2],
            parameters=_parameters(stage, longer),
            seconds_each=_slope(counts, short[name].seconds, longer[name].seconds),
        )
        for name, stage in stages.items()
        if name in short
    ]


def measure_draws(cohort: Path) -> Measure:
    """Return a measure that builds what draws depend on, in a store that is then removed."""

    def measure(configuration: RunConfiguration) -> dict[str, Built]:
        stages = configuration.stages()
        draws = [stage.name for stage in stages if stage.role == "draw"]
        with tempfile.TemporaryDirectory(prefix="namd-costs-") as folder:
            store = open_store(f"{folder}/store")
            plan = make_plan(stages, configuration.config, cohort, targets=draws)
            _, artifacts = Launcher(store, cohort, SilentReporter()).build(plan)
            return {
                found.stage: Built(
                    float(found.manifest()["device_seconds"]),
                    stored_numbers(store.backend.storage, found.stage, found.key) or 0,
                )
                for found in artifacts.values()
            }

    return measure


def _cut(
    configuration: RunConfiguration,
    whole: Mapping[str, Any],
    steps: int,
    cases: int,
    methods: Mapping[str, Any] | None,
) -> RunConfiguration:
    short = shortened(whole, steps, cases) | {"method": configuration.method.name}
    return from_mapping(short, None, methods)


def _parameters(stage: Stage, built: Mapping[str, Built]) -> int:
    """Return the numbers in a trained stage, or in all that draws read."""
    names = stage.upstream if stage.role == "draw" else (stage.name,)
    return sum(built[name].parameters for name in names)


def _slope(counts: tuple[int, int, int], short: float, longer: float) -> float:
    """Return the seconds for one; noise may make the longer run the faster one."""
    low, high, _ = counts
    return max(0.0, (longer - short) / (high - low)) if high > low else 0.0
