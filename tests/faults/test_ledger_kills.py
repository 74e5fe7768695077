"""Kill the writer before and after everything it does to the disk; nothing is lost or doubled."""

import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from namd.ledger.reading import read_events
from namd.ledger.schema import Identity
from namd.ledger.view import read_view
from namd.ledger.writing import open_writer
from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage

pytestmark = pytest.mark.serial

# A heartbeat would make the number of disk operations depend on time.
STILL = LeaseTiming(ttl_s=4000.0, heartbeat_s=1000.0)
STUDY = "killed"
SEGMENT_RECORDS = 5


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """A killed process loses nothing that the kernel has; only a power cut needs the fsync."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def script() -> list[tuple[Identity, dict]]:
    """A study of two trials, every kind of transition once."""
    events: list[tuple[Identity, dict]] = [
        (Identity(None, 1, "opened"), {"specification": {"name": STUDY}}),
        (
            Identity(None, 0, "proposed/0"),
            {"overrides": {"a": 1}, "point": {}, "sampler_state": {}, "trials": ["one"]},
        ),
    ]
    for trial, ending in (("one", "completed"), ("two", "pruned")):
        events += [
            (
                Identity(trial, 0, "queued"),
                {"arm": "full", "proposal": None, "seed": 0, "overrides": {}},
            ),
            (Identity(trial, 1, "started"), {}),
            (Identity(trial, 1, "stage/vae"), {"stage": "vae", "key": trial, "cached": False}),
            (Identity(trial, 1, "rung/vae"), {"metric": "m", "value": 0.5, "decision": "go"}),
            (Identity(trial, 1, ending), {"values": {"auroc": 0.7}}),
        ]
    return [*events, (Identity(None, 1, "closed"), {})]


def write_all(storage: LocalStorage, acknowledged: Path | None = None) -> None:
    with open_writer(storage, STUDY, timing=STILL, segment_records=SEGMENT_RECORDS) as writer:
        for number, (identity, body) in enumerate(script()):
            writer.append(identity, body)
            if acknowledged is not None:
                acknowledged.write_text(str(number + 1))


class Countdown:
    """Kills this process at the n-th call of what it wraps: even n before, odd n after it."""

    def __init__(self, last: int) -> None:
        self.left = last

    def wrap(self, function):
        def wrapped(*args, **kwargs):
            self.step()
            result = function(*args, **kwargs)
            self.step()
            return result

        return wrapped

    def step(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def write_until(folder: Path, last: int, acknowledged: Path) -> None:
    countdown = Countdown(last)
    os.link, os.fsync = countdown.wrap(os.link), countdown.wrap(os.fsync)
    Path.unlink = countdown.wrap(Path.unlink)  # type: ignore[method-assign]
    write_all(LocalStorage(folder), acknowledged)


def killed_at(folder: Path, last: int) -> bool:
    """Run the writer in a child that dies at step `last`; False if it reached its end."""
    process = multiprocessing.get_context("fork").Process(
        target=write_until, args=(folder / "store", last, folder / "acknowledged")
    )
    process.start()
    process.join()
    return process.exitcode == -signal.SIGKILL


def facts(storage: LocalStorage) -> Counter:
    return Counter(e.identity for e in read_events(storage, STUDY) if e.identity.kind != "fenced")


def check_after_kill(folder: Path) -> None:
    storage = LocalStorage(folder / "store")
    acknowledged = folder / "acknowledged"
    count = int(acknowledged.read_text() or 0) if acknowledged.exists() else 0
    wanted = [identity for identity, _ in script()]
    assert set(wanted[:count]) <= set(facts(storage)), "an acknowledged record is lost"
    write_all(storage)
    assert facts(storage) == Counter(wanted)
    view = read_view(storage, STUDY)
    assert view.counts()["completed"] == view.counts()["pruned"] == 1
    assert view.ended == "closed"


@pytest.mark.parametrize(
    "phase", [0, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 4, 5, 6, 7))]
)
def test_every_kill_leaves_a_ledger_that_goes_on(tmp_path, phase):
    step = phase
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        killed = killed_at(folder, step)
        check_after_kill(folder)
        if not killed:
            break
        step += 8
    assert step > 80, "the kill points are few: something is not wrapped"


@pytest.mark.parametrize("stride", [31, pytest.param(3, marks=pytest.mark.slow)])
def test_a_successor_killed_while_taking_over_changes_nothing(tmp_path, stride):
    """Two kills in a row: the second one at steps of the first one's recovery."""
    for step in range(0, 200, stride):
        folder = tmp_path / str(step)
        folder.mkdir()
        assert killed_at(folder, 60)
        (folder / "acknowledged").unlink(missing_ok=True)
        killed_at(folder, step)
        check_after_kill(folder)


def test_a_writer_that_does_not_look_at_identities_doubles(tmp_path):
    """The twin: without identities a resumed script records everything twice."""
    storage = LocalStorage(tmp_path)
    write_all(storage)
    with open_writer(storage, STUDY, timing=STILL) as writer:
        writer._known.clear()
        for identity, body in script():
            writer.append(identity, body)
    assert facts(storage) != Counter(identity for identity, _ in script())
