"""A search's report: winners, how much of their value was luck, importances, figures."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "study"))

import toy

from analysis.study_figures import history_figure, pareto_figure, slice_figure
from analysis.study_report import make_report, to_markdown, write_report
from analysis.study_search import Proposed, pareto, search_summary
from analysis.terminal_text import to_text
from namd.api.study_report import write_study_report
from namd.ledger.view import StudyView, read_view
from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage
from namd.study.optuna_view import importances
from namd.study.record import open_study

STILL = LeaseTiming(ttl_s=4000.0, heartbeat_s=1000.0)
TWO = [{"metric": "auroc"}, {"metric": "lpips", "mode": "min"}]


def search(folder: Path, **more) -> tuple[LocalStorage, StudyView, dict]:
    """A finished search of the toy method; fresh seeds give 0.05 less than it promised."""
    spec = toy.search_spec(**{"num_trials": 16, **more})
    storage = LocalStorage(folder)
    with open_study(storage, spec, toy.configurator(spec), timing=STILL) as record:
        while not record.finished:
            for trial in record.next_trials(4):
                record.start(trial.trial)
                if trial.proposal == 1:
                    record.prune(trial.trial, "stopped by ASHA")
                    continue
                rows = toy.rows(trial)
                record.complete(
                    trial.trial, rows | {"auroc": rows["auroc"] - 0.05 * (trial.proposal is None)}
                )
        record.close()
        found = importances(record.state)
    return storage, read_view(storage, spec.name), found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    before, os.fsync = os.fsync, lambda _descriptor: None
    yield search(tmp_path_factory.mktemp("search"))
    os.fsync = before


def test_the_winner_is_shown_beside_what_fresh_seeds_make_of_it(finished):
    storage, view, shares = finished
    summary = search_summary(view)
    values = {p.number: p.values["auroc"] for p in summary.proposals if p.values}
    assert summary.best == (max(values, key=lambda n: values[n]),)
    (winner,) = summary.winners
    fresh = winner["confirmed"]["auroc"]
    assert fresh["seeds"] == 2
    assert winner["search"]["auroc"] - fresh["mean"] == pytest.approx(0.05, abs=0.01)
    report = make_report(storage, view, importance=shares)
    text = to_markdown(report)
    assert "too good" in text
    assert "PED-ANOVA" in text
    assert "(2 seeds)" in text
    assert [row["arm"] for row in report.table.rows] == [f"confirm_p{summary.best[0]}"]
    assert report.table.rows[0]["difference"] is None


def test_importances_are_shares_that_only_a_search_of_some_length_has(finished, tmp_path):
    _, _, shares = finished
    assert set(shares) == {"auroc"}
    assert sum(shares["auroc"].values()) == pytest.approx(1.0)
    assert set(shares["auroc"]) == {"align", "encoder.predict.weight", "prompt.num_sets"}
    assert search(tmp_path, num_trials=4)[2] == {}


def test_pruned_proposals_count_as_that(finished):
    summary = search_summary(finished[1])
    assert summary.proposals[1].state == "pruned"
    assert summary.proposals[1].values == {}
    assert "encoder.align.weight" in summary.logarithmic


def test_the_front_holds_what_nothing_beats():
    def made(number, a, b):
        return Proposed(number, {}, {"a": a, "b": b}, "completed")

    points = [made(0, 1, 1), made(1, 2, 2), made(2, 3, 3), made(3, 1, 0), made(4, 3, 3)]
    points.append(Proposed(5, {}, {}, "pruned"))
    assert pareto(points, {"a": "max", "b": "min"}) == [1, 2, 3, 4]
    assert pareto(points, {"a": "max"}) == [2]
    assert pareto(points, {"b": "min"}) == [3]
    assert pareto([points[-1]], {"a": "max"}) == []


def test_figures_of_a_search_are_drawn_where_there_is_something(finished, tmp_path):
    storage, view, shares = finished
    page = write_report(make_report(storage, view, importance=shares), tmp_path / "one")
    names = {path.name for path in (tmp_path / "one" / "figures").iterdir()}
    assert {"history.png", "slices.svg"} <= names
    assert "pareto.png" not in names
    assert "stopped by ASHA" in page.read_text()
    storage, view, _ = search(tmp_path / "two", objective=TWO)
    summary = search_summary(view)
    assert len(summary.best) >= 1
    assert np.isfinite([p.values["lpips"] for p in summary.proposals if p.values]).all()
    write_report(make_report(storage, view), tmp_path / "more")
    assert (tmp_path / "more" / "figures" / "pareto.png").is_file()


def test_a_search_that_has_nothing_yet_has_no_winner_and_no_figure():
    specification = {"search": {"objective": {"metric": "auroc"}, "space": {}}}
    view = StudyView("empty", specification=specification)
    summary = search_summary(view)
    assert (summary.best, summary.winners) == ((), ())
    assert history_figure(summary) is slice_figure(summary) is pareto_figure(summary) is None
    with pytest.raises(ValueError, match="no search"):
        search_summary(StudyView("other"))


def test_the_report_shows_importances(finished, tmp_path):
    storage, view, _ = finished
    page, report = write_study_report(storage.root, view.study, tmp_path)
    assert page.is_file()
    assert "Importance for AUROC (PED-ANOVA)" in to_text(report)
