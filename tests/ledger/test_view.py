"""What is rebuilt from the records, and that ten thousand trials are read fast."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from namd.ledger.reading import encode_segment, read_events
from namd.ledger.schema import Event, Identity, Place, Span
from namd.ledger.view import read_view, reduce_events
from namd.storage.local import LocalStorage

STUDY = "many"


def trial_events(number: int, ending: str = "completed") -> list[tuple[Identity, dict]]:
    trial = f"{number:020d}"
    overrides = {"vae.alignment.weight": 0.5, "finetune.soft_prompt.num_sets": number % 4}
    body = {"arm": "", "seed": 0, "overrides": overrides, "proposal": number}
    proposal = {"overrides": overrides, "point": {}, "sampler_state": {}, "trials": [trial]}
    events: list[tuple[Identity, dict]] = [
        (Identity(None, 0, f"proposed/{number}"), proposal),
        (Identity(trial, 0, "queued"), body),
        (Identity(trial, 1, "started"), {}),
    ]
    for stage in ("vae", "latents", "pretrain", "finetune", "draws-validation", "scores"):
        execution = {
            "stage": stage,
            "key": f"{number}-{stage}",
            "cached": stage == "vae",
            "seconds": 2.0,
            "device_seconds": 4.0,
        }
        events.append((Identity(trial, 1, f"stage/{stage}"), execution))
    rung = {"metric": "probe_auroc", "value": 0.6, "decision": "continue"}
    events.append((Identity(trial, 1, "rung/vae"), rung))
    events.append((Identity(trial, 1, ending), {"values": {"auroc": number / 1e5}}))
    return events


def place_all(identities: list[tuple[Identity, dict]]) -> list[Event]:
    return [Event(Place(1, n + 1), i, 0.0, "w", body) for n, (i, body) in enumerate(identities)]


def write_segments(folder: Path, num_trials: int) -> int:
    """A sealed ledger without going through the writer, whose fsyncs would take minutes."""
    events = place_all([e for n in range(num_trials) for e in trial_events(n)])
    segments = folder / "studies" / STUDY / "segments"
    segments.mkdir(parents=True)
    for start in range(0, len(events), 2000):
        part = events[start : start + 2000]
        span = Span(1, part[0].place.seq, part[-1].place.seq)
        (segments / span.name).write_bytes(encode_segment(part))
    return len(events)


def test_a_view_holds_what_was_recorded():
    opened = (Identity(None, 1, "opened"), {"specification": {"name": STUDY}})
    message = (Identity(None, 1, "message/1"), {"text": "LPIPS falls back"})
    view = reduce_events(STUDY, place_all([opened, *trial_events(7), message]))
    (trial,) = view.trials.values()
    assert (trial.state, trial.attempt, trial.values) == ("completed", 1, {"auroc": 7e-5})
    assert [s.stage.label for s in trial.stages if s.cached] == ["vae"]
    assert trial.rungs["vae"].value == 0.6
    assert view.rung_order == [(trial.trial, "vae")]
    assert view.proposals[7].trials == [trial.trial]
    assert view.specification == {"name": STUDY}
    assert [message.text for message in view.messages] == ["LPIPS falls back"]
    assert set(view.executions().values()) == {1}


def test_the_cohort_is_the_last_that_an_opening_named():
    found = {"cohort": "/c", "cohort_fingerprint": "aa", "host": "one"}
    openings = [found, {"host": "two"}, {"cohort": "/moved"}]
    events = [(Identity(None, n, "opened"), about) for n, about in enumerate(openings, start=1)]
    about = reduce_events(STUDY, place_all(events[:2])).about
    assert about == {"cohort": "/c", "cohort_fingerprint": "aa", "host": "two"}
    about = reduce_events(STUDY, place_all(events)).about
    assert about == {"cohort": "/moved", "cohort_fingerprint": "aa"}


@pytest.mark.parametrize("ending", ["completed", "pruned", "failed", "diverged"])
def test_each_ending_is_named_as_what_it_is(ending):
    view = reduce_events(STUDY, place_all(trial_events(0, ending)))
    assert view.counts()[ending] == 1
    assert sum(view.counts().values()) == 1


def test_the_latest_attempt_counts():
    events = trial_events(0, "failed")
    trial = events[1][0].trial
    again = [(Identity(trial, 2, "started"), {}), (Identity(trial, 2, "completed"), {"values": {}})]
    late = [(Identity(trial, 1, "interrupted"), {})]
    assert reduce_events(STUDY, place_all(events + again)).counts()["completed"] == 1
    assert reduce_events(STUDY, place_all(events + again + late)).counts()["completed"] == 1
    assert reduce_events(STUDY, place_all(events + late)).counts()["pending"] == 1


def test_the_status_agrees_with_the_view(tmp_path):
    write_segments(tmp_path, 300)
    status = read_view(LocalStorage(tmp_path), STUDY, detailed=False)
    view = read_view(LocalStorage(tmp_path), STUDY)
    assert status.counts() == view.counts()
    assert status.stages_built == view.stages_built == len(view.executions()) == 1500
    assert status.measured()["p5"]["auroc"] == {0: 5e-5}
    assert not status.arms()
    assert status.measured() == view.measured()
    assert status.device_seconds() == view.device_seconds()
    assert status.num_events == view.num_events


def test_a_view_without_details_keeps_none(tmp_path):
    write_segments(tmp_path, 3)
    status = read_view(LocalStorage(tmp_path), STUDY, detailed=False)
    view = read_view(LocalStorage(tmp_path), STUDY)
    for trial in status.trials.values():
        assert [*trial.stages, *trial.rungs, *trial.overrides] == []
        assert trial.last_stage == "scores"
    assert all(trial.stages and trial.rungs and trial.overrides for trial in view.trials.values())
    assert not status.rung_order
    assert [p.overrides for p in status.proposals.values()] == [
        p.overrides for p in view.proposals.values()
    ]


@pytest.mark.slow
def test_ten_thousand_trials_are_counted_in_three_seconds_and_bounded_memory(tmp_path):
    count = write_segments(tmp_path, 10_000)
    program = (
        "import sys, time\n"
        "from namd.storage.opening import open_storage\n"
        "from namd.ledger.view import read_view\n"
        "start = time.process_time()\n"
        "status = read_view(open_storage(sys.argv[1]), sys.argv[2], detailed=False)\n"
        "seconds = time.process_time() - start\n"
        "lines = open('/proc/self/status').read().splitlines()\n"
        "peak = next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) / 1024\n"
        "print(status.num_events, status.counts()['completed'], seconds, peak)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), STUDY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events, completed, seconds, peak_mib = done.stdout.split()
    assert (int(events), int(completed)) == (count, 10_000)
    assert float(seconds) < 3.0, f"{seconds} s"
    assert float(peak_mib) < 150, f"{peak_mib} MiB"


def test_reading_streams(tmp_path):
    """The first record is there before the last segment was read."""
    write_segments(tmp_path, 2000)
    start = time.perf_counter()
    next(read_events(LocalStorage(tmp_path), STUDY))
    first = time.perf_counter() - start
    start = time.perf_counter()
    assert sum(1 for _ in read_events(LocalStorage(tmp_path), STUDY)) == 2000 * 11
    assert first < (time.perf_counter() - start) / 3
