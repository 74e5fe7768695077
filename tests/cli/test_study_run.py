"""`study run` up to the driver and from its end on; the driver itself is replaced."""

import json
import sys
import types
from pathlib import Path

import pytest
import toy_studies as toys

from namd.api import publishing
from namd.cli import main as front
from namd.config.errors import StageError
from namd.ledger.view import read_view
from namd.ledger.writing import open_writer
from namd.storage.local import LocalStorage
from namd.study.spec import parse_study


class FakeDriver:
    """What `namd.distributed.driver` offers; trials are recorded, not run."""

    def __init__(self, values=toys.values_of, stop_after=None, raises=None):
        self.values, self.stop_after, self.raises = values, stop_after, raises
        self.calls = []

    def run_study(self, spec, *, cohort, store_url, reporter, trackers=(), warm=(), **more):
        self.calls.append({"cohort": cohort, "store_url": store_url, "warm": warm, **more})
        if self.raises is not None:
            raise self.raises

        def forward(event, view):
            identity = event.identity
            reporter.event(identity.trial, identity.transition, event.body, view)
            for tracker in trackers:
                tracker.event(identity.trial, identity.attempt, identity.transition, event.body)

        about = {"cohort": str(cohort)}
        found = {"listener": forward, "warm": warm, "about": about}
        with toys.opened(Path(store_url), spec, **found) as it:
            if more["retry_failed"]:
                it.retry_failed()
            found = 0
            while not it.finished:
                for trial in it.next_trials(2):
                    if found == self.stop_after:
                        it.stopped("asked to")
                        return it.view
                    toys.finish_trial(it, trial, self.values)
                    found += 1
            it.close()
            return it.view


class Tracked:
    """A tracker that remembers."""

    def __init__(self):
        self.events, self.rows, self.closed = [], None, False

    def event(self, trial, attempt, transition, body):
        self.events.append(transition)

    def step(self, label, key, index, total, metrics):
        pass

    def table(self, rows, effects=()):
        self.rows = rows

    def close(self):
        self.closed = True


@pytest.fixture
def driver(monkeypatch):
    """Put a fake in the driver's place; the returned function chooses which."""

    def use(**kind):
        fake = FakeDriver(**kind)
        module = types.SimpleNamespace(run_study=fake.run_study)
        monkeypatch.setitem(sys.modules, "namd.distributed.driver", module)
        return fake

    return use


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """A folder that passes for a cohort; without cases there are no intervals over patients."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    monkeypatch.setattr("namd.cli.named_cohorts.find_cohort", lambda _word, _store, **_more: folder)
    return folder


def run(capsys, *words, wandb="off"):
    code = front.main(["study", "run", *map(str, words), "--wandb", wandb, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), captured.err


def test_a_run_ends_with_the_table(studies, cohort, driver, capsys, tmp_path):
    fake = driver()
    path = toys.write_file(tmp_path, toys.ABLATION)
    code, answer, err = run(capsys, path, "--store", studies, "--cohort", "x")
    assert code == 0
    assert answer["study"] == "parts"
    assert answer["state"] == "finished"
    assert answer["trials"]["completed"] == 6
    rows = {row["arm"]: row for row in answer["arms"]}
    assert rows["full"]["auroc"]["mean"] == pytest.approx(0.755)
    assert rows["no_align"]["difference"]["mean"] == pytest.approx(-0.1)
    call = fake.calls[0]
    assert call["store_url"] == str(studies)
    assert call["cohort"] == cohort
    assert not call["resume"]
    assert not call["retry_failed"]
    assert "no_ehr, seed 1: completed (auroc 0.710)" in err


def test_a_factorial_ends_with_its_effects(studies, cohort, driver, capsys, tmp_path):
    driver()
    toggles = toys.ABLATION["ablation"]["toggles"]
    design = {"design": "factorial", "toggles": toggles}
    path = toys.write_file(tmp_path, toys.ABLATION, name="both", ablation=design)
    code, answer, _ = run(capsys, path, "--store", studies, "--cohort", "x")
    assert code == 0
    effects = {effect["effect"]: effect["estimate"]["mean"] for effect in answer["effects"]}
    assert effects == pytest.approx({"align": -0.1, "ehr": -0.05, "align \u00d7 ehr": 0}, abs=1e-9)
    path = toys.write_file(tmp_path, toys.ABLATION, name="again", ablation=design)
    command = ["study", "run", str(path), "--store", str(studies), "--cohort", "x"]
    assert front.main([*command, "--wandb", "off"]) == 0
    text = capsys.readouterr().out
    assert "change of AUROC" in text
    assert "applied minus not applied" in text
    assert "align \u00d7 ehr" in text


def test_for_people_too(studies, cohort, driver, capsys, tmp_path):
    driver()
    path = toys.write_file(tmp_path, toys.ABLATION)
    words = ["study", "run", str(path), "--store", str(studies), "--cohort", "x", "--wandb", "off"]
    assert front.main(words) == 0
    printed = capsys.readouterr().out
    assert "auroc minus full" in printed
    assert "no_align" in printed
    assert "Research use only" in printed


def test_a_search_ends_with_its_best(studies, cohort, driver, capsys, tmp_path):
    driver()
    path = toys.write_file(tmp_path, toys.SEARCH)
    code, answer, err = run(capsys, path, "--store", studies, "--cohort", "x")
    assert code == 0
    assert answer["best"]["overrides"]["vae.alignment.weight"] > 0
    assert answer["confirmed"][0]["seeds"] == 2
    assert "proposal 0: " in err


def test_a_second_run_needs_resume(studies, cohort, driver, capsys, tmp_path):
    driver(stop_after=3)
    path = toys.write_file(tmp_path, toys.ABLATION)
    words = [path, "--store", studies, "--cohort", "x"]
    code, answer, _ = run(capsys, *words)
    assert (code, answer["state"]) == (143, "stopped")
    driver()
    code, answer, _ = run(capsys, *words)
    assert code == 2
    assert "3 of 6 trials are over; --resume continues it" in answer["error"]
    code, answer, _ = run(capsys, *words, "--resume")
    assert (code, answer["attempt"], answer["trials"]["completed"]) == (0, 2, 6)


def test_a_recorded_study_is_resumed_by_its_name(studies, cohort, driver, capsys, tmp_path):
    driver(stop_after=1)
    path = toys.write_file(tmp_path, toys.ABLATION)
    run(capsys, path, "--store", studies, "--cohort", "x")
    path.unlink()
    fake = driver()
    code, answer, _ = run(capsys, "parts", "--resume", "--store", studies)
    assert (code, answer["trials"]["completed"]) == (0, 6)
    assert fake.calls[0]["cohort"] == cohort


def test_a_finished_study_says_how_to_extend_it(studies, cohort, driver, capsys, tmp_path):
    toys.recorded_study(studies)
    driver()
    path = toys.write_file(tmp_path, toys.ABLATION, seeds=3)
    words = [path, "--store", studies, "--cohort", "x"]
    code, answer, _ = run(capsys, *words)
    assert code == 2
    assert "is finished" in answer["error"]
    assert "--resume" in answer["error"]
    code, answer, _ = run(capsys, *words, "--resume")
    assert (code, answer["trials"]["completed"]) == (0, 9)


def test_a_changed_question_is_refused_before_ray_starts(studies, cohort, driver, capsys, tmp_path):
    toys.recorded_study(studies)
    fake = driver()
    changed = {**toys.ABLATION, "base": {**toys.ABLATION["base"], "set": {"vae.num_steps": 7}}}
    path = toys.write_file(tmp_path, changed, seeds=3)
    code, answer, _ = run(capsys, path, "--store", studies, "--cohort", "x", "--resume")
    assert code == 2
    assert str(path) in answer["error"]
    assert "base.set" in answer["error"]
    assert "another name" in answer["error"] or "new name" in answer["error"]
    assert fake.calls == []


def test_a_driver_that_died_before_its_first_record_has_decided_nothing(
    studies, cohort, driver, capsys, tmp_path
):
    with open_writer(LocalStorage(studies), "parts", timing=toys.STILL):
        pass
    driver()
    path = toys.write_file(tmp_path, toys.ABLATION)
    code, answer, _ = run(capsys, path, "--store", studies, "--cohort", "x", "--resume")
    assert (code, answer["trials"]["completed"]) == (0, 6)


@pytest.mark.parametrize("command", [("run", "--resume"), ("plan",)])
def test_a_study_that_recorded_nothing_is_named_by_its_file(
    command, studies, cohort, driver, capsys
):
    with open_writer(LocalStorage(studies), "parts", timing=toys.STILL):
        pass
    fake = driver()
    verb, *options = command
    words = ["study", verb, "parts", *options, "--store", str(studies), "--cohort", "x"]
    assert front.main(words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: study parts: nothing was recorded yet in")
    assert "name its file" in printed
    assert printed.count("\n") == 1
    assert fake.calls == []


def test_a_second_live_run_is_refused_with_host_and_pid(studies, cohort, driver, capsys, tmp_path):
    fake = driver()
    path = toys.write_file(tmp_path, toys.ABLATION)
    with toys.opened(studies, parse_study(toys.ABLATION)) as record:
        holder = record._writer._lease.holder
        code, answer, _ = run(capsys, path, "--store", studies, "--cohort", "x", "--resume")
        assert code == 2
        assert f"process {holder.pid} on {holder.host} is running it" in answer["error"]
        assert "namd study stop parts" in answer["error"]
        assert fake.calls == []
    assert run(capsys, path, "--store", studies, "--cohort", "x", "--resume")[0] == 0


def test_failed_trials_are_exit_1_and_run_again_on_demand(
    studies, cohort, driver, capsys, tmp_path, monkeypatch
):
    def failing(record, trial, values):
        record.start(trial.trial)
        if trial.arm == "no_ehr":
            record.fail(trial.trial, "finetune: no room")
        else:
            record.complete(trial.trial, values(trial))

    path = toys.write_file(tmp_path, toys.ABLATION)
    words = [path, "--store", studies, "--cohort", "x"]
    driver()
    with monkeypatch.context() as patch:
        patch.setattr(toys, "finish_trial", failing)
        code, answer, err = run(capsys, *words)
    assert code == 1
    assert answer["trials"]["failed"] == 2
    assert "finetune: no room" in err
    assert "namd study retry parts --failed" in answer["about"]
    code, answer, _ = run(capsys, *words, "--retry-failed")
    assert (code, answer["trials"]["completed"]) == (0, 6)


def test_a_driver_that_gives_up_is_one_line_and_exit_1(studies, cohort, driver, capsys, tmp_path):
    driver(raises=StageError("the store is full"))
    path = toys.write_file(tmp_path, toys.ABLATION)
    code, answer, _ = run(capsys, path, "--store", studies, "--cohort", "x")
    assert (code, answer["error"]) == (1, "the store is full")


def test_sigterm_says_how_to_go_on(studies, cohort, driver, capsys, tmp_path):
    driver(raises=SystemExit(143))
    path = toys.write_file(tmp_path, toys.ABLATION)
    words = ["study", "run", path, "--store", studies, "--cohort", "x", "--wandb", "off"]
    with pytest.raises(SystemExit) as ended:
        front.main([str(word) for word in words])
    assert ended.value.code == 143
    assert f"namd study run parts --resume --store {studies}" in capsys.readouterr().err


def test_trackers_get_every_record_and_the_table(
    studies, cohort, driver, capsys, tmp_path, monkeypatch
):
    tracker = Tracked()
    monkeypatch.setattr(publishing, "live_trackers", lambda *_given: [tracker])
    driver()
    path = toys.write_file(tmp_path, toys.ABLATION)
    run(capsys, path, "--store", studies, "--cohort", "x", wandb="offline")
    assert tracker.events[0] == "opened"
    assert tracker.events.count("completed") == 6
    assert len(tracker.rows) == 3
    assert tracker.closed


def test_a_study_is_published_from_its_ledger(studies, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    toys.recorded_study(studies)
    words = ["study", "publish", "parts", "--wandb", "--store", str(studies)]
    assert front.main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["study"] == "parts"
    assert answer["mode"] == "offline"
    assert list(Path(answer["folder"]).glob("offline-run-*"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert front.main(words) == 2


def test_a_search_starts_from_earlier_ones(studies, cohort, driver, capsys, tmp_path):
    driver()
    first = toys.write_file(tmp_path, toys.SEARCH)
    run(capsys, first, "--store", studies, "--cohort", "x")
    second = toys.write_file(tmp_path, toys.SEARCH, name="again")
    words = [second, "--store", studies, "--cohort", "x", "--warm-from"]
    code, answer, _ = run(capsys, *words, "weihgts")
    assert code == 2
    assert "did you mean weights?" in answer["error"]
    code, _, err = run(capsys, *words, "weights")
    assert code == 0
    assert "4 trials of weights are known from the start, 0 do not fit" in err
    assert len(read_view(LocalStorage(studies), "again").warm) == 4
    code, answer, _ = run(capsys, *words, "weights", "--resume")
    assert code == 2
    assert "only a new one" in answer["error"]
    ablation = toys.write_file(tmp_path, toys.ABLATION)
    code, answer, _ = run(capsys, ablation, *words[1:], "weights")
    assert code == 2
    assert "is no search" in answer["error"]


def warm_words(tmp_path, studies, **changes):
    second = toys.write_file(tmp_path, toys.SEARCH, **{"name": "again", **changes})
    return [second, "--store", studies, "--cohort", "x", "--warm-from", "weights"]


def test_an_earlier_search_with_another_base_is_taken_over_with_a_warning(
    studies, cohort, driver, capsys, tmp_path
):
    toys.recorded_study(studies, toys.SEARCH)
    driver()
    base = {**toys.SEARCH["base"], "set": {"vae.num_steps": 7}}
    other = warm_words(tmp_path, studies, base=base, evaluate={"num_draws": 3})
    code, _, err = run(capsys, *other)
    assert code == 0
    (line,) = [line for line in err.splitlines() if "mislead" in line]
    assert line.startswith("weights was measured with evaluate.num_draws=")
    assert "(here 3), vae.num_steps=" in line
    assert "(here 7): its values may mislead this search" in line
    code, _, err = run(capsys, *warm_words(tmp_path, studies, name="same"))
    assert code == 0
    assert "4 trials of weights are known" in err
    assert "mislead" not in err


def test_a_search_does_not_start_from_values_of_other_cases(
    studies, cohort, driver, capsys, tmp_path
):
    about = {"cohort": "/old/C", "cohort_fingerprint": "a" * 64}
    with toys.opened(studies, parse_study(toys.SEARCH), about=about) as record:
        toys.finish_trial(record, record.next_trials(1)[0])
    fake = driver()
    words = warm_words(tmp_path, studies)
    (cohort / "card.json").write_text(json.dumps({"fingerprint": "b" * 64}))
    code, answer, _ = run(capsys, *words)
    assert code == 2
    assert (
        "--warm-from weights: it was measured on other cases (aaaaaaaaaaaa, in /old/C)"
        in (answer["error"])
    )
    assert str(cohort) in answer["error"]
    assert fake.calls == []
    (cohort / "card.json").write_text(json.dumps({"fingerprint": "a" * 64}))
    assert run(capsys, *words)[0] == 0


def changed(**more):
    return {**toys.ABLATION, **more}


def searched(**more):
    return {**toys.SEARCH, "search": {**toys.SEARCH["search"], **more}}


@pytest.mark.parametrize(
    ("mapping", "words", "message"),
    [
        (changed(seedz=1), [], "seedz=1: unknown key; did you mean seeds?"),
        (changed(base={"preset": "tinny"}), [], "did you mean tiny?"),
        (
            changed(ablation={"design": "arms", "toggles": {"a": {"vae.aligment.weight": 0}}}),
            [],
            "vae.aligment",
        ),
        (
            {**toys.SEARCH, "evaluate": {"split": "test"}},
            [],
            "a search sees validation only",
        ),
        (
            searched(objective={"metric": "auroc", "split": "test"}),
            [],
            "a search sees the validation split only",
        ),
        (changed(base={"preset": "tiny", "store": "runs/store"}), [], "base.store='runs/store'"),
        (changed(base={"preset": "tiny"}), [], "no store"),
        (toys.ABLATION, ["--store", "{store}"], "no cohort"),
        (toys.ABLATION, ["--store", "{store}", "--cohort", "absent"], "absent"),
        (toys.ABLATION, ["--store", "{here}", "--cohort", "absent"], "holds other things"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_mistake_is_one_line_before_ray_starts(
    command, mapping, words, message, studies, driver, capsys, tmp_path
):
    fake = driver()
    path = toys.write_file(tmp_path, mapping)
    (tmp_path / "here" / "thing").touch()
    given = [word.format(store=studies, here=tmp_path / "here") for word in words]
    assert front.main(["study", command, str(path), *given]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert fake.calls == []


def test_an_absent_study_file_is_said_so(studies, capsys):
    for word in ("absent.yaml", "absent"):
        assert front.main(["study", "run", word]) == 2
        assert "no such study file" in capsys.readouterr().err
