"""Methods of every shape beside NAMD in one study, on Ray, and their one table."""

from pathlib import Path

import pytest

from analysis.study_table import arm_rows
from namd.cli.main import main
from namd.distributed.driver import run_study
from namd.methods.registry import METHODS
from namd.study.reporting import SilentStudyReporter
from namd.study.spec import parse_study
from tests import throwaway

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NAMES = ["namd", *throwaway.METHODS]
STUDY = {
    "name": "methods",
    "compare": {"methods": NAMES, "preset": "tiny"},
    "evaluate": {"secondary": ["auprc", "ssim"]},
}


def test_a_study_compares_methods_in_one_table(ray_cluster, tmp_path: Path):
    cohort, store = tmp_path / "cohort", str(tmp_path / "store")
    words = ["cohort", "build", "phantom", "--cases", "160", "--replicates", "2", "--seed", "2"]
    assert main([*words, "--out", str(cohort)]) == 0
    view = run_study(
        parse_study(STUDY),
        cohort=cohort,
        store_url=store,
        address=None,
        methods={**METHODS, **throwaway.METHODS},
        reporter=SilentStudyReporter(),
    )
    assert view.counts()["completed"] == len(NAMES)
    rows = {row["arm"]: row for row in arm_rows(store, "methods", cohort)}
    assert list(rows) == NAMES
    for name, row in rows.items():
        assert 0 <= row["auroc"]["mean"] <= 1
        assert (row["difference"] is None) == (name == "namd")
    built = [
        done.key
        for trial in view.trials.values()
        for done in trial.stages
        if done.stage.name == "judge" and not done.cached
    ]
    assert len(built) == 1
