"""A study driven to its end, killed anywhere, is the study that was not killed."""

import itertools
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import toy

from namd.config.errors import ConfigError
from namd.ledger.lease import StudyBusy
from namd.ledger.reading import read_events
from namd.ledger.view import StudyView, read_view
from namd.ledger.writing import Writer
from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage
from namd.storage.stage_names import StageName
from namd.study.record import StudyRecord, open_study, warm_trials
from namd.study.spec import StudySpec, parse_study
from namd.study.state import replay
from namd.study.trials import Trial

STILL = LeaseTiming(ttl_s=4000.0, heartbeat_s=1000.0)
RUNGS = [{"stage": "vae", "metric": "probe_auroc"}]
ASHA = {"asha": {"reduction": 3, "minimum_peers": 2, "rungs": RUNGS}}
TOGGLES = {
    "align": {"encoder.align.weight": 0},
    "predict": {"encoder.predict.weight": 0},
}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def ablation(seeds: int = 2) -> StudySpec:
    design = {"design": "leave-one-out", "toggles": TOGGLES}
    return parse_study(
        {"name": "toys", "base": {"method": "toy"}, "seeds": seeds, "ablation": design}
    )


def opened(folder: Path, spec: StudySpec, **more) -> StudyRecord:
    storage = LocalStorage(folder)
    return open_study(storage, spec, toy.configurator(spec), timing=STILL, **more)


def work(record: StudyRecord, trial: Trial) -> None:
    """What a driver records of one trial."""
    name = trial.trial
    record.start(name)
    record.stage(
        name, StageName("vae"), f"vae-{name}", cached=False, seconds=2.0, device_seconds=2.0
    )
    if record.rung(name, "vae", toy.probe(trial)) == "stop":
        record.prune(name, "stopped at vae")
        return
    record.stage(
        name, StageName("scores"), f"scores-{name}", cached=False, seconds=1.0, device_seconds=1.0
    )
    record.complete(name, toy.rows(trial))


def drive(record: StudyRecord, at_once: int = 3, last_first: bool = False) -> None:
    while not record.finished:
        trials = record.next_trials(at_once)
        assert trials, "nothing to do and not finished"
        for trial in reversed(trials) if last_first else trials:
            work(record, trial)
    record.close()


def table(view: StudyView) -> dict:
    """All that a report would show, without times."""
    trials = {
        name: (t.state, dict(t.values), t.body["arm"], t.body["seed"], sorted(t.rungs))
        for name, t in view.trials.items()
        if leads(view, name)
    }
    return {"trials": trials, "points": {n: b.point for n, b in view.proposals.items()}}


def leads(view: StudyView, trial: str) -> bool:
    """Not for the further seeds of a pruned proposal: how far they came is a matter of luck."""
    pruned = [b.trials for b in view.proposals.values() if _is_pruned(view, b.trials[0])]
    return not any(trial in trials[1:] for trials in pruned)


def _is_pruned(view: StudyView, trial: str) -> bool:
    return view.trials[trial].state == "pruned"


def run_whole(folder: Path, spec: StudySpec, **how) -> StudyView:
    with opened(folder, spec) as record:
        drive(record, **how)
    return read_view(LocalStorage(folder), spec.name)


def search(**more) -> StudySpec:
    return toy.search_spec(num_trials=10, startup_trials=3, stop_early=ASHA, **more)


STUDIES = {
    "ablation": ablation,
    "random": lambda: search(sampler="random"),
    "tpe": search,
    "seeds": lambda: search(seeds=2),
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_ends_with_every_trial_over(tmp_path, study):
    spec = STUDIES[study]()
    view = run_whole(tmp_path, spec)
    counts = view.counts()
    assert counts["pending"] == counts["running"] == counts["failed"] == 0
    assert view.ended == "closed"
    if study == "ablation":
        assert counts["completed"] == 3 * 2
    else:
        assert counts["pruned"] > 0
        assert len(view.proposals) == 10
        confirmed = [t for t in view.trials.values() if t.body["arm"].startswith("confirm_p")]
        assert len(confirmed) == 2
        assert not replay(spec, read_events(LocalStorage(tmp_path), spec.name))


@pytest.mark.parametrize("study", ["random", "tpe", "seeds"])
def test_the_synchronous_order_does_not_hang_on_workers_or_luck(tmp_path, study):
    spec = STUDIES[study]()
    whole = table(run_whole(tmp_path / "one", spec, at_once=4))
    other = table(run_whole(tmp_path / "two", spec, at_once=1))
    mixed = table(run_whole(tmp_path / "three", spec, at_once=4, last_first=True))
    assert whole["points"] == other["points"] == mixed["points"]
    assert whole["trials"] == other["trials"] == mixed["trials"]


def child(folder: Path, spec: StudySpec, links: int) -> None:
    """Drive the study, and die at the given creation of a record: before it if even, else after."""
    link, left = os.link, [links]

    def counted(*args, **kwargs):
        die_after = left[0] == 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        link(*args, **kwargs)
        left[0] -= 2
        if die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    os.link = counted
    with opened(folder, spec) as record:
        drive(record)


def killed_again_and_again(folder: Path, spec: StudySpec, links: int) -> int:
    """Start the study until it ends, killing it every time; return the number of kills."""
    kills = 0
    while True:
        process = multiprocessing.get_context("fork").Process(
            target=child, args=(folder, spec, links + kills % 2)
        )
        process.start()
        process.join()
        if process.exitcode == 0:
            return kills
        assert process.exitcode == -signal.SIGKILL
        kills += 1


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("links", [pytest.param(16, marks=pytest.mark.slow), 33])
def test_a_killed_study_ends_as_the_unkilled_one(tmp_path, study, links):
    spec = STUDIES[study]()
    whole = run_whole(tmp_path / "whole", spec)
    kills = killed_again_and_again(tmp_path / "killed", spec, links)
    view = read_view(LocalStorage(tmp_path / "killed"), spec.name)
    assert kills >= 1
    assert table(view) == table(whole)
    events = list(read_events(LocalStorage(tmp_path / "killed"), spec.name))
    assert len({e.identity for e in events}) == len(events)
    assert not replay(spec, events)


def test_an_asynchronous_search_loses_nothing_and_replays_exactly(tmp_path):
    spec = search(order="asynchronous")
    kills = killed_again_and_again(tmp_path, spec, 30)
    assert kills >= 2
    events = list(read_events(LocalStorage(tmp_path), spec.name))
    view = read_view(LocalStorage(tmp_path), spec.name)
    assert len(view.proposals) == 10
    assert view.counts()["pending"] == view.counts()["running"] == 0
    assert not replay(spec, events)


def test_a_ledger_that_was_tampered_with_does_not_replay(tmp_path):
    """The twin: a proposal that its records do not lead to is found."""
    spec = search(order="asynchronous")
    run_whole(tmp_path, spec)
    events = list(read_events(LocalStorage(tmp_path), spec.name))
    place = next(n for n, e in enumerate(events) if e.identity.transition == "proposed/5")
    body = json.loads(json.dumps(events[place].body))
    body["point"]["encoder.predict.weight"] = 0.123
    object.__setattr__(events[place], "body", body)
    assert next(m.what for m in replay(spec, events)) == "proposed/5"


def test_a_second_live_run_is_refused(tmp_path):
    quick = LeaseTiming(ttl_s=0.8, heartbeat_s=0.1)
    spec, storage = ablation(), LocalStorage(tmp_path)
    with open_study(storage, spec, toy.configurator(spec), timing=quick) as record:
        record.next_trials(1)
        with pytest.raises(StudyBusy):
            open_study(storage, spec, toy.configurator(spec), timing=quick)
    with open_study(storage, spec, toy.configurator(spec), timing=quick):
        pass


def test_zombies_of_a_killed_driver_run_again(tmp_path):
    spec = ablation()
    with opened(tmp_path, spec) as record:
        first, second = record.next_trials(2)
        record.start(first.trial)
        work(record, second)
    with opened(tmp_path, spec) as record:
        assert record.view.trials[first.trial].state == "pending"
        assert record.view.trials[second.trial].state == "completed"
        assert second.trial not in [t.trial for t in record.next_trials(20)]
        assert record.start(first.trial) == 2


def test_a_finished_ablation_takes_more_seeds_and_a_search_more_trials(tmp_path):
    before = table(run_whole(tmp_path / "a", ablation(2)))
    after = table(run_whole(tmp_path / "a", ablation(3)))
    assert before["trials"].items() <= after["trials"].items()
    assert len(after["trials"]) == 3 * 3
    run_whole(tmp_path / "b", toy.search_spec(num_trials=6, startup_trials=2))
    extended = table(run_whole(tmp_path / "b", toy.search_spec(num_trials=10, startup_trials=2)))
    longer = table(run_whole(tmp_path / "c", toy.search_spec(num_trials=10, startup_trials=2)))
    assert extended["points"] == longer["points"]


def test_the_opening_names_which_combinations_each_arm_stands_for(tmp_path):
    """Of toggles that set one value, both together are the first: merged, and not lost."""
    toggles = {
        "align": {"encoder.align.weight": 0},
        "same": {"encoder.align.weight": 0, "encoder.predict.weight": 1.0},
    }
    question = {"name": "toys", "base": {"method": "toy"}, "seeds": 1}
    factorial = {"design": "factorial", "toggles": toggles}
    with opened(tmp_path / "a", parse_study({**question, "ablation": factorial})) as record:
        assert record.view.about["combinations"] == {
            "full": [[]],
            "no_align": [["align"], ["same"], ["align", "same"]],
        }
    factorial["toggles"]["same"]["encoder.predict.weight"] = 0.5
    with opened(tmp_path / "b", parse_study({**question, "ablation": factorial})) as record:
        assert record.view.about["combinations"] == {
            "full": [[]],
            "no_align": [["align"]],
            "no_same": [["same"], ["align", "same"]],
        }
    with opened(tmp_path / "c", search()) as record:
        assert "combinations" not in record.view.about


def test_a_changed_study_is_refused(tmp_path):
    run_whole(tmp_path, search())
    with pytest.raises(ConfigError, match=r"search\.sampler"):
        opened(tmp_path, search(sampler="random"))


def test_failures_divergence_and_pruning_are_named_as_what_they_are(tmp_path):
    spec = toy.search_spec(num_trials=4, stop_early=ASHA, confirm_seeds=1)
    with opened(tmp_path, spec) as record:
        one, two, three, four = (t.trial for t in record.next_trials(4))
        for trial in (one, two, three, four):
            record.start(trial)
        record.fail(one, "RuntimeError: out of memory")
        assert record.rung(two, "vae", float("nan")) == "stop"
        record.complete(three, {"auroc": float("inf")})
        record.complete(four, {"lpips": 0.3})
        states = {t.trial: t.state for t in record.view.trials.values()}
        assert [states[t] for t in (one, two, three, four)] == [
            "failed",
            "diverged",
            "diverged",
            "failed",
        ]
        assert sorted(record.retry_failed()) == sorted([one, four])
        again = record.next_trials(4)
        assert sorted(t.trial for t in again) == sorted([one, four])
        for trial in again:
            work(record, trial)
        assert record.view.trials[one].state == "completed"
        drive(record)


def test_an_event_for_a_trial_that_does_not_run_is_a_mistake_of_the_driver(tmp_path):
    with opened(tmp_path, ablation()) as record:
        (trial,) = record.next_trials(1)
        with pytest.raises(ValueError, match="start an attempt"):
            record.complete(trial.trial, {"auroc": 0.5})
        record.start(trial.trial)
        record.complete(trial.trial, {"auroc": 0.5})


def test_a_duplicate_proposal_reuses_the_trial(tmp_path):
    space = {"prompt.num_sets": {"choice": [1, 2]}}
    spec = toy.search_spec(space=space, num_trials=8, confirm_seeds=1)
    view = run_whole(tmp_path, spec)
    assert len(view.proposals) == 8
    trials = {t for body in view.proposals.values() for t in body.trials}
    assert len(trials) == 2
    assert not replay(spec, read_events(LocalStorage(tmp_path), spec.name))


def test_a_rung_repeated_keeps_its_decision(tmp_path):
    spec = toy.search_spec(num_trials=8, order="asynchronous", stop_early=ASHA)
    with opened(tmp_path, spec) as record:
        names = [t.trial for t in record.next_trials(4)]
        for name in names:
            record.start(name)
        assert record.rung(names[0], "vae", 0.1) == "continue"
        for name in names[1:]:
            record.rung(name, "vae", 0.9)
        assert record.rung(names[0], "vae", 0.1) == "continue"
    with opened(tmp_path, spec) as record:
        assert record.view.trials[names[0]].rungs["vae"].decision == "continue"
        (late,) = [t.trial for t in record.next_trials(5) if t.trial not in names]
        record.start(late)
        assert record.rung(late, "vae", 0.1) == "stop"


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_search_starts_warm_from_an_earlier_ledger(tmp_path, objectives):
    metrics = [{"metric": "auroc"}, {"metric": "lpips", "mode": "min"}][:objectives]
    old = toy.search_spec(num_trials=8, objective=metrics, startup_trials=2)
    run_whole(tmp_path, old)
    space = {**toy.SPACE, "encoder.predict.weight": {"uniform": [0, 0.5]}}
    spec = toy.search_spec("warmed", num_trials=4, space=space, objective=metrics, startup_trials=2)
    taken, left = warm_trials(spec.search, read_view(LocalStorage(tmp_path), "toys"))
    assert len(taken) + left == 8
    assert taken
    with opened(tmp_path, spec, warm=taken) as record:
        assert len(record.view.warm) == len(taken)
        drive(record)
    cold = run_whole(tmp_path / "cold", spec)
    warmed = read_view(LocalStorage(tmp_path), "warmed")
    assert table(warmed)["points"] != table(cold)["points"]
    assert not replay(spec, read_events(LocalStorage(tmp_path), "warmed"))


def warmed(folder: Path) -> tuple[StudySpec, list]:
    """A search, and what it may take over from an earlier one."""
    run_whole(folder / "old", toy.search_spec(num_trials=8, startup_trials=2))
    spec = toy.search_spec("warmed", num_trials=4, startup_trials=2, confirm_seeds=1)
    taken, _ = warm_trials(spec.search, read_view(LocalStorage(folder / "old"), "toys"))
    return spec, taken


def killed_at_opening(folder: Path, spec: StudySpec, left: int, **more) -> None:
    """Open a study in a process that dies before it creates one more record than `left`."""

    def child() -> None:
        link, links = os.link, itertools.count(1)

        def counted(*args, **kwargs):
            if "warmed/events" in str(args) and next(links) > left:
                os.kill(os.getpid(), signal.SIGKILL)
            link(*args, **kwargs)

        os.link = counted
        opened(folder, spec, **more)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_warm_start_is_whole_after_kills_among_its_records(tmp_path):
    spec, taken = warmed(tmp_path)
    with opened(tmp_path / "whole", spec, warm=taken) as record:
        drive(record)
    killed_at_opening(tmp_path / "killed", spec, 3, warm=taken)
    assert len(read_view(LocalStorage(tmp_path / "killed"), "warmed").warm) == 2 < len(taken)
    # The next driver is handed nothing (the study was begun before), and is killed too.
    killed_at_opening(tmp_path / "killed", spec, 4)
    with opened(tmp_path / "killed", spec) as record:
        drive(record)
    whole, killed = (read_view(LocalStorage(tmp_path / n), "warmed") for n in ("whole", "killed"))
    assert killed.warm == whole.warm
    assert table(killed) == table(whole)
    assert "warm" not in killed.about
    assert not replay(spec, read_events(LocalStorage(tmp_path / "killed"), "warmed"))


def test_a_ledger_whose_opening_names_no_warm_trials_is_read_as_it_stands(tmp_path, monkeypatch):
    spec, taken = warmed(tmp_path)
    append = Writer.append

    def as_before(self, identity, body=None):
        kept = {name: found for name, found in (body or {}).items() if name != "warm"}
        return append(self, identity, kept)

    monkeypatch.setattr(Writer, "append", as_before)
    with opened(tmp_path / "new", spec, warm=taken) as record:
        record.next_trials(1)
    monkeypatch.undo()
    with opened(tmp_path / "new", spec) as record:
        drive(record)
        assert len(record.view.warm) == len(taken)
    with opened(tmp_path / "whole", spec, warm=taken) as record:
        drive(record)
        whole = table(record.view)
    assert table(read_view(LocalStorage(tmp_path / "new"), "warmed")) == whole
