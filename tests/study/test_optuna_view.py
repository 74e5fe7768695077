"""Optuna's storage shows what the ledger says, each proposal once."""

import optuna
import pytest
import toy
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from namd.config.errors import InputError
from namd.ledger.reading import read_events
from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage
from namd.study.optuna_view import publish_to_optuna
from namd.study.record import open_study
from namd.study.spec import parse_study
from namd.study.state import StudyState

STILL = LeaseTiming(ttl_s=4000.0, heartbeat_s=1000.0)


def finished(folder, num_trials: int = 4, **more) -> StudyState:
    spec = toy.search_spec(num_trials=num_trials, confirm_seeds=1, **more)
    storage = LocalStorage(folder)
    with open_study(storage, spec, toy.configurator(spec), timing=STILL) as record:
        while not record.finished:
            for trial in record.next_trials(4):
                record.start(trial.trial)
                if trial.proposal == 1:
                    record.prune(trial.trial, "stopped")
                elif trial.proposal == 2:
                    record.fail(trial.trial, "raised")
                else:
                    record.complete(trial.trial, toy.rows(trial))
    state = StudyState(spec)
    for event in read_events(storage, spec.name):
        state.apply(event)
    return state


@pytest.mark.parametrize("kind", ["journal", "rdb"])
def test_each_proposal_is_shown_once_and_later_ones_are_added(tmp_path, kind):
    storage = (
        JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
        if kind == "journal"
        else f"sqlite:///{tmp_path / 'studies.db'}"
    )
    assert publish_to_optuna(finished(tmp_path), storage) == 4
    state = finished(tmp_path, num_trials=8)
    assert publish_to_optuna(state, storage) == 4
    assert publish_to_optuna(state, storage) == 0
    trials = optuna.load_study(study_name="toys", storage=storage).get_trials()
    assert [t.user_attrs["namd_proposal"] for t in trials] == list(range(8))
    assert [t.state.name for t in trials[:4]] == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    for trial in trials:
        assert trial.params == state.engine.space.labels(state.engine.proposals[trial.number].point)
        outcome = state.engine.outcomes[trial.number]
        assert outcome.state == trial.user_attrs["ended"]
        if outcome.state == "completed":
            assert tuple(trial.values) == outcome.values


def test_several_objectives_are_shown(tmp_path):
    metrics = [{"metric": "auroc"}, {"metric": "lpips", "mode": "min"}]
    storage = InMemoryStorage()
    publish_to_optuna(finished(tmp_path, objective=metrics), storage)
    assert optuna.load_study(study_name="toys", storage=storage).best_trials


def test_an_ablation_has_nothing_to_show():
    toggles = {"align": {"encoder.align.weight": 0}}
    ablation = {"design": "arms", "toggles": toggles}
    spec = parse_study({"name": "a", "base": {"method": "toy"}, "ablation": ablation})
    with pytest.raises(InputError, match="searches only"):
        publish_to_optuna(StudyState(spec), InMemoryStorage())
