"""A study from Python says what its ledger and its report say, under the same banner."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
import toy
from made_study import TOGGLES, MadeCohort, MadeStudy, ablation, made_ablation

import namd
from analysis.study_report import make_report, to_csv
from namd.ledger.view import read_view
from namd.pipeline.store import open_store
from namd.storage.local import LocalStorage
from namd.study.record import open_study
from tests.data.conftest import make_cohort

STUDY = {
    "name": "parts",
    "base": {"preset": "tiny", "method": "namd"},
    "ablation": {"design": "leave-one-out", "toggles": {"align": {"vae.alignment.weight": 0}}},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, quick_disk):
    study = made_ablation(tmp_path_factory.mktemp("made"), seeds=2, cases=60)
    study.close()
    return study


@pytest.fixture(scope="module")
def study(made):
    return namd.Study.open("made", made.root)


def test_arms_have_the_numbers_of_the_report(made, study):
    report = make_report(made.storage, read_view(made.storage, "made"))
    arms = study.arms()
    lines = list(csv.DictReader(io.StringIO(to_csv(report.table))))
    assert len(lines) == len(arms) * len(report.table.metrics)
    for line in lines:
        row = arms.loc[line["arm"]]
        for column, name in (
            (line["metric"], "mean"),
            (f"{line['metric']}_low", "low"),
            (f"{line['metric']}_difference", "difference"),
        ):
            expected = float(line[name]) if line[name] else float("nan")
            assert row[column] == pytest.approx(expected, nan_ok=True)
    assert arms.loc["no_align", "auroc_difference"] < 0


def test_trials_are_rows_with_what_they_set_and_measured(study):
    trials = study.trials_dataframe()
    assert len(trials) == 6
    assert set(trials["state"]) == {"completed"}
    without = trials[trials["arm"] == "no_align"]
    assert list(without["params.vae.alignment.weight"]) == [0, 0]
    assert without["values.auroc"].tolist() == [0.55, 0.55]
    assert trials["device_seconds"].sum() == study.view.device_seconds()


def test_every_shown_number_of_simulated_data_says_so(study):
    shown = [study.arms(), study.trials_dataframe(), study.arms()[["auroc"]], study.effects()]
    for frame in shown:
        assert "SIMULATED" in repr(frame)
        assert "SIMULATED" in frame._repr_html_()
    assert study._repr_html_().count("SIMULATED") == 1
    assert study.simulated is True


def test_measured_data_is_not_called_simulated(tmp_path, quick_disk):
    made = made_ablation(tmp_path, seeds=1, cases=60, simulated=False)
    study = namd.Study.open("made", made.root)
    assert study.simulated is False
    assert "SIMULATED" not in repr(study.arms()) + study._repr_html_()
    assert "Research use only" in repr(study.arms())


def test_effects_of_a_design_are_rows_and_other_studies_have_none(study, tmp_path, quick_disk):
    assert len(study.effects()) == 0
    pairs = MadeStudy(
        tmp_path / "store",
        MadeCohort.write(tmp_path / "cohort", 60),
        ablation("pairs", 1, TOGGLES) | {
            "ablation": {"design": "factorial", "toggles": TOGGLES, "resolution": None}
        },
        combinations={"full": [[]], "no_align": [["align"]], "no_predict": [["predict"]],
                      "no_align_predict": [["align", "predict"]]},
    )  # fmt: skip
    for arm, shift in (("full", 1.5), ("no_align", 0.5), ("no_predict", 1.4)):
        pairs.run(arm, 0, shift)
    pairs.run("no_align_predict", 0, 0.4)
    effects = namd.Study.open("pairs", pairs.root).effects()
    assert len(effects) == 3
    assert effects.loc["align", "auroc"] < 0


def test_a_search_has_a_best_and_an_ablation_has_none(study, tmp_path, quick_disk):
    with pytest.raises(namd.InputError, match=r"is an ablation: it has arms\(\)"):
        study.best()
    spec = toy.search_spec(num_trials=4)
    open_store(str(tmp_path))
    with open_study(LocalStorage(tmp_path), spec, toy.configurator(spec)) as record:
        while not record.finished:
            for trial in record.next_trials(4):
                record.start(trial.trial)
                record.complete(trial.trial, toy.rows(trial))
        record.close()
    found = namd.Study.open(spec.name, tmp_path)
    values = found.trials_dataframe().groupby("proposal")["values.auroc"].mean()
    best = found.best()
    assert best.index.tolist() == [values.idxmax()]
    assert best["search.auroc"].iloc[0] == values.max()
    assert np.isfinite(best["confirmed.auroc"].iloc[0])
    assert any(name.startswith("params.") for name in best.columns)


def test_a_report_is_written_whole(study, tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.study_report._figures", lambda *_: {})
    page = study.report(tmp_path / "r")
    assert page == tmp_path / "r" / "report.html"
    assert "SIMULATED" in page.read_text()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(namd.InputError, match="cannot be written"):
        study.report(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_is_not_there_is_one_line_with_the_nearest(made, tmp_path):
    for name, store, message in (
        ("maid", made.root, "did you mean made"),
        ("made", tmp_path / "none", "no such folder"),
        ("made", None, "no store"),
        ("made", "s3:/bucket", "did you mean s3://bucket"),
    ):
        with pytest.raises(namd.InputError, match=message) as caught:
            namd.Study.open(name, store)
        assert "\n" not in str(caught.value)
    assert repr(namd.Study.open("made", str(made.root))).startswith("Study(made in ")


def test_a_plan_counts_and_writes_nothing(tmp_path, quick_disk):
    make_cohort(size=32).write(tmp_path / "c")
    plan = namd.Study.plan(STUDY, cohort=tmp_path / "c", store=tmp_path / "store")
    assert (plan.trials, plan.refused, plan.cohort_built) == (2, None, True)
    assert plan.stages["in_store"].sum() == 0
    assert plan.to_mapping()["trials"] == 2
    assert "2 trials" in repr(plan)
    assert "device hours" in plan._repr_html_()
    ahead = namd.Study.plan(STUDY, cohort="phantom:40", store=tmp_path / "store")
    assert "not built yet" in ahead._repr_html_()
    assert not (tmp_path / "store").exists()
    with pytest.raises(namd.InputError, match="name it with cohort="):
        namd.Study.plan(STUDY, store=tmp_path / "store")
    with pytest.raises(namd.ConfigError, match=r"vae\.alignment\.weight"):
        namd.Study.plan({**STUDY, "ablation": {
            "design": "leave-one-out", "toggles": {"align": {"vae.alignment.wieght": 0}}
        }}, cohort=tmp_path / "c", store=tmp_path / "store")  # fmt: skip


def test_frames_are_data_frames(study):
    arms = study.arms()
    assert isinstance(arms, pd.DataFrame)
    assert arms.sort_values("auroc").index[0] == "no_align"
    assert arms[["seeds"]].to_csv().splitlines()[0] == "arm,seeds"
