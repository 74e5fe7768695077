"""The lease on writing a study: one holder per epoch, taken over if it is dead, never shared.

The lease alone does not stop a suspended holder that wakes up late; the fence record that its
successor writes at the end of its epoch does (see namd.ledger.writing).
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from namd.config.errors import InputError
from namd.ledger.damage import LedgerDamaged, damaged
from namd.ledger.schema import study_folder
from namd.ledger.validation import RecordDamaged, read_json
from namd.storage.base import Storage
from namd.storage.lease import Heartbeat, Lease, LeaseTiming, Sight, Watch
from namd.storage.process import Holder

_LEASE_NAME = re.compile(r"(\d{8})\.json")


class StudyBusy(InputError):  # noqa: N818 - says what is the case
    """Another process writes this study."""


class LeaseLost(Exception):  # noqa: N818 - says what is the case
    """A successor has taken the study over; further records of this writer are refused."""


UNKNOWN = Holder("an unknown machine", "", "", 0, 0, "")
"""The holder of a lease that cannot be read."""


@dataclass(frozen=True)
class StudyLeases:
    """The records of the leases on a study: `leases/<epoch>.{json,beat,released}` in its folder.

    Attributes:
        storage: The store's storage.
        study: The study's name.
        damaged_ok: Whether a holder whose record cannot be read counts as UNKNOWN.
    """

    storage: Storage
    study: str
    damaged_ok: bool = False

    def latest(self) -> int:
        """Return the highest epoch that was taken; 0 without any."""
        matches = map(_LEASE_NAME.fullmatch, self._names())
        return max((int(match[1]) for match in matches if match), default=0)

    def take(self, epoch: int, holder: Holder) -> bool:
        """Take an epoch if it is free."""
        record = json.dumps(holder.record("nonce")).encode() + b"\n"
        return self.storage.create(self._place(epoch, "json"), record)

    def holder(self, epoch: int) -> Holder:
        """Return the process that took an epoch. Raises LedgerDamaged."""
        try:
            return parse_holder(self.storage.read(self._place(epoch, "json")))
        except (RecordDamaged, IsADirectoryError) as error:
            if self.damaged_ok:
                return UNKNOWN
            problem = "is a folder" if isinstance(error, OSError) else str(error)
            raise self._damaged(epoch, "json", problem) from error

    def heartbeat(self, epoch: int) -> bytes | None:
        """Return the heartbeat's bytes; None once the lease was released. Raises LedgerDamaged."""
        if self.is_released(epoch):
            return None
        try:
            return self.storage.read(self._place(epoch, "beat"))
        except FileNotFoundError:
            return b""
        except IsADirectoryError as error:
            # No holder can write over a folder.
            if self.damaged_ok:
                return b""
            raise self._damaged(epoch, "beat", "is a folder") from error

    def is_released(self, epoch: int) -> bool:
        """Return whether the holder released the lease."""
        return f"{epoch:08d}.released" in self._names()

    def beat(self, epoch: int, heartbeat: Heartbeat) -> None:
        """Write a heartbeat."""
        beat = {"count": heartbeat.count, "nonce": heartbeat.holder.token}
        self.storage.replace(self._place(epoch, "beat"), json.dumps(beat).encode())

    def release(self, epoch: int, heartbeat: Heartbeat) -> None:  # noqa: ARG002 - a file says it
        """Record that the holder released the lease."""
        self.storage.create(self._place(epoch, "released"), b"{}\n")

    def _names(self) -> list[str]:
        return self.storage.names(f"{study_folder(self.study)}/leases")

    def _place(self, epoch: int, suffix: str) -> str:
        return f"{study_folder(self.study)}/leases/{epoch:08d}.{suffix}"

    def _damaged(self, epoch: int, suffix: str, problem: str) -> LedgerDamaged:
        return damaged(self.storage, self.study, f"leases/{epoch:08d}.{suffix}", problem)


def acquire(
    storage: Storage,
    study: str,
    holder: Holder | None = None,
    timing: LeaseTiming | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    damaged_ok: bool = False,
) -> Lease:
    """Take the study's lease, waiting at most the TTL to see whether a silent holder is dead.

    Args:
        storage: The store's storage.
        study: The study's name.
        holder: The process that takes it; this one by default.
        timing: After which silence a holder counts as dead.
        clock: Monotonic seconds.
        sleep: Waits.
        damaged_ok: Whether a holder whose record cannot be read is waited for as an unknown one.

    Raises:
        StudyBusy: The holder lives, or another process was faster.
        LedgerDamaged: The last lease cannot be read.
    """
    records = StudyLeases(storage, study, damaged_ok)
    holder, timing = holder or Holder.here(), timing or LeaseTiming()
    last = records.latest()
    if last:
        _await_end(study, Watch(records, last, timing, clock), timing, sleep)
    if not records.take(last + 1, holder):
        raise StudyBusy(f"study {study}: another process has just taken the lease")
    return Lease(records, last + 1, holder, timing)


def live_holder(storage: Storage, study: str) -> Holder | None:
    """Return the holder of the latest lease unless it was released or is known to be dead."""
    seen = _unreleased(StudyLeases(storage, study))
    return None if seen is None or seen[1].is_dead() else seen[1]


@dataclass(frozen=True)
class HolderSeen:
    """The holder of a lease that was not released.

    Attributes:
        holder: The process.
        alive: Whether it showed life.
    """

    holder: Holder
    alive: bool


def look_at_holder(
    storage: Storage,
    study: str,
    timing: LeaseTiming | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> HolderSeen | None:
    """Return the latest lease's holder and whether it lives; None if it was released.

    A process on another machine is watched for at most two heartbeats. Silence for that long is
    enough for a message; to take its lease over, `acquire` waits much longer.
    """
    timing, records = timing or LeaseTiming(), StudyLeases(storage, study)
    seen = _unreleased(records)
    if seen is None:
        return None
    epoch, holder = seen
    dead = holder.is_dead()
    if dead is not None:
        return HolderSeen(holder, not dead)
    watch, start = Watch(records, epoch, timing, clock), clock()
    sight = watch.look()
    while sight is Sight.UNSURE and clock() - start < 2 * timing.heartbeat_s:
        sleep(timing.poll_s)
        sight = watch.look()
    return HolderSeen(holder, sight is Sight.ALIVE)


def parse_holder(data: bytes) -> Holder:
    """Read a lease's record. Raises RecordDamaged."""
    record = read_json(data)
    try:
        return Holder.from_record(record, "nonce")
    except ValueError as error:
        raise RecordDamaged(str(error)) from error


def _await_end(
    study: str, watch: Watch, timing: LeaseTiming, sleep: Callable[[float], None]
) -> None:
    """Return once the watched holder has ended. Raises StudyBusy as soon as it shows life."""
    while (sight := watch.look()) is Sight.UNSURE:
        sleep(timing.poll_s)
    if sight is Sight.ALIVE and watch.holder is not None:
        raise StudyBusy(
            f"study {study}: process {watch.holder.pid} on {watch.holder.host} is running it; "
            f"`namd study stop {study}` ends it"
        )


def _unreleased(records: StudyLeases) -> tuple[int, Holder] | None:
    """Return the latest epoch and its holder, unless it was released. Raises LedgerDamaged."""
    epoch = records.latest()
    if not epoch or records.is_released(epoch):
        return None
    return epoch, records.holder(epoch)
