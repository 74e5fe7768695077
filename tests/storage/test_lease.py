"""A holder is believed as long as its heartbeat changes, on the observer's clock."""

import time
from dataclasses import replace

import pytest

from namd.storage.lease import Lease, LeaseTiming, Sight, Watch
from namd.storage.process import Holder

TIMING = LeaseTiming(heartbeat_s=1.0, ttl_s=10.0)
FAR = Holder("elsewhere", "another boot", "another namespace", 1, 1, "far")


class Records:
    """The records of one thing, in memory."""

    def __init__(self, holder: Holder | None = FAR) -> None:
        self.epoch, self.by, self.bytes = 1, holder, b"1"
        self.released, self.full = False, False

    def latest(self) -> int:
        return self.epoch

    def take(self, epoch: int, holder: Holder) -> bool:
        self.epoch, self.by = epoch, holder
        return True

    def holder(self, epoch: int) -> Holder | None:
        return self.by

    def heartbeat(self, epoch: int) -> bytes | None:
        return None if self.released else self.bytes

    def beat(self, epoch: int, heartbeat) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.bytes = str(heartbeat.count).encode()

    def release(self, epoch: int, heartbeat) -> None:
        self.released = True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_silence_counts_from_the_first_look_and_a_heartbeat_ends_it(clock):
    records = Records()
    watch = Watch(records, 1, TIMING, clock)
    assert watch.look() is Sight.UNSURE
    clock.now += 9.0
    assert watch.look() is Sight.UNSURE
    records.bytes = b"2"
    assert watch.look() is Sight.ALIVE
    clock.now += 9.0
    assert watch.look() is Sight.UNSURE
    clock.now += 1.0
    assert watch.look() is Sight.SILENT
    assert watch.holder == FAR


def test_time_in_which_the_storage_did_not_answer_is_not_the_holders_silence(clock):
    watch = Watch(Records(), 1, TIMING, clock)
    assert watch.look() is Sight.UNSURE
    began, clock.now = clock.now + 1, clock.now + 100
    assert watch.look(began) is Sight.UNSURE
    clock.now += 10
    assert watch.look() is Sight.SILENT


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"started": 1}])
def test_a_dead_process_of_this_host_has_ended_and_a_living_one_has_not(clock, change):
    here = Holder.here()
    assert Watch(Records(here), 1, TIMING, clock).look() is Sight.UNSURE
    dead = Records(replace(here, **change))
    assert Watch(dead, 1, TIMING, clock).look() is Sight.ENDED


def test_a_released_lease_has_ended(clock):
    records = Records()
    lease = Lease(records, 1, Holder.here(), TIMING)
    assert Watch(records, 1, TIMING, clock).look() is Sight.UNSURE
    lease.release()
    assert Watch(records, 1, TIMING, clock).look() is Sight.ENDED


def test_a_lease_that_was_succeeded_is_lost_and_releases_nothing():
    records = Records()
    lease = Lease(records, 1, Holder.here(), TIMING)
    assert not lease.lost()
    assert not lease.seen_lost
    records.epoch = 2
    assert lease.lost()
    assert lease.seen_lost
    lease.release()
    assert not records.released


def test_a_heartbeat_outlives_a_storage_that_is_full_for_a_moment():
    records = Records()
    lease = Lease(records, 1, Holder.here(), LeaseTiming(heartbeat_s=0.02, ttl_s=1.0))
    records.full = True
    time.sleep(0.1)
    assert lease._thread.is_alive()
    records.full, records.bytes = False, b""
    end = time.monotonic() + 10
    while not records.bytes and time.monotonic() < end:
        time.sleep(0.01)
    lease.stop()
    assert records.bytes


@pytest.mark.parametrize("word", ["token", "nonce"])
def test_a_holder_is_read_as_it_was_written(word):
    assert Holder.from_record(FAR.record(word), word) == FAR
    with pytest.raises(ValueError, match=f"lacks {word}"):
        Holder.from_record({**FAR.record(word), word: 1}, word)
    with pytest.raises(ValueError, match="holds no JSON object"):
        Holder.from_record([], word)
