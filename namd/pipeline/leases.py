"""The leases on keys of a store. What is built under them, and publication, are the store's."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from namd.storage.backend import Backend
from namd.storage.errors import StoreError
from namd.storage.lease import Heartbeat, Lease, LeaseTiming, Sight, Watch
from namd.storage.process import Holder


@dataclass(frozen=True)
class KeyLeases:
    """The records of the leases on a key: `lease-<epoch>` and `heartbeat-<epoch>` in its folder.

    Attributes:
        backend: Of the store.
        folder: The key's.
    """

    backend: Backend
    folder: str

    def latest(self) -> int:
        """Return the highest epoch that was taken; 0 without any."""
        names = self.backend.names(self.folder)
        epochs = (name.removeprefix("lease-") for name in names if name.startswith("lease-"))
        return max((int(epoch) for epoch in epochs if epoch.isdigit()), default=0)

    def take(self, epoch: int, holder: Holder) -> bool:
        """Take an epoch if it is free."""
        record = json.dumps(holder.record("token")).encode()
        return self.backend.create(f"{self.folder}/lease-{epoch}", record, durable=False)

    def holder(self, epoch: int) -> Holder | None:
        """Return the process that took an epoch; None if its record is gone or unreadable."""
        raw = self.backend.read(f"{self.folder}/lease-{epoch}")
        try:
            return None if raw is None else Holder.from_record(json.loads(raw), "token")
        except ValueError:
            return None

    def heartbeat(self, epoch: int) -> bytes | None:
        """Return the heartbeat's bytes; None once it says that the lease was released."""
        raw = self.backend.read(f"{self.folder}/heartbeat-{epoch}")
        return None if _parsed(raw).get("released") else raw or b""

    def beat(self, epoch: int, heartbeat: Heartbeat) -> None:
        """Show life."""
        self._write(epoch, heartbeat, released=False)

    def release(self, epoch: int, heartbeat: Heartbeat) -> None:
        """Say in the last heartbeat that the lease was released."""
        self._write(epoch, heartbeat, released=True)

    def seconds_spent(self) -> float:
        """Return the seconds that all holders so far spent, to their last heartbeats."""
        names = [n for n in self.backend.names(self.folder) if n.startswith("heartbeat-")]
        beats = (_parsed(self.backend.read(f"{self.folder}/{name}")) for name in names)
        return sum(float(beat.get("seconds", 0.0)) for beat in beats)

    def _write(self, epoch: int, heartbeat: Heartbeat, released: bool) -> None:
        beat = {"count": heartbeat.count, "seconds": heartbeat.seconds, "released": released}
        place = f"{self.folder}/heartbeat-{epoch}"
        self.backend.replace(place, json.dumps(beat).encode(), durable=False)


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
        self._watches: dict[tuple[str, int], Watch] = {}

    def acquire(self, folder: str) -> Lease | None:
        """Return a lease on a key's folder, or None while a living holder has one."""
        records, began = KeyLeases(self.backend, folder), self.clock()
        last = records.latest()
        if last and self._holder(records, last, began) is not None:
            return None
        epoch, holder = last + 1, Holder.here()
        if not records.take(epoch, holder):
            return None
        try:
            return Lease(records, epoch, holder, self.timing, records.seconds_spent())
        except StoreError:
            # A lease without a heartbeat would keep everybody waiting for its time to run out.
            self.backend.remove(f"{folder}/lease-{epoch}")
            raise

    def holder(self, folder: str) -> Holder | None:
        """Return the process that holds a key's folder, as far as this process can say yet."""
        records, began = KeyLeases(self.backend, folder), self.clock()
        epoch = records.latest()
        return self._holder(records, epoch, began) if epoch else None

    def forget(self, folder: str) -> None:
        """Remove all traces of leases, once the key is published or removed."""
        for name in self.backend.names(folder):
            if name.startswith(("heartbeat-", "lease-")):
                self.backend.remove(f"{folder}/{name}")

    def _holder(self, records: KeyLeases, epoch: int, began: float) -> Holder | None:
        new = Watch(records, epoch, self.timing, self.clock)
        watch = self._watches.setdefault((records.folder, epoch), new)
        return watch.holder if watch.look(began) in (Sight.ALIVE, Sight.UNSURE) else None


def _parsed(raw: bytes | None) -> dict[str, Any]:
    try:
        beat = json.loads(raw or b"{}")
    except ValueError:
        return {}
    if not isinstance(beat, dict):
        return {}
    seconds = beat.get("seconds", 0.0)
    return beat | {"seconds": seconds if type(seconds) in (int, float) else 0.0}
