"""Stopping asks and waits; retrying frees what failed."""

import json
import threading
import time

import pytest
import toy_studies as toys

from namd.cli import main as front
from namd.cli import study_stop
from namd.cli.study_inputs import Ledger
from namd.ledger.reading import read_events
from namd.ledger.requests import stop_requested
from namd.ledger.view import read_view
from namd.storage.local import LocalStorage
from namd.study.spec import parse_study


def asked(capsys, *words):
    code = front.main(["study", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(study_stop, "POLL_S", 0.02)


def test_stop_waits_until_the_study_is_given_back(studies, capsys):
    storage = LocalStorage(studies)
    record = toys.opened(studies, parse_study(toys.ABLATION))
    seen = []

    def driver():
        with record:
            while not seen:
                reason = stop_requested(storage, "parts", record.attempt)
                if reason is not None:
                    seen.append(reason)
                time.sleep(0.02)
            record.stopped(reason)

    thread = threading.Thread(target=driver)
    thread.start()
    code, answer = asked(capsys, "stop", "parts", "--store", studies)
    thread.join()
    assert (code, answer["stopped"], answer["state"]) == (0, True, "stopped")
    assert "namd study stop" in seen[0]
    _, answer = asked(capsys, "status", "parts", "--store", studies)
    assert seen[0] in answer["about"]


def test_a_driver_that_goes_on_is_reported_after_the_timeout(studies, capsys):
    with toys.opened(studies, parse_study(toys.ABLATION)):
        words = ["study", "stop", "parts", "--store", str(studies), "--timeout", "0.1"]
        assert front.main(words) == 1
        assert "still runs" in capsys.readouterr().err


def test_without_waiting_only_the_request_is_left(studies, capsys):
    with toys.opened(studies, parse_study(toys.ABLATION)) as record:
        words = ["study", "stop", "parts", "--store", str(studies), "--timeout", "0"]
        assert front.main(words) == 0
        assert stop_requested(LocalStorage(studies), "parts", record.attempt) is not None
        assert stop_requested(LocalStorage(studies), "parts", record.attempt + 1) is None


def test_nobody_is_stopped_where_nobody_runs(studies, capsys):
    toys.recorded_study(studies)
    assert front.main(["study", "stop", "parts", "--store", str(studies)]) == 2
    assert "not running (" in capsys.readouterr().err


def test_retry_makes_failed_trials_pending_and_says_how_to_run_them(studies, capsys):
    with toys.opened(studies, parse_study(toys.ABLATION)) as record:
        first, second, third = record.next_trials(3)
        record.start(first.trial)
        record.fail(first.trial, "no room")
        record.start(second.trial)
        record.diverge(second.trial, "nan")
        toys.finish_trial(record, third)
    code, answer = asked(capsys, "retry", "parts", "--failed", "--store", studies)
    assert code == 0
    assert answer["pending_again"] == [first.trial]
    assert answer["resume"] == f"namd study run parts --resume --store {studies}"
    view = read_view(LocalStorage(studies), "parts")
    states = [view.trials[t.trial].state for t in (first, second, third)]
    assert states == ["pending", "diverged", "completed"]
    code, answer = asked(capsys, "retry", "parts", "--failed", "--store", studies)
    assert (code, answer["pending_again"]) == (0, [])


def test_a_retried_study_knows_its_cohort_as_before(studies, capsys):
    about = {"cohort": "/c", "cohort_fingerprint": "aa", "host": "another"}
    with toys.opened(studies, parse_study(toys.ABLATION), about=about) as record:
        (trial,) = record.next_trials(1)
        record.start(trial.trial)
        record.fail(trial.trial, "no room")
    assert asked(capsys, "retry", "parts", "--failed", "--store", studies)[0] == 0
    ledger = Ledger(str(studies), "parts", LocalStorage(studies))
    assert read_view(ledger.storage, "parts").about["cohort"] == "/c"
    openings = [e.body for e in read_events(ledger.storage, "parts") if "cohort" in e.body]
    assert [body["cohort_fingerprint"] for body in openings] == ["aa", "aa"]
    assert read_view(ledger.storage, "parts").about["cohort_fingerprint"] == "aa"


def test_a_running_study_is_not_retried(studies, capsys):
    with toys.opened(studies, parse_study(toys.ABLATION)):
        assert front.main(["study", "retry", "parts", "--failed", "--store", str(studies)]) == 2
    assert "stop it first" in capsys.readouterr().err


def test_retry_says_what(studies, capsys):
    assert front.main(["study", "retry", "parts", "--store", str(studies)]) == 2
    assert "--failed" in capsys.readouterr().err
