"""Who builds a key, and whether they still live. What they build, and publication, are the store's.

A lease is advice: it saves work. That nothing is published twice rests on COMMIT alone.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from namd.storage.backend import Backend
from namd.storage.errors import StoreError


@dataclass(frozen=True)
class LeaseTiming:
    """How often a holder shows life, and how long a silent one is believed.

    Attributes:
        heartbeat_s: Between two heartbeats.
        ttl_s: Silence, on the observer's monotonic clock, after which a holder counts as dead.
    """

    heartbeat_s: float = 5.0
    ttl_s: float = 60.0

    def __post_init__(self) -> None:
        """Reject a silence that a living holder would exceed."""
        if not 0 < 2 * self.heartbeat_s <= self.ttl_s:
            raise ValueError(f"ttl_s {self.ttl_s} is at least two heartbeats of {self.heartbeat_s}")


@dataclass(frozen=True)
class Holder:
    """A process, so that nobody mistakes another one with the same number for it.

    Attributes:
        host: Host name.
        boot: Of this start of the host; empty where the system does not tell.
        namespace: Process numbers mean something inside it only.
        pid: Process number.
        started: When the process started, in the kernel's ticks since boot.
        token: Of this lease.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int
    token: str

    @classmethod
    def here(cls) -> "Holder":
        """Return this process as the holder of a new lease."""
        boot, namespace = _machine()
        pid = os.getpid()
        return cls(socket.gethostname(), boot, namespace, pid, _started(pid), uuid.uuid4().hex)

    def known_dead(self) -> bool:
        """Whether this is a process of this host and boot that has ended."""
        boot, namespace = _machine()
        here = (socket.gethostname(), boot, namespace)
        if not boot or (self.host, self.boot, self.namespace) != here:
            return False
        return _started(self.pid) != self.started


@dataclass
class Observation:
    """What the last look at a lease showed, and when that last changed (monotonic seconds)."""

    beat: bytes | None
    changed: float


class Leases:
    """The leases of one store, seen from one process."""

    def __init__(
        self,
        backend: Backend,
        timing: LeaseTiming | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend = backend
        self.timing = timing or LeaseTiming()
        self.clock = clock
        self._seen: dict[str, Observation] = {}

    def acquire(self, folder: str) -> "Lease | None":
        """Return a lease on a key's folder, or None while a living holder has one."""
        epoch = self._latest(folder)
        if epoch and self.holder(folder) is not None:
            return None
        holder = Holder.here()
        path = f"{folder}/lease-{epoch + 1}"
        if not self.backend.create(path, json.dumps(asdict(holder)).encode(), durable=False):
            return None
        try:
            return Lease(self, folder, epoch + 1, holder, self.seconds_spent(folder))
        except StoreError:
            # A lease without a heartbeat would keep everybody waiting for its time to run out.
            self.backend.remove(path)
            raise

    def holder(self, folder: str) -> Holder | None:
        """Return who holds a key's folder, as far as this process can tell yet."""
        began = self.clock()
        epoch = self._latest(folder)
        if not epoch:
            return None
        raw = self.backend.read(f"{folder}/lease-{epoch}")
        if raw is None:
            return None
        try:
            holder = Holder(**json.loads(raw))
        except (ValueError, TypeError):
            return None
        beat = self.backend.read(f"{folder}/heartbeat-{epoch}")
        if _beat(beat).get("released") or holder.known_dead():
            return None
        place = f"{folder}/lease-{epoch}:{holder.token}"
        seen = self._seen.get(place)
        # A place that let this look wait was away for the holder too: begin to count anew.
        waited = self.clock() - began > self.timing.ttl_s / 2
        if seen is None or seen.beat != beat or waited:
            self._seen[place] = Observation(beat, self.clock())
            return holder
        return holder if self.clock() - seen.changed <= self.timing.ttl_s else None

    def seconds_spent(self, folder: str) -> float:
        """Return the seconds that all holders so far spent, to their last heartbeats."""
        names = [n for n in self.backend.names(folder) if n.startswith("heartbeat-")]
        beats = (_beat(self.backend.read(f"{folder}/{name}")) for name in names)
        return sum(float(beat.get("seconds", 0.0)) for beat in beats)

    def forget(self, folder: str) -> None:
        """Remove all traces of leases, once the key is published or removed."""
        for name in self.backend.names(folder):
            if name.startswith(("heartbeat-", "lease-")):
                self.backend.remove(f"{folder}/{name}")

    def _latest(self, folder: str) -> int:
        epochs = (n.removeprefix("lease-") for n in self.backend.names(folder) if "lease-" in n)
        return max((int(epoch) for epoch in epochs if epoch.isdigit()), default=0)


class Lease:
    """A key's folder held by this process, with a thread that shows life.

    Attributes:
        folder: The key's folder.
        spent_before_s: Seconds that earlier holders spent on the key.
    """

    def __init__(
        self, leases: Leases, folder: str, epoch: int, holder: Holder, spent_before_s: float
    ) -> None:
        self.leases, self.folder, self.epoch, self.holder = leases, folder, epoch, holder
        self.spent_before_s = spent_before_s
        self._start = time.monotonic()
        self._count = 0
        self._stop = threading.Event()
        self._beat(released=False)
        self._thread = threading.Thread(target=self._live, name=f"lease {folder}", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Seconds since this holder began."""
        return time.monotonic() - self._start

    def lost(self) -> bool:
        """Whether another process thought this one dead and took the key over, or finished it."""
        return self.leases._latest(self.folder) != self.epoch

    def release(self) -> None:
        """Give the key up: whoever waits may go on at once."""
        self._stop.set()
        self._thread.join()
        if not self.lost():
            self._beat(released=True)

    def stop(self) -> None:
        """End the heartbeat without a word, where the lease files go away anyhow."""
        self._stop.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._stop.wait(self.leases.timing.heartbeat_s):
            try:
                if self.lost():
                    return
                self._beat(released=False)
            except StoreError:
                # A disk full for a moment must not end the work; the body meets a lasting one.
                continue

    def _beat(self, released: bool) -> None:
        self._count += 1
        beat = {"count": self._count, "seconds": round(self.seconds, 3), "released": released}
        self.leases.backend.replace(
            f"{self.folder}/heartbeat-{self.epoch}", json.dumps(beat).encode(), durable=False
        )


def _beat(raw: bytes | None) -> dict[str, Any]:
    try:
        beat = json.loads(raw or b"{}")
    except ValueError:
        return {}
    if not isinstance(beat, dict):
        return {}
    seconds = beat.get("seconds", 0.0)
    return beat | {"seconds": seconds if type(seconds) in (int, float) else 0.0}


@cache
def _machine() -> tuple[str, str]:
    """Return this boot's id and this process-number namespace; empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot, str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "", ""


def _started(pid: int) -> int:
    """Return when a process started (ticks since boot); -1 where it is dead or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return -1
    # The name in parentheses may hold spaces and parentheses itself.
    fields = text.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])
