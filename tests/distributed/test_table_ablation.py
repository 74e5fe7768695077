"""The shipped table ablation on preset tiny: 18 trials, every stage for real, on Ray."""

import json
import sys
from pathlib import Path

import pytest

from namd.cli.main import main
from namd.distributed.driver import run_study
from namd.study.reporting import SilentStudyReporter
from namd.study.spec import read_study

REPOSITORY = Path(__file__).resolve().parents[2]
CASES = 400
MOST_RESERVED = 1.25

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Idle(SilentStudyReporter):
    """Keeps what the builders reserved without building."""

    idle = 0.0

    def event(self, trial, transition, body, view) -> None:
        self.idle += float(body.get("idle_device_seconds", 0.0))


@pytest.mark.timeout(3000)
def test_each_stage_of_the_table_ablation_is_executed_once(ray_cluster, tmp_path):
    cohort = tmp_path / "cohort"
    build = ["cohort", "build", "phantom", "--cases", str(CASES), "--replicates", "4"]
    assert main([*build, "--seed", "2", "--out", str(cohort)]) == 0
    spec = read_study(REPOSITORY / "experiments" / "table-ablation.yaml")
    reporter = Idle()
    store = tmp_path / "store"
    view = run_study(spec, cohort=cohort, store_url=str(store), address=None, reporter=reporter)
    assert view.counts()["completed"] == 18
    needed = [(s.key, s) for trial in view.trials.values() for s in trial.stages]
    executed = view.executions()
    assert set(executed) == {key for key, _ in needed}
    assert set(executed.values()) == {1}
    built = {key: stage for key, stage in needed if not stage.cached}
    summed = sum(stage.device_seconds for stage in built.values())
    reserved = sum(stage.reserved for stage in built.values()) + reporter.idle
    alone = sum(built[key].device_seconds for key, _ in needed)
    figures = {
        "trials": len(view.trials),
        "stages_needed": len(needed),
        "stages_executed": len(executed),
        "stage_seconds": round(summed, 1),
        "reserved_seconds": round(reserved, 1),
        "idle_seconds": round(reporter.idle, 1),
        "reserved_over_summed": round(reserved / summed, 3),
        "alone_over_summed": round(alone / summed, 3),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    assert reserved / summed <= MOST_RESERVED, figures
