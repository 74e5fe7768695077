"""The shipped table ablation on preset tiny: 18 trials, every stage for real, on Ray.

How much is reserved for it is a measurement, `experiments/benchmarks/reuse.py`, and depends on what
else the machine does; which stages are executed does not.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from experiments.benchmarks.reuse import together
from namd.cli.main import main
from namd.study.spec import read_study

REPOSITORY = Path(__file__).resolve().parents[2]
CASES = 400

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.timeout(3000)
def test_each_stage_of_the_table_ablation_is_executed_once(ray_cluster, tmp_path):
    cohort = tmp_path / "cohort"
    build = ["cohort", "build", "phantom", "--cases", str(CASES), "--replicates", "4"]
    assert main([*build, "--seed", "2", "--out", str(cohort)]) == 0
    spec = read_study(REPOSITORY / "experiments" / "table-ablation.yaml")
    shared = together(spec, cohort, tmp_path / "store")
    sys.stdout.write(json.dumps(asdict(shared)) + "\n")
    assert shared.trials == 18
    assert shared.max_executions == 1
    assert shared.stages_executed < shared.stages_needed
