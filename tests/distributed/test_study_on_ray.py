"""A study through Tune, stage scheduler and stage workers as they are, on a real cluster."""

from pathlib import Path

import pytest
import toy_study as toy
from play import PARTS, Recorder

from namd.config.errors import InputError
from namd.distributed.driver import run_study
from namd.ledger.lease import StudyBusy
from namd.ledger.reading import read_events
from namd.storage.opening import open_storage
from namd.study.record import open_study
from namd.study.state import replay
from namd.study.trials import Configurator

pytestmark = pytest.mark.ray

RESOURCES = {"concurrency": 2, "default": {"cpus": 1.0}}


class Listener:
    """A tracker that keeps what it receives."""

    def __init__(self) -> None:
        self.events, self.steps = [], []

    def event(self, trial, attempt, transition, body) -> None:
        self.events.append((trial, attempt, transition))

    def step(self, label, key, index, total, metrics) -> None:
        self.steps.append((label, index))

    def table(self, rows) -> None: ...

    def close(self) -> None: ...


def run(folder: Path, spec, **more):
    return run_study(
        spec,
        cohort=Path("none"),
        store_url=str(folder),
        address=None,
        reporter=more.pop("reporter", Recorder()),
        methods=toy.METHODS,
        preset={},
        parts=PARTS,
        **more,
    )


def test_an_ablation_runs_each_key_once_and_informs_everyone(ray_cluster, tmp_path):
    spec = toy.ablation(seeds=1, resources=RESOURCES)
    reporter, tracker = Recorder(), Listener()
    view = run(tmp_path, spec, reporter=reporter, trackers=(tracker,))
    assert view.counts()["completed"] == 3
    assert view.ended == "closed"
    assert set(view.executions().values()) == {1}
    found = [e.identity for e in read_events(open_storage(str(tmp_path)), spec.name)]
    assert tracker.events == [(i.trial, i.attempt, i.transition) for i in found]
    assert tracker.events[0] == (None, 1, "opened")
    assert ("vae", 4) in tracker.steps
    assert reporter.plan.trials == 3

    with pytest.raises(InputError, match="--resume"):
        run(tmp_path, spec)
    storage = open_storage(str(tmp_path))
    with (
        open_study(storage, spec, Configurator(spec, toy.METHODS, {})),
        pytest.raises(StudyBusy, match="is running it"),
    ):
        run(tmp_path, spec)
    again = run(tmp_path, toy.with_seeds(spec, 2), resume=True)
    assert again.counts()["completed"] == 6
    assert set(again.executions().values()) == {1}


def test_a_search_prunes_by_the_ledger(ray_cluster, tmp_path):
    asha = {"asha": {"reduction": 2}}
    spec = toy.search(stop_early=asha, num_trials=8)
    view = run(tmp_path, spec)
    assert view.counts()["pruned"] >= 1
    assert view.ended == "closed"
    assert replay(spec, read_events(open_storage(str(tmp_path)), spec.name)) == []


def test_a_plan_that_cannot_fit_is_refused_before_anything_is_recorded(ray_cluster, tmp_path):
    spec = toy.ablation(resources={"default": {"cpus": 64.0}})
    with pytest.raises(InputError, match="needs 1 workers x 64 CPUs"):
        run(tmp_path, spec)
    assert not (tmp_path / "studies").exists()
