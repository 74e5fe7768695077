"""An S3 that is cut off, stands still or loses answers under ledger and store; nothing is lost."""

import threading
import time

import pytest

from namd.ledger.lease import StudyBusy
from namd.ledger.reading import read_events
from namd.ledger.schema import Identity
from namd.ledger.writing import open_writer
from namd.pipeline.store import open_store
from namd.storage import s3
from namd.storage.errors import StoreError
from namd.storage.lease import LeaseTiming
from namd.storage.opening import open_storage
from namd.storage.s3 import PATIENCE_VARIABLE, S3Away

pytestmark = pytest.mark.serial

QUICK = LeaseTiming(ttl_s=4.0, heartbeat_s=0.2)
TIMING = LeaseTiming(heartbeat_s=0.2, ttl_s=4.0)
KEY = "ab" * 32
STUDY = "clouded"


@pytest.fixture(autouse=True)
def _quick_limits(monkeypatch):
    monkeypatch.setattr(s3, "ANSWER_S", 2)
    monkeypatch.setattr(s3, "CONNECT_S", 1)
    monkeypatch.setenv(PATIENCE_VARIABLE, "8")


def identity(number: int) -> Identity:
    return Identity(f"trial{number}", 1, "interrupted")


def recorded(storage) -> list[Identity]:
    return [event.identity for event in read_events(storage, STUDY)]


def out_for(line, way: str, seconds: float) -> threading.Timer:
    """Begin an outage that ends by itself."""
    getattr(line, way)()
    timer = threading.Timer(seconds, line.mend)
    timer.start()
    return timer


def filled(store, content="data"):
    attempt = store.open_attempt("train", KEY)
    (attempt.payload / "x.txt").write_text(content)
    (attempt.folder / "manifest.json").write_text("{}")
    (attempt.folder / "metrics.jsonl").write_text("")
    return attempt


@pytest.mark.parametrize("way", ["cut", "stop"])
def test_records_of_a_short_outage_are_written_once_and_in_order(s3_line, s3_url, way):
    storage = open_storage(s3_url)
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        writer.append(identity(0))
        out_for(s3_line, way, 3.0)
        for number in range(1, 4):
            assert writer.append(identity(number)) or way == "stop"
    assert recorded(storage) == [identity(n) for n in range(4)]


def test_a_creation_whose_answer_was_lost_is_known_as_ones_own(s3_line, s3_url):
    storage = open_storage(s3_url)
    assert not storage.names("things")
    s3_line.lose_answer(b"things/one")
    assert storage.create("things/one", b"mine")
    assert s3_line.answers_lost
    assert not storage.create("things/one", b"a rival's")
    assert storage.read("things/one") == b"mine"


def test_a_record_whose_answer_was_lost_is_there_once(s3_line, s3_url):
    storage = open_storage(s3_url)
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        s3_line.lose_answer(b"events/00000001-00000001")
        assert writer.append(identity(0))
        assert writer.append(identity(1))
    assert s3_line.answers_lost
    assert recorded(storage) == [identity(0), identity(1)]


def test_a_record_that_arrived_although_it_was_given_up_is_not_doubled(
    s3_line, s3_url, monkeypatch
):
    monkeypatch.setenv(PATIENCE_VARIABLE, "0")
    storage = open_storage(s3_url)
    with open_writer(storage, STUDY, timing=LeaseTiming()) as writer:
        s3_line.lose_answer(b"events/00000001-00000001", times=2)
        with pytest.raises(S3Away):
            writer.append(identity(0))
        time.sleep(s3.RECHECK_S)
        writer.append(identity(0))
        assert writer.append(identity(1))
    assert recorded(storage) == [identity(0), identity(1)]


def test_a_heartbeat_goes_on_after_an_outage(s3_line, s3_url):
    storage, elsewhere = open_storage(s3_url), open_storage(s3_url)
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        out_for(s3_line, "cut", 10.0).join()
        time.sleep(2.0)
        assert writer._lease._thread.is_alive()
        with pytest.raises(StudyBusy):
            open_writer(elsewhere, STUDY, timing=QUICK)
        assert not writer._lease.seen_lost


@pytest.mark.parametrize("way", ["cut", "stop"])
def test_an_outage_for_good_is_an_error_within_the_limit_and_reopening_goes_on(
    s3_line, s3_url, way
):
    storage = open_storage(s3_url)
    writer = open_writer(storage, STUDY, timing=QUICK)
    writer.append(identity(0))
    getattr(s3_line, way)()
    began = time.monotonic()
    with pytest.raises(S3Away, match=f"{s3_url} does not answer") as caught:
        writer.append(identity(1))
    with pytest.raises(S3Away):
        writer.__exit__(None, None, None)
    # The limit, and what a try may take at its begin, its end, and for the word of release.
    assert time.monotonic() - began < 8 + 3 * 3 + 4
    assert "\n" not in str(caught.value)
    s3_line.mend()
    again = open_storage(s3_url)
    with open_writer(again, STUDY, timing=QUICK) as successor:
        for number in range(3):
            successor.append(identity(number))
    found = [i for i in recorded(again) if i.kind != "fenced"]
    assert found == [identity(n) for n in range(3)]


@pytest.mark.parametrize("way", ["cut", "stop"])
def test_what_was_built_during_an_outage_is_published_after_it(s3_line, s3_url, way):
    store = open_store(s3_url, TIMING)
    lease = store.leases.acquire(f"train/{KEY}")
    attempt = filled(store)
    out_for(s3_line, way, 3.0)
    artifact, won = store.publish(attempt)
    lease.release()
    assert won
    assert store.verify("train", KEY) == []
    assert (artifact.payload / "x.txt").read_text() == "data"


def test_a_commit_whose_answer_was_lost_is_ones_own(s3_line, s3_url):
    store = open_store(s3_url, TIMING)
    attempt = filled(store)
    s3_line.lose_answer(b"If-None-Match")
    artifact, won = store.publish(attempt)
    assert s3_line.answers_lost
    assert won
    assert artifact.folder.name == attempt.name
    assert not store.publish(filled(store, "late"))[1]


def test_files_of_a_commit_that_may_still_arrive_are_left(s3_line, s3_url, monkeypatch):
    monkeypatch.setenv(PATIENCE_VARIABLE, "0")
    store = open_store(s3_url, TIMING)
    attempt = filled(store)
    # The commit does arrive, in truth; the look for it by `abandon` is not to be trusted.
    s3_line.lose_answer(b"If-None-Match", times=2)
    with pytest.raises(StoreError, match="does not answer"):
        store.publish(attempt)
    monkeypatch.setattr(store.backend, "read", lambda _: None)
    store.abandon(attempt)
    assert open_store(s3_url, TIMING).verify("train", KEY) == []


def test_an_attempt_that_was_not_committed_is_abandoned(s3_url):
    store = open_store(s3_url, TIMING)
    attempt = filled(store)
    store.backend.upload(f"train/{KEY}/attempts/{attempt.name}")
    store.abandon(attempt)
    assert store.backend.names(f"train/{KEY}/attempts") == []


def test_a_lease_is_not_taken_for_silence_that_was_the_servers(s3_line, s3_url):
    """The outage is longer than the TTL, and the holder lives all the while."""
    timing = LeaseTiming(heartbeat_s=0.2, ttl_s=2.0)
    lease = open_store(s3_url, timing).leases.acquire(f"train/{KEY}")
    # Another host's view: it cannot see that the process lives.
    observer = open_store(s3_url, timing).leases
    assert observer.holder(f"train/{KEY}") is not None
    out_for(s3_line, "stop", 5.0)
    assert observer.acquire(f"train/{KEY}") is None
    assert not lease.lost()
    lease.stop()
    time.sleep(0.5)
    assert observer.acquire(f"train/{KEY}") is None
    time.sleep(2.5)
    late = observer.acquire(f"train/{KEY}")
    assert late is not None
    late.stop()


def test_an_upload_to_a_server_that_stands_still_ends(s3_line, s3_url, monkeypatch):
    monkeypatch.setenv(PATIENCE_VARIABLE, "1")
    monkeypatch.setattr(s3, "SLOWEST_BYTES_PER_S", 1e7)
    storage = open_storage(s3_url)
    storage.replace("small", b"x")
    s3_line.stop()
    began = time.monotonic()
    with pytest.raises(S3Away):
        storage.replace("large", bytes(20_000_000))
    assert time.monotonic() - began < 2 * (1 + 2 + 2) + 5
    s3_line.mend()
    time.sleep(0.1)
    again = open_storage(s3_url)
    again.replace("large", bytes(20_000_000))
    assert len(again.read("large")) == 20_000_000
