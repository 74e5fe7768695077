"""Rows of a study against direct computation, and what must be said where something is missing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_study import TOGGLES, MadeCohort, MadeStudy, ablation, made_ablation
from scipy.stats import t as student
from sklearn.metrics import average_precision_score, roc_auc_score

from analysis.study_table import arm_rows, study_table
from namd.ledger import schema
from namd.ledger.view import read_view
from namd.statistics.testing import delong

REPOSITORY = Path(__file__).resolve().parents[2]


def table_of(study: MadeStudy, **more):
    return study_table(study.storage, read_view(study.storage, study.name), **more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> MadeStudy:
    study = made_ablation(tmp_path_factory.mktemp("study"))
    study.close()
    return study


def test_a_table_without_intervals_says_why(tmp_path, finished):
    study = made_ablation(tmp_path, seeds=2, cases=60, cases_each=20)
    table = table_of(study)
    interval = table.row("full")["auroc"]
    assert (interval["low"], interval["high"]) == (None, None)
    assert any("one patient's: AUROC and AUPRC have neither" in note for note in table.notes)
    assert not any("such intervals held" in note for note in table.notes)
    assert not any("one patient's" in note for note in table_of(finished).notes)


def test_values_are_scikit_learns(finished):
    row = table_of(finished).row("no_align")
    labels = finished.cohort.table["label"]
    for seed in range(3):
        draws = [finished.cohort.scores("no_align", seed, k, 0.5)["score"] for k in range(2)]
        mean = np.mean(draws, axis=0)
        expected = {
            "auroc": roc_auc_score(labels, mean),
            "auprc": average_precision_score(labels, mean),
            "auroc_per_draw": np.mean([roc_auc_score(labels, draw) for draw in draws]),
            "ssim": np.mean(
                [finished.cohort.scores("no_align", seed, k, 0.5)["ssim"] for k in range(2)]
            ),
        }
        for name, value in expected.items():
            assert row[name]["per_seed"][str(seed)] == pytest.approx(value, abs=1e-5), name
    assert row["auroc"]["mean"] == pytest.approx(np.mean(list(row["auroc"]["per_seed"].values())))
    assert "lpips" not in row
    assert row["fid_judge"]["mean"] > 1


def test_the_same_scores_differ_by_exactly_nothing(finished):
    rows = {row["arm"]: row for row in arm_rows(str(finished.root), finished.name)}
    same = rows["no_predict"]["difference"]
    assert (same["mean"], same["low"], same["high"]) == (0.0, 0.0, 0.0)
    assert (same["p"], same["p_holm"]) == (1.0, 1.0)
    other = rows["no_align"]["difference"]
    assert other["high"] < 0
    assert other["p"] < other["p_holm"] == 2 * other["p"] < 0.05
    assert rows["full"]["difference"] is None


def test_rows_are_json_and_have_what_the_command_line_promises(finished):
    rows = json.loads(json.dumps(arm_rows(str(finished.root), finished.name), allow_nan=False))
    assert [row["arm"] for row in rows] == ["full", "no_align", "no_predict"]
    for row in rows:
        assert row["seeds"] == 3
        assert row["interval"] == "patients x seeds"
        assert row["auroc"]["low"] < row["auroc"]["mean"] < row["auroc"]["high"]


def test_further_judges_are_averaged_over_and_widen_the_intervals(finished, tmp_path):
    study = made_ablation(tmp_path, judges=2)
    judged, alone = table_of(study), table_of(finished)
    row = judged.row("full")
    assert row["interval"] == "patients x seeds x judges"
    assert alone.row("full")["interval"] == "patients x seeds"
    labels = study.cohort.table["label"]
    for seed in range(3):
        draws = [[study.cohort.scores("full", seed, k, 1.5)["score"] for k in range(2)]]
        for judge in (1, 2):
            each = [study.cohort.rejudged("full", seed, k, 1.5, judge) for k in range(2)]
            draws.append([frame["score"] for frame in each])
        expected = np.mean([roc_auc_score(labels, np.mean(each, axis=0)) for each in draws])
        assert row["auroc"]["per_seed"][str(seed)] == pytest.approx(expected, abs=1e-5)

    def width(table, arm="full"):
        return table.row(arm)["auroc"]["high"] - table.row(arm)["auroc"]["low"]

    assert width(judged) > 1.3 * width(alone)
    same, other = (judged.row(arm)["difference"] for arm in ("no_predict", "no_align"))
    assert (same["mean"], same["p"]) == (0.0, 1.0)
    assert other["p_method"] == "t, patients resampled, training seeds and judges as random factors"
    # Image metrics are no judge's.
    assert row["ssim"] == alone.row("full")["ssim"]


def test_every_seeds_point_is_kept_and_few_seeds_are_admitted(finished):
    table = table_of(finished)
    difference = table.row("no_align")["difference"]
    assert set(difference["per_seed"]) == {"0", "1", "2"}
    assert difference["sign_flip"] == {"p": 0.25, "floor": 0.25}
    assert any("cannot give less than p = 0.25" in note for note in table.notes)
    assert (table.cases, table.patients, table.malignant) == (90, 90, 30)
    assert table.simulated is True


def test_rows_without_training_stand_beside_the_arms(finished):
    context = {row["row"]: row for row in table_of(finished).context}
    assert set(context) == {"real_followup", "real_baseline"}
    assert context["real_followup"]["auroc"]["mean"] == 1.0
    assert context["real_baseline"]["auroc"]["mean"] == 0.0


def test_an_arm_of_the_same_seeds_is_paired_and_an_unfinished_one_says_so(tmp_path):
    study = made_ablation(tmp_path, seeds=2)
    study.queue("full", 2)
    study.run("no_align", 2, 0.5)
    failed = study.queue("no_predict", 2)
    study.end(failed, schema.FAILED, "loss is not finite")
    table = table_of(study)
    assert table.row("full")["finished"] is False
    assert table.row("no_align")["seeds"] == 3
    assert table.row("no_align")["difference"]["seeds"] == 2
    found = "\n".join(table.notes)
    assert "arm full is not finished: 2 completed, 1 pending" in found
    assert "arm no_predict is not finished: 2 completed, 1 failed" in found
    assert "not closed" in found
    assert "arm no_align" not in found


def test_an_arm_that_has_nothing_yet_keeps_its_place_in_the_family(tmp_path):
    cohort = MadeCohort.write(tmp_path / "cohort", 90)
    study = MadeStudy(tmp_path / "store", cohort, ablation("made", 2, TOGGLES))
    for seed in range(2):
        study.run("full", seed, 1.5)
        study.run("no_align", seed, 0.5)
        study.queue("no_predict", seed)
    table = table_of(study)
    difference = table.row("no_align")["difference"]
    assert difference["p_holm"] == pytest.approx(2 * difference["p"])
    assert table.row("no_predict")["auroc"] is None
    assert table.row("no_predict")["difference"] is None


def test_one_seed_is_delongs_test_unless_patients_have_several_cases(tmp_path):
    study = made_ablation(tmp_path / "single", seeds=1)
    difference = table_of(study).row("no_align")["difference"]
    labels = study.cohort.table["label"].to_numpy()
    means = [
        np.mean([study.cohort.scores(name, 0, k, shift)["score"] for k in range(2)], axis=0)
        for name, shift in (("no_align", 0.5), ("full", 1.5))
    ]
    assert difference["p"] == pytest.approx(delong(labels, *means).p_value)
    assert "DeLong" in difference["p_method"]
    assert any("one training seed" in note for note in table_of(study).notes)
    several = made_ablation(tmp_path / "several", seeds=1, cases_each=2)
    difference = table_of(several).row("no_align")["difference"]
    assert difference["p"] != difference["delong"]["p"]
    assert "DeLong" not in difference["p_method"]


def test_without_scores_the_ledgers_values_stand_and_no_interval_over_patients(tmp_path):
    study = made_ablation(tmp_path, seeds=3)
    for key in study.storage.names("scores-test"):
        study.storage.remove(f"scores-test/{key}/COMMIT")
    table = table_of(study)
    row = table.row("full")
    assert row["auroc"]["mean"] == pytest.approx(0.65)
    assert any("no interval over patients" in note for note in table.notes)
    difference = table.row("no_align")["difference"]
    assert difference["mean"] == pytest.approx(-0.1)
    assert difference["p_method"] == "t over training seeds only"


def test_the_cohort_is_asked_for_where_nobody_names_it(tmp_path):
    cohort = MadeCohort.write(tmp_path / "cohort", 90)
    study = MadeStudy(tmp_path / "store", cohort, ablation("made", 1, TOGGLES), named=False)
    study.run("full", 0, 1.0)
    assert any("--cohort" in note for note in table_of(study).notes)
    assert table_of(study, cohort=cohort.folder).cases == 90


def test_seeds_without_patients_is_a_t_test(tmp_path):
    study = made_ablation(tmp_path, seeds=3)
    difference = table_of(study).row("no_align")["differences"]["fid_judge"]
    values = np.array(list(difference["per_seed"].values()))
    t = values.mean() / (values.std(ddof=1) / np.sqrt(3))
    assert difference["p"] == pytest.approx(2 * student.sf(abs(t), 2))


def test_analysis_loads_neither_torch_nor_ray():
    names = "analysis.study_table, analysis.study_report, analysis.study_figures"
    seen = "{'torch', 'ray', 'wandb', 'optuna'} & set(sys.modules)"
    program = f"import sys, {names}; print(*sorted({seen}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
