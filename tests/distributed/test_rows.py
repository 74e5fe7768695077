"""What of a run's rows a trial completes with, and under which names."""

from dataclasses import fields

import pytest

from namd.distributed.rows import values_of
from namd.evaluate.scores import COLUMNS
from namd.evaluate.table import Row
from namd.statistics.metrics import IMAGE_METRICS, METRICS

OWN = {
    "row": "namd",
    "title": "NAMD",
    "auroc": {"mean": 0.6, "std": 0.02, "low": 0.5, "high": 0.7},
    "auroc_mean_of_draws": {"value": 0.7, "low": 0.6, "high": 0.8},
    "gap_recovered": 0.25,
    "gap_recovered_mean_of_draws": 0.5,
    "ssim": 0.9,
    "fid": None,
    "kid": float("nan"),
    "num_draws": 20,
}


def test_a_trial_completes_with_the_names_of_the_studys_table():
    baseline = {"row": "real_baseline", "auroc": {"mean": 0.1}, "ssim": 0.1}
    assert values_of([baseline, OWN], "namd", "run-1") == {
        "run": "run-1",
        "auroc": 0.7,
        "auroc_per_draw": 0.6,
        "gap_recovered": 0.5,
        "gap_recovered_per_draw": 0.25,
        "ssim": 0.9,
        "num_draws": 20,
    }


@pytest.mark.parametrize("name", METRICS)
def test_a_run_measures_every_name_that_a_study_file_may_use(name):
    row = {field.name: 0.5 for field in fields(Row)} | {"row": "namd"}
    assert name in values_of([row], "namd", "run-1")
    unmeasured = dict.fromkeys(row) | {"row": "namd"}
    assert name not in values_of([unmeasured], "namd", "run-1")


def test_every_metric_of_an_image_is_a_column_of_the_scores():
    assert set(IMAGE_METRICS) <= set(COLUMNS)
