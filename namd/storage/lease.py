"""Leases: a holder, its heartbeat, and whether it is still alive.

A lease is advisory: it saves work. COMMIT ensures that nothing is published twice, and the fence
that a late writer of a ledger is refused. A `LeaseRecords` defines where a lease's records are
stored.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from namd.storage.errors import StoreError
from namd.storage.process import Holder


@dataclass(frozen=True)
class LeaseTiming:
    """Interval of heartbeats, and the silence after which a holder counts as dead.

    Attributes:
        heartbeat_s: Seconds between two heartbeats.
        ttl_s: Silence, on the observer's monotonic clock, after which a holder counts as dead.
    """

    heartbeat_s: float = 5.0
    ttl_s: float = 60.0

    def __post_init__(self) -> None:
        """Reject a silence that a living holder may exceed."""
        if not 0 < 4 * self.heartbeat_s <= self.ttl_s:
            raise ValueError(f"ttl_s {self.ttl_s} is at least 4 heartbeats of {self.heartbeat_s}")

    @property
    def poll_s(self) -> float:
        """Seconds between an observer's checks."""
        return min(1.0, self.heartbeat_s / 4)


@dataclass(frozen=True)
class Heartbeat:
    """A holder's heartbeat.

    Attributes:
        holder: The process.
        count: Grows with every heartbeat.
        seconds: Since the holder began.
    """

    holder: Holder
    count: int
    seconds: float


@runtime_checkable
class LeaseRecords(Protocol):
    """The records of the leases on one thing; epochs count from 1, the highest one holds it."""

    def latest(self) -> int:
        """Return the highest epoch that was taken; 0 without any."""
        ...

    def take(self, epoch: int, holder: Holder) -> bool:
        """Take an epoch if it is free; False if another process has it."""
        ...

    def holder(self, epoch: int) -> Holder | None:
        """Return the process that took an epoch; None if the record is gone."""
        ...

    def heartbeat(self, epoch: int) -> bytes | None:
        """Return bytes that change while the holder lives; None once it has released the lease."""
        ...

    def beat(self, epoch: int, heartbeat: Heartbeat) -> None:
        """Show life."""
        ...

    def release(self, epoch: int, heartbeat: Heartbeat) -> None:
        """Record that the holder released the lease."""
        ...


class Lease:
    """A lease held by this process, with a heartbeat thread until it is released or lost.

    Attributes:
        epoch: Its epoch.
        holder: This process.
        spent_before_s: Seconds that earlier holders spent.
    """

    def __init__(
        self,
        records: LeaseRecords,
        epoch: int,
        holder: Holder,
        timing: LeaseTiming,
        spent_before_s: float = 0.0,
    ) -> None:
        self.epoch, self.holder = epoch, holder
        self.spent_before_s = spent_before_s
        self._records, self._timing = records, timing
        self._start = time.monotonic()
        self._count = 0
        self._ended, self._lost = threading.Event(), threading.Event()
        records.beat(epoch, self._heartbeat())
        self._thread = threading.Thread(target=self._live, name=f"lease {epoch}", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Seconds since this holder began."""
        return time.monotonic() - self._start

    @property
    def seen_lost(self) -> bool:
        """Whether a check has already found the lease lost. False proves nothing."""
        return self._lost.is_set()

    def lost(self) -> bool:
        """Return whether another process has taken a later epoch, or all records were removed."""
        if self._records.latest() != self.epoch:
            self._lost.set()
        return self._lost.is_set()

    def release(self) -> None:
        """Release the lease; the next holder need not wait."""
        self.stop()
        if not self.lost():
            self._records.release(self.epoch, self._heartbeat())

    def stop(self) -> None:
        """End the heartbeat without a release, as a killed process does."""
        self._ended.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._ended.wait(self._timing.heartbeat_s):
            try:
                if self.lost():
                    return
                self._records.beat(self.epoch, self._heartbeat())
            except (OSError, StoreError):
                # A storage that is full or away for a moment must not end the work. If that
                # lasts, what the holder writes next meets it, and others wait out the TTL.
                continue

    def _heartbeat(self) -> Heartbeat:
        self._count += 1
        return Heartbeat(self.holder, self._count, round(self.seconds, 3))


class Sight(Enum):
    """The result of a check of a lease's holder."""

    ENDED = "released or known to be dead"
    ALIVE = "its heartbeat has changed"
    UNSURE = "silent, but not for long"
    SILENT = "silent for a whole time to live"


class Watch:
    """Checks one epoch repeatedly.

    Attributes:
        holder: The process that holds it, after the first check.
    """

    def __init__(
        self,
        records: LeaseRecords,
        epoch: int,
        timing: LeaseTiming,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.holder: Holder | None = None
        self._records, self._epoch = records, epoch
        self._timing, self._clock = timing, clock
        self._seen: tuple[str, bytes] | None = None
        self._since = 0.0

    def look(self, began: float | None = None) -> Sight:
        """Check the holder now.

        Args:
            began: When the observer began to ask the storage; now by default.
        """
        began = self._clock() if began is None else began
        heartbeat = self._records.heartbeat(self._epoch)
        if heartbeat is None:
            return Sight.ENDED
        self.holder = self._records.holder(self._epoch)
        if self.holder is None or self.holder.is_dead():
            return Sight.ENDED
        before, self._seen = self._seen, (self.holder.token, heartbeat)
        now = self._clock()
        # A storage that delayed this check was away for the holder too: restart the count.
        if before != self._seen or now - began > self._timing.ttl_s / 2:
            self._since = now
        if before is not None and before != self._seen:
            return Sight.ALIVE
        return Sight.SILENT if now - self._since >= self._timing.ttl_s else Sight.UNSURE
