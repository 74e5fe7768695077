"""A study's holder is believed silent only for time in which the storage answered."""

import json

import pytest

from namd.ledger.lease import StudyBusy, acquire
from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage
from namd.storage.process import Holder


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


class SlowStorage(LocalStorage):
    """A storage whose listings take as long as given."""

    clock: Clock
    waits: list[float]

    def names(self, folder: str) -> list[str]:
        if self.waits:
            self.clock.now += self.waits.pop(0)
        return super().names(folder)


@pytest.mark.parametrize(("beats_after", "taken"), [(True, False), (False, True)])
def test_a_holder_is_not_robbed_for_an_outage_that_its_observer_shared(
    tmp_path, clock, beats_after, taken
):
    """The storage is away for 80 s, longer than the TTL; the holder beats 10 s after it is back."""
    storage = SlowStorage(tmp_path)
    storage.clock, storage.waits = clock, []
    holder = Holder("elsewhere", "boot", "space", 1, 1)
    storage.create("studies/toys/leases/00000001.json", json.dumps(holder.record("nonce")).encode())
    beat = "studies/toys/leases/00000001.beat"
    storage.replace(beat, b"1")
    storage.waits = [0.0, 0.0, 80.0]

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if beats_after and clock.now > 190:
            storage.replace(beat, b"2")

    timing = LeaseTiming(ttl_s=60.0, heartbeat_s=5.0)
    if taken:
        lease = acquire(storage, "toys", timing=timing, clock=clock, sleep=sleep)
        lease.stop()
        assert clock.now >= 180 + 60
    else:
        with pytest.raises(StudyBusy):
            acquire(storage, "toys", timing=timing, clock=clock, sleep=sleep)


def test_a_lease_lies_on_disk_as_every_version_reads_it(tmp_path):
    holder = Holder("here", "boot", "space", 1, 2, "word")
    lease = acquire(LocalStorage(tmp_path), "toys", holder, LeaseTiming())
    folder = tmp_path / "studies" / "toys" / "leases"
    assert (folder / "00000001.json").read_text() == (
        '{"host": "here", "boot": "boot", "namespace": "space", "pid": 1, "started": 2, '
        '"nonce": "word"}\n'
    )
    assert (folder / "00000001.beat").read_text() == '{"count": 1, "nonce": "word"}'
    assert not (folder / "00000001.released").exists()
    lease.release()
    assert (folder / "00000001.released").read_text() == "{}\n"
