"""What holds of every study, whoever carries it: played without Ray."""

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import toy_study as toy
from play import TIMING, Recorder, Theatre

from namd.cli.main import main
from namd.config.errors import StageError
from namd.ledger.pins import pinned
from namd.ledger.reading import read_events
from namd.ledger.requests import request_stop
from namd.ledger.view import read_view
from namd.pipeline.store import open_store
from namd.storage.opening import open_storage
from namd.study.plan import Cluster, make_study_plan
from namd.study.state import replay
from namd.study.trials import Configurator


def bodies(folder: Path) -> Counter[str]:
    """How often each key's body began (a draw or score: was made)."""
    lines = [line for line in toy.read_diary(folder) if " step " not in line]
    return Counter(line.split()[1] for line in lines)


def outcomes(view) -> dict[str, tuple]:
    return {t.trial: (t.state, t.values.get("auroc")) for t in view.trials.values()}


def test_each_key_is_executed_and_counted_once(tmp_path):
    theatre = Theatre(tmp_path, toy.ablation(seeds=2))
    view = theatre.play()
    assert [(t.state, t.reason) for t in view.trials.values()] == 6 * [("completed", "")]
    assert view.ended == "closed"
    executed = view.executions()
    assert set(executed.values()) == {1}
    assert set(bodies(tmp_path).values()) == {1}
    needed = {stage.key for trial in view.trials.values() for stage in trial.stages}
    assert set(executed) == needed
    # Two arms share the VAE of their seed: 6 trials, 4 of them.
    vaes = {s.key for t in view.trials.values() for s in t.stages if s.stage.name == "vae"}
    assert len(vaes) == 4
    assert all(stage_worker.stopped for stage_worker in theatre.stage_workers)


def test_reserved_seconds_cover_what_was_built_and_little_more(tmp_path):
    spec = toy.ablation(seeds=2, base={"encoder.pause_s": 0.05, "finetune.pause_s": 0.05})
    theatre = Theatre(tmp_path, spec)
    started = time.monotonic()
    view = theatre.play()
    elapsed = time.monotonic() - started
    stages = [s for t in view.trials.values() for s in t.stages if not s.cached]
    reserved = sum(s.reserved for s in stages) + theatre.idle
    assert sum(s.device_seconds for s in stages) <= reserved <= 2.0 * elapsed + 0.1


def test_a_plan_and_the_ledger_charge_alike(tmp_path):
    """Two cores a worker; four workers are asked for where one builds, and are not charged."""
    two = {"cpus": 2}
    alone = {"probe": {"workers": 4, **two}, "scores": {"workers": 4, **two}}
    spec = toy.ablation(seeds=1, resources={"default": two, "stages": alone})
    theatre = Theatre(tmp_path, spec)
    view = theatre.play()
    store = open_store(str(tmp_path), TIMING)
    stages = [s for t in view.trials.values() for s in t.stages if not s.cached]
    for stage in stages:
        manifest = store.find(stage.stage.name, stage.key).manifest()
        assert stage.device_seconds == pytest.approx(2 * manifest["device_seconds"])
    again = toy.ablation("again", seeds=1, resources={"default": two, "stages": alone})
    configurator = Configurator(toy.with_seeds(again, 2), toy.METHODS, {})
    plan = make_study_plan(
        configurator.spec, configurator, Cluster(8.0), store=store, hash_source=lambda _: ""
    )
    charged: dict[str, list[float]] = {}
    for stage in stages:
        charged.setdefault(stage.stage.name, []).append(stage.device_seconds)
    for estimate in plan.stages:
        costs = charged[estimate.stage]
        assert estimate.source == "recorded"
        assert min(costs) - 1e-3 <= estimate.seconds_each <= max(costs) + 1e-3


def test_a_second_study_on_the_same_store_executes_nothing(tmp_path):
    first = Theatre(tmp_path, toy.ablation("one")).play()
    second = Theatre(tmp_path, toy.ablation("two")).play()
    assert second.counts() == first.counts()
    assert second.executions() == {}
    assert [t.values for t in second.trials.values()] == [t.values for t in first.trials.values()]


def test_a_stage_that_was_damaged_fails_who_needs_it_by_name(tmp_path):
    first = Theatre(tmp_path, toy.ablation("one")).play()
    of = {(t.body["arm"], t.body["seed"]): t for t in first.trials.values()}
    key = next(s.key for s in of["no_align", 0].stages if s.stage.name == "vae")
    payload = next((tmp_path / "vae" / key / "attempts").glob("*/payload/*"))
    data = payload.read_bytes()
    payload.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    second = Theatre(tmp_path, toy.ablation("two")).play()
    failed = [t for t in second.trials.values() if t.state == "failed"]
    assert [(t.body["arm"], t.body["seed"]) for t in failed] == [("no_align", 0)]
    assert f"vae/{key[:12]} is damaged" in failed[0].reason
    assert second.counts()["completed"] == 5
    open_store(str(tmp_path)).remove("vae", key)
    mended = Theatre(tmp_path, toy.ablation("two")).play(retry_failed=True)
    assert mended.counts()["completed"] == 6
    assert outcomes(mended) == outcomes(first)
    assert list(mended.executions()) == [key]


def test_two_studies_at_once_share_stages(tmp_path):
    specs = [
        toy.ablation(name, base={"encoder.pause_s": 0.05, "finetune.pause_s": 0.02})
        for name in ("one", "two")
    ]
    theatres = [Theatre(tmp_path, spec) for spec in specs]
    views = {}

    def play(theatre):
        views[theatre.spec.name] = theatre.play()

    threads = [threading.Thread(target=play, args=(theatre,)) for theatre in theatres]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [view.counts()["completed"] for view in views.values()] == [6, 6]
    executed = Counter(views["one"].executions()) + Counter(views["two"].executions())
    assert set(executed.values()) == {1}
    assert set(bodies(tmp_path).values()) == {1}


def test_a_failing_key_fails_all_its_waiters_after_one_retry(tmp_path):
    toggles = {"align": {"encoder.fault": "raise"}, "rate": {"finetune.rate": 0.9}}
    theatre = Theatre(tmp_path, toy.ablation(toggles=toggles))
    view = theatre.play()
    by_arm = {(t.body["arm"], t.body["seed"]): t for t in view.trials.values()}
    assert {by_arm["no_align", s].state for s in (0, 1)} == {"failed"}
    assert {by_arm[a, s].state for a in ("full", "no_rate") for s in (0, 1)} == {"completed"}
    assert "the toy was made to fail" in by_arm["no_align", 0].reason
    vaes = Counter(
        line.split()[1] for line in toy.read_diary(tmp_path) if "vae" in line and "from" in line
    )
    assert sorted(vaes.values()) == [1, 1, 2, 2]


def test_a_key_that_fails_once_is_retried_and_counted_once(tmp_path):
    theatre = Theatre(tmp_path, toy.ablation(base={"encoder.fault": "raise-once"}))
    view = theatre.play()
    assert view.counts()["completed"] == 6
    assert set(view.executions().values()) == {1}
    assert any("retrying" in note for note in theatre.reporter.notes)


def test_failures_are_not_cached_between_openings(tmp_path):
    toggles = {"align": {"encoder.fault": "raise"}}
    Theatre(tmp_path, toy.ablation(seeds=1, toggles=toggles)).play()
    again = Theatre(tmp_path, toy.ablation(seeds=1, toggles=toggles)).play(retry_failed=True)
    assert again.counts()["failed"] == 1
    begun = [line for line in toy.read_diary(tmp_path) if "vae" in line and "from" in line]
    assert len(begun) == 1 + 2 + 2


def test_a_loss_that_is_not_finite_is_diverged_and_never_retried(tmp_path):
    toggles = {"align": {"encoder.fault": "nan"}}
    view = Theatre(tmp_path, toy.ablation(seeds=1, toggles=toggles)).play()
    assert view.counts()["diverged"] == 1
    assert view.counts()["completed"] == 1
    begun = [line for line in toy.read_diary(tmp_path) if "vae" in line and "from" in line]
    assert len(begun) == 2


def test_a_lost_stage_worker_costs_a_retry_and_no_trial(tmp_path):
    theatre = Theatre(tmp_path, toy.ablation(), deaths=3)
    view = theatre.play()
    assert view.counts()["completed"] == 6
    assert set(view.executions().values()) == {1}
    assert len([n for n in theatre.reporter.notes if "stage worker lost" in n]) == 3


def test_a_key_that_kills_every_stage_worker_fails(tmp_path):
    view = Theatre(tmp_path, toy.ablation(seeds=1), deaths=1000).play()
    assert view.counts()["failed"] == 3


def test_a_lost_trial_driver_loses_no_trial(tmp_path):
    theatre = Theatre(tmp_path, toy.ablation())
    theatre.lost_drivers = 2
    view = theatre.play()
    assert view.counts()["completed"] == 6
    assert set(view.executions().values()) == {1}
    assert [e for e in theatre.reporter.events if e[1] == "interrupted"]


def test_a_pruned_trial_withdraws_and_a_shared_build_goes_on(tmp_path):
    """Of two trials that wait for one VAE, one is stopped by its user: the build goes on."""
    spec = toy.ablation(
        seeds=1, base={"encoder.pause_s": 0.3}, toggles={"rate": {"finetune.rate": 0.9}}
    )
    withdrawn = []

    def withdraw() -> None:
        theatre._ask(theatre.stage_scheduler.withdraw(f"{withdrawn[0]}/1", "pruned here"))

    def on_event(trial, transition, body, view):
        if transition == "started":
            withdrawn.append(trial)
            if len(withdrawn) == 2:  # both wait from here on; a VAE takes over a second
                threading.Timer(0.3, withdraw).start()

    theatre = Theatre(tmp_path, spec, reporter=Recorder(on_event))
    view = theatre.play()
    assert view.trials[withdrawn[0]].state == "pruned"
    assert view.counts()["completed"] == 1
    begun = [line for line in toy.read_diary(tmp_path) if "vae" in line and "from" in line]
    assert len(begun) == 1


def test_a_build_that_nobody_wants_stops_at_a_checkpoint(tmp_path):
    spec = toy.ablation(seeds=1, base={"finetune.pause_s": 0.1, "finetune.steps": 100})
    theatre = Theatre(tmp_path, spec)

    def on_event(trial, transition, body, view):
        if transition == "stage/probe":
            threading.Timer(
                0.5, theatre._ask, [theatre.stage_scheduler.withdraw(f"{trial}/1", "x")]
            ).start()

    theatre.reporter._on_event = on_event
    view = theatre.play()
    assert view.counts()["pruned"] == 3
    steps = Counter(
        line.split()[1]
        for line in toy.read_diary(tmp_path)
        if "finetune" in line and "step" in line
    )
    assert 0 < max(steps.values()) < 20


def test_asha_stops_by_the_ledger_and_siblings_follow(tmp_path):
    spec = toy.search(num_trials=10, seeds=2, stop_early={"asha": {"reduction": 2}})
    view = Theatre(tmp_path, spec).play()
    assert view.counts()["pruned"] >= 2
    assert view.ended == "closed"
    assert replay(spec, read_events(open_storage(str(tmp_path)), spec.name)) == []
    # Nothing of a pruned trial was built after its rung.
    pruned = [t for t in view.trials.values() if t.state == "pruned" and t.rungs]
    assert pruned
    assert all({s.stage.name for s in t.stages} <= {"vae", "probe"} for t in pruned)


def test_rungs_inside_a_stage_decide_alike_live_and_replayed(tmp_path):
    rungs = [{"stage": "finetune", "metric": "probe_auroc", "fraction": 0.5}]
    asha = {"asha": {"reduction": 2, "rungs": rungs}}
    base = {"finetune.pause_s": 0.01}
    first = Theatre(tmp_path, toy.search("one", base, stop_early=asha, num_trials=8)).play()
    second = Theatre(tmp_path, toy.search("two", base, stop_early=asha, num_trials=8)).play()
    assert first.counts()["pruned"] >= 1
    assert [t.rungs for t in first.trials.values()] == [t.rungs for t in second.trials.values()]
    assert outcomes(first) == outcomes(second)


def test_a_request_stops_and_resume_ends_alike(tmp_path):
    spec = toy.ablation(base={"finetune.pause_s": 0.05})
    theatre = Theatre(tmp_path / "a", spec)

    def on_event(trial, transition, body, view):
        if transition == "completed":
            theatre.controller.ask_to_stop("enough for today")

    theatre.reporter._on_event = on_event
    view = theatre.play()
    assert view.ended == "stopped"
    assert view.counts()["completed"] < 6
    assert view.counts()["running"] == 0
    resumed = Theatre(tmp_path / "a", spec).play()
    unbroken = Theatre(tmp_path / "b", spec).play()
    assert outcomes(resumed) == outcomes(unbroken)
    assert set(resumed.executions().values()) == {1}


def test_a_stop_request_in_the_ledger_is_heard(tmp_path):
    spec = toy.ablation(base={"finetune.pause_s": 0.3})
    theatre = Theatre(tmp_path, spec)
    assert request_stop(theatre.storage, spec.name, 1, "asked by a test")
    started = time.monotonic()
    view = theatre.play()
    assert view.ended == "stopped"
    assert time.monotonic() - started < 10
    assert Theatre(tmp_path, spec).play().counts()["completed"] == 6


def test_a_full_disk_under_a_stage_worker_ends_with_one_line_and_blames_no_trial(tmp_path):
    spec = toy.ablation(base={"encoder.fault": "full-once"})
    with pytest.raises(StageError, match=r"disk|space") as caught:
        Theatre(tmp_path, spec).play()
    assert "\n" not in str(caught.value)
    view = read_view(open_storage(str(tmp_path)), spec.name)
    assert view.ended == "stopped"
    assert view.counts()["failed"] == 0
    for _ in range(4):  # once for each VAE, whichever met it first
        try:
            view = Theatre(tmp_path, spec).play()
        except StageError:
            continue
        break
    assert view.counts()["completed"] == 6


def test_a_spent_budget_stops_and_a_raised_one_goes_on(tmp_path):
    base = {"finetune.pause_s": 0.05}
    little = toy.ablation(base=base, budget={"device_hours": 1e-4})
    view = Theatre(tmp_path, little).play()
    assert view.ended == "stopped"
    assert view.counts()["pending"] > 0
    enough = toy.ablation(base=base, budget={"device_hours": 1.0})
    assert Theatre(tmp_path, enough).play().counts()["completed"] == 6


def test_an_extended_study_goes_on(tmp_path):
    spec = toy.ablation(seeds=1)
    assert Theatre(tmp_path, spec).play().counts()["completed"] == 3
    view = Theatre(tmp_path, toy.with_seeds(spec, 2)).play()
    assert view.counts()["completed"] == 6
    assert set(view.executions().values()) == {1}


def test_live_studies_hold_what_their_trials_need(tmp_path):
    seen = []

    def on_event(trial, transition, body, view):
        if transition == "started":
            seen.append(pinned(open_storage(str(tmp_path))))

    view = Theatre(tmp_path, toy.ablation(seeds=1), reporter=Recorder(on_event)).play()
    needed = {(s.stage.name, s.key) for t in view.trials.values() for s in t.stages}
    assert seen[-1] == needed
    assert pinned(open_storage(str(tmp_path))) == set()


def test_a_store_that_cannot_be_written_ends_with_one_line(tmp_path, monkeypatch):
    from namd.storage.local import LocalStorage

    theatre = Theatre(tmp_path, toy.ablation())
    create = LocalStorage.create

    def full(self, name, data, durable=True):
        if "events" in name and theatre.controller and theatre.controller.running > 1:
            raise OSError(28, "No space left on device", name)
        return create(self, name, data, durable)

    monkeypatch.setattr(LocalStorage, "create", full)
    with pytest.raises(StageError, match="No space left") as caught:
        theatre.play()
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert Theatre(tmp_path, toy.ablation()).play().counts()["completed"] == 6


def killed(folder: Path, kind: str, after: int) -> int:
    """Play a study in a process that dies at its `after`-th record; return its exit code."""
    return subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("play_and_die.py")),
            str(folder),
            kind,
            str(after),
        ],
        check=False,
        timeout=120,
    ).returncode


@pytest.mark.parametrize(
    "after",
    [pytest.param(n, marks=pytest.mark.slow) for n in (3, 11, 22, 33)] + [27],
)
def test_a_killed_driver_loses_and_doubles_nothing(tmp_path, after):
    assert killed(tmp_path / "a", "ablation", after) == -9
    view = Theatre(tmp_path / "a", toy.ablation()).play()
    unbroken = Theatre(tmp_path / "b", toy.ablation()).play()
    assert outcomes(view) == outcomes(unbroken)
    assert set(view.executions().values()) == {1}
    assert view.executions() == unbroken.executions()


@pytest.mark.slow
def test_a_search_proposes_the_same_after_a_kill(tmp_path):
    assert killed(tmp_path / "a", "search", 40) == -9
    spec = toy.search(stop_early={"asha": {"reduction": 2}})
    view = Theatre(tmp_path / "a", spec).play()
    unbroken = Theatre(tmp_path / "b", spec).play()
    assert [p.point for p in view.proposals.values()] == [
        p.point for p in unbroken.proposals.values()
    ]
    assert outcomes(view) == outcomes(unbroken)


def test_gc_leaves_what_a_live_study_holds_and_takes_it_afterwards(tmp_path, capsys):
    """A trial that was pruned has no recorded run: only the study's hold keeps its artifacts."""
    spec = toy.search(num_trials=10, stop_early={"asha": {"reduction": 2}})
    gc = ["store", "gc", "--unused", "--store", str(tmp_path)]
    during = []

    def on_event(trial, transition, body, view):
        if transition == "pruned" and not during:
            before = {(e.stage, e.key) for e in open_store(str(tmp_path), TIMING).entries()}
            assert main(gc) == 0
            left = {(e.stage, e.key) for e in open_store(str(tmp_path), TIMING).entries()}
            during.append((before, left))

    view = Theatre(tmp_path, spec, reporter=Recorder(on_event)).play()
    (before, left), *_ = during
    pruned = [t for t in view.trials.values() if t.state == "pruned"]
    probes = {("probe", s.key) for t in pruned for s in t.stages if s.stage.name == "probe"}
    assert before <= left
    assert probes
    assert main(gc) == 0
    now = {(e.stage, e.key) for e in open_store(str(tmp_path), TIMING).entries()}
    assert not probes & now
    assert len(now) > 0
    capsys.readouterr()
