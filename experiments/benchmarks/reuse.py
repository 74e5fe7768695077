"""What sharing stages saves: a study through our driver against each of its trials alone.

The study runs on local Ray and a store of its own; then each of its trials runs by itself in this
process, one after the other, each on an empty store, with the threads of a stage worker. Compared
are device-seconds: what the study's stage workers reserved (waits and starts included) against the
stages' own seconds, and what the trials took alone against the same.

    python -m experiments.benchmarks.reuse experiments/table-ablation.yaml --cohort C
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from namd.config.places import local_path
from namd.distributed.driver import run_study
from namd.ledger.view import StudyView
from namd.pipeline.run import run
from namd.pipeline.store import open_store
from namd.study.reporting import SilentStudyReporter
from namd.study.spec import StudySpec, read_study
from namd.study.trials import Configurator, Trial, ablation_trials


@dataclass(frozen=True)
class Shared:
    """What a finished study cost, by its ledger.

    Attributes:
        trials: How many completed.
        stages_needed: Stages of all trials, each counted in every trial.
        stages_executed: Keys that were built.
        max_executions: Of one key; 1 where nothing was built twice.
        stage_seconds: Device-seconds of the stages that were built.
        reserved_seconds: Device-seconds that stage workers held, their starts and waits included.
        wall_seconds: From planning to the closed ledger.
    """

    trials: int
    stages_needed: int
    stages_executed: int
    max_executions: int
    stage_seconds: float
    reserved_seconds: float
    wall_seconds: float

    @property
    def reserved_over_summed(self) -> float:
        """How much more was reserved than used."""
        return self.reserved_seconds / self.stage_seconds


class Idle(SilentStudyReporter):
    """Keeps what the stage workers reserved without building."""

    seconds = 0.0

    def event(self, *arguments: Any) -> None:  # noqa: ANN401 - a reporter's arguments, body third
        """Add what the driver accounts for at its end."""
        self.seconds += float(arguments[2].get("idle_device_seconds", 0.0))


def together(spec: StudySpec, cohort: Path, store: Path) -> Shared:
    """Run the study on local Ray and an empty store; return what it cost."""
    reporter = Idle()
    began = time.perf_counter()
    view = run_study(spec, cohort=cohort, store_url=str(store), address=None, reporter=reporter)
    return cost(view, reporter.seconds, time.perf_counter() - began)


def cost(view: StudyView, idle: float, wall: float) -> Shared:
    """Return what a study cost, by its ledger and what its stage workers held idly."""
    needed = [(stage.key, stage) for trial in view.trials.values() for stage in trial.stages]
    executed = view.executions()
    if {key for key, _ in needed} != set(executed):
        raise ValueError("the stages that were executed are not those that were needed")
    built = {key: stage for key, stage in needed if not stage.cached}
    return Shared(
        trials=view.counts()["completed"],
        stages_needed=len(needed),
        stages_executed=len(executed),
        max_executions=max(executed.values()),
        stage_seconds=sum(stage.device_seconds for stage in built.values()),
        reserved_seconds=sum(stage.reserved for stage in built.values()) + idle,
        wall_seconds=wall,
    )


def alone(trial: Trial, cohort: Path) -> tuple[float, float]:
    """Run one trial on an empty store; return its stages' seconds and the whole run's."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = run(trial.configuration, cohort, open_store(folder))
        wall = time.perf_counter() - began
    if any(stage.cached for stage in result.stages):
        raise ValueError(f"{folder} was not empty")
    return sum(stage.seconds for stage in result.stages), wall


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", help="file of an ablation study")
    parser.add_argument("--cohort", type=local_path, required=True)
    parser.add_argument("--json", action="store_true", help="print JSON alone to stdout")
    options = parser.parse_args(arguments)
    spec = read_study(Path(options.study))
    if spec.ablation is None:
        parser.error(f"{options.study}: not an ablation; a search's trials depend on one another")
    trials = ablation_trials(spec, Configurator(spec))
    with tempfile.TemporaryDirectory() as folder:
        shared = together(spec, options.cohort, Path(folder) / "store")
    torch.set_num_threads(1)
    stages, walls = [], []
    for number, trial in enumerate(trials, 1):
        seconds, wall = alone(trial, options.cohort)
        stages.append(seconds)
        walls.append(wall)
        left = (len(trials) - number) * statistics.fmean(walls)
        print(f"alone: {number} of {len(trials)}, {left:.0f} s left", file=sys.stderr)
    found = {name: round(value, 1) for name, value in asdict(shared).items()} | {
        "reserved_over_summed": round(shared.reserved_over_summed, 3),
        "alone_stage_seconds": round(sum(stages), 1),
        "alone_over_summed": round(sum(stages) / shared.stage_seconds, 3),
        "alone_over_reserved": round(sum(stages) / shared.reserved_seconds, 3),
        "alone_wall_seconds": round(sum(walls), 1),
        "alone_wall_over_wall": round(sum(walls) / shared.wall_seconds, 3),
    }
    if options.json:
        print(json.dumps(found))
        return 0
    for name, value in found.items():
        print(f"{name:<22} {value:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
