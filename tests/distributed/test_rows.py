"""What of a run's rows a trial completes with, and under which names."""

import json
from dataclasses import fields

import pytest

from namd.distributed.rows import values_of
from namd.evaluate.calibration import DiameterAgreement
from namd.evaluate.scores import COLUMNS
from namd.evaluate.table import Row
from namd.pipeline.run import recorded_runs, rows_of
from namd.pipeline.store import open_store
from namd.statistics.metrics import IMAGE_METRICS, METRICS
from namd.storage.run_records import run_place

OWN = {
    "row": "namd",
    "title": "NAMD",
    "auroc": {"mean": 0.7, "std": None, "std_population": None, "low": 0.6, "high": 0.8},
    "auroc_per_draw": {"mean": 0.6, "std": 0.02, "low": 0.5, "high": 0.7},
    "gap_recovered": 0.5,
    "gap_recovered_per_draw": 0.25,
    "ssim": 0.9,
    "fid": None,
    "kid": float("nan"),
    "num_draws": 20,
    "diameter": {
        "unmeasured": 0.0,
        "rule": {"crps_mm": {"value": 1.2, "low": 1.0, "high": 1.4}, "coverage": {"value": 0.8}},
        "table": {"crps_mm": {"value": 9.0}, "coverage": {"value": 0.1}},
    },
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
        "diameter_crps_mm": 1.2,
        "diameter_coverage": 0.8,
    }


@pytest.mark.parametrize("missing", [None, {"rule": None}])
def test_a_row_without_diameters_completes_without_them(missing):
    values = values_of([OWN | {"diameter": missing}], "namd", "run-1")
    assert not [name for name in values if name.startswith("diameter")]


def test_a_single_draw_has_no_coverage():
    rule = {"crps_mm": {"value": 1.2}, "coverage": None}
    values = values_of([OWN | {"diameter": {"rule": rule}}], "namd", "run-1")
    assert values["diameter_crps_mm"] == 1.2
    assert "diameter_coverage" not in values


def test_rows_of_an_older_record_are_read_under_todays_names():
    older = {
        "row": "namd",
        "auroc": OWN["auroc_per_draw"],
        "auroc_mean_of_draws": {"value": 0.7, "low": 0.6, "high": 0.8},
        "gap_recovered": 0.25,
        "gap_recovered_mean_of_draws": 0.5,
        "difference_to_baseline": {"auroc": {"value": 0.1}, "auroc_mean_of_draws": {"value": 0.2}},
        "ssim": 0.9,
    }
    (row,) = rows_of({"rows": [older]})
    assert {name: row[name] for name in row.keys() & OWN.keys()} == {
        name: OWN[name] for name in row.keys() & OWN.keys()
    }
    assert row["difference_to_baseline"] == {
        "auroc_per_draw": {"value": 0.1},
        "auroc": {"value": 0.2},
    }
    assert not [name for name in row if "mean_of_draws" in name]
    assert rows_of({"rows": [row]}) == [row]


def test_a_whole_older_record_is_read_under_todays_names(tmp_path):
    store = open_store(str(tmp_path))
    older = {"method": "toy", "config": {}, "stages": [], "rows": [], "gap_recovered": 0.25}
    about = {"gap_recovered_mean_of_draws": 0.5, "split": "test"}
    for key, record in (("old", older | {"about": about}), ("new", older | {"about": {}})):
        store.backend.replace(run_place(key), json.dumps(record).encode())
    found = recorded_runs(store)
    assert found["old"]["gap_recovered"] == 0.5
    assert found["old"]["about"] == {"split": "test", "gap_recovered_per_draw": 0.25}
    assert found["new"]["gap_recovered"] == 0.25


@pytest.mark.parametrize("name", METRICS)
def test_a_run_measures_every_name_that_a_study_file_may_use(name):
    row = {field.name: 0.5 for field in fields(Row)} | {"row": "namd"}
    row["diameter"] = {"rule": {each.name: 0.5 for each in fields(DiameterAgreement)}}
    assert name in values_of([row], "namd", "run-1")
    unmeasured = dict.fromkeys(row) | {"row": "namd"}
    assert name not in values_of([unmeasured], "namd", "run-1")


def test_every_metric_of_an_image_is_a_column_of_the_scores():
    assert set(IMAGE_METRICS) <= set(COLUMNS)
