"""Who may write a study: one holder per epoch, taken over when it is dead, never shared.

The lease alone does not stop a holder that wakes up late; the fence record that its successor
puts at the end of its epoch does (see namd.ledger.writing).
"""

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from namd.config.errors import InputError
from namd.ledger.damage import LedgerDamaged, damaged
from namd.ledger.schema import study_folder
from namd.ledger.validation import RecordDamaged, read_json
from namd.storage.base import Storage

_LEASE_NAME = re.compile(r"(\d{8})\.json")


class StudyBusy(InputError):  # noqa: N818 - says what is the case
    """Another process writes this study."""


class LeaseLost(Exception):  # noqa: N818 - says what is the case
    """A successor has taken the study over; what this writer still had to say is refused."""


@dataclass(frozen=True)
class Holder:
    """A process, told apart from every other on any machine.

    Attributes:
        host: Host name.
        boot: The kernel's boot id.
        namespace: The process-id namespace: containers of one kernel share the boot id.
        pid: Process id in that namespace.
        started: The process's start time in clock ticks since boot: process ids are reused.
        nonce: A random word, so that two leases of one process differ.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def current(cls) -> "Holder":
        """Return this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot_id(), _namespace(), pid, _start_time(pid) or 0)

    def is_dead(self) -> bool | None:
        """Say whether the process is gone; None where it cannot be seen from here."""
        here = (socket.gethostname(), _boot_id(), _namespace())
        if not _boot_id() or (self.host, self.boot, self.namespace) != here:
            return None
        return _start_time(self.pid) != self.started


UNKNOWN = Holder("a machine that cannot be told", "", "", 0, 0, "")
"""Stands for the holder of a lease that cannot be read."""


@dataclass(frozen=True)
class LeaseTiming:
    """How long a silent holder is believed.

    Attributes:
        ttl_s: A heartbeat unchanged for so long, on the observer's monotonic clock, means death.
        beat_s: Seconds between heartbeats.
        poll_s: Seconds between an observer's looks.
    """

    ttl_s: float = 60.0
    beat_s: float = 5.0
    poll_s: float = 1.0

    def __post_init__(self) -> None:
        """Reject times at which a live holder would be robbed."""
        if not 0 < self.poll_s <= self.beat_s or self.ttl_s < 4 * self.beat_s:
            raise ValueError(
                f"needs poll_s <= beat_s and ttl_s >= 4 beat_s, got {self.poll_s}, {self.beat_s}, "
                f"{self.ttl_s}"
            )


class Lease:
    """A held lease: beats in a thread until it is released or lost."""

    def __init__(
        self, storage: Storage, study: str, epoch: int, holder: Holder, timing: LeaseTiming
    ) -> None:
        self.epoch = epoch
        self.holder = holder
        self._storage = storage
        self._study = study
        self._timing = timing
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="ledger-heartbeat", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether a later lease was seen. False is not a proof; the fence record is."""
        return self._lost.is_set()

    def release(self) -> None:
        """End the lease; the next holder need not wait."""
        self.stop()
        self._storage.create(_path(self._study, self.epoch, "released"), b"{}\n")

    def stop(self) -> None:
        """Stop beating without a word, as a killed process does."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        count = 0
        while not self._ended.is_set():
            count += 1
            beat = json.dumps({"count": count, "nonce": self.holder.nonce}).encode()
            try:
                self._storage.replace(_path(self._study, self.epoch, "beat"), beat)
                if _last_epoch(self._storage, self._study) > self.epoch:
                    self._lost.set()
                    return
            except OSError:
                # A storage that is away for a moment is not a reason to die: if it stays
                # away, the append that meets it says so, and a successor waits out the TTL.
                pass
            self._ended.wait(self._timing.beat_s)


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
        storage: Where the store lies.
        study: The study's name.
        holder: Who takes it; this process by default.
        timing: How long a silent holder is believed.
        clock: Monotonic seconds.
        sleep: Waits.
        damaged_ok: Whether a holder whose record cannot be read is waited for as an unknown one.

    Raises:
        StudyBusy: The holder lives, or somebody else was faster.
        LedgerDamaged: The last lease cannot be read.
    """
    holder, timing = holder or Holder.current(), timing or LeaseTiming()
    last = _last_epoch(storage, study)
    if last:
        _await_end(storage, study, last, timing, clock, sleep, damaged_ok)
    epoch = last + 1
    record = json.dumps(asdict(holder)).encode() + b"\n"
    if not storage.create(_path(study, epoch, "json"), record):
        raise StudyBusy(f"study {study}: another process took it at this very moment")
    return Lease(storage, study, epoch, holder, timing)


def live_holder(storage: Storage, study: str) -> Holder | None:
    """Return the holder of the latest lease unless it was released or is known to be dead."""
    epoch = _last_epoch(storage, study)
    if not epoch or _is_released(storage, study, epoch):
        return None
    holder = _holder(storage, study, epoch)
    return None if holder.is_dead() else holder


@dataclass(frozen=True)
class HolderSeen:
    """The holder of a lease that was not given back.

    Attributes:
        holder: The process.
        alive: Whether it was seen to live.
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
    """Return the latest lease's holder and whether it lives; None where it was given back.

    A process that cannot be seen from here is watched for at most two heartbeats. That it shows
    none is enough to tell people so; to take its lease over, `acquire` waits much longer.
    """
    timing = timing or LeaseTiming()
    epoch = _last_epoch(storage, study)
    if not epoch or _is_released(storage, study, epoch):
        return None
    holder = _holder(storage, study, epoch)
    dead = holder.is_dead()
    if dead is not None:
        return HolderSeen(holder, not dead)
    first, start = _heartbeat(storage, study, epoch), clock()
    while clock() - start < 2 * timing.beat_s:
        sleep(timing.poll_s)
        if _heartbeat(storage, study, epoch) != first:
            return HolderSeen(holder, True)
    return HolderSeen(holder, False)


def _await_end(
    storage: Storage,
    study: str,
    epoch: int,
    timing: LeaseTiming,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    damaged_ok: bool = False,
) -> None:
    """Return when the holder of an epoch has ended; raise StudyBusy as soon as it shows life."""
    if _is_released(storage, study, epoch):
        return
    try:
        holder = _holder(storage, study, epoch)
        first = _heartbeat(storage, study, epoch)
    except LedgerDamaged:
        if not damaged_ok:
            raise
        holder = UNKNOWN
        first = _beat_or_nothing(storage, study, epoch)
    start = looked = clock()
    while not _is_released(storage, study, epoch) and not holder.is_dead():
        if _beat_or_nothing(storage, study, epoch) != first:
            raise StudyBusy(
                f"study {study}: process {holder.pid} on {holder.host} is running it; "
                f"`namd study stop {study}` ends it"
            )
        if clock() - looked > timing.ttl_s / 2:
            # A storage that let this look wait was away for the holder too: begin to count anew.
            start = clock()
        if clock() - start >= timing.ttl_s:
            return
        sleep(timing.poll_s)
        looked = clock()


def _path(study: str, epoch: int, suffix: str) -> str:
    return f"{study_folder(study)}/leases/{epoch:08d}.{suffix}"


def _last_epoch(storage: Storage, study: str) -> int:
    matches = map(_LEASE_NAME.fullmatch, storage.names(f"{study_folder(study)}/leases"))
    return max((int(match[1]) for match in matches if match), default=0)


def _is_released(storage: Storage, study: str, epoch: int) -> bool:
    return f"{epoch:08d}.released" in storage.names(f"{study_folder(study)}/leases")


def _holder(storage: Storage, study: str, epoch: int) -> Holder:
    """Return who took an epoch's lease. Raises LedgerDamaged."""
    try:
        return parse_holder(storage.read(_path(study, epoch, "json")))
    except (RecordDamaged, IsADirectoryError) as error:
        problem = "is a folder" if isinstance(error, OSError) else str(error)
        raise damaged(storage, study, f"leases/{epoch:08d}.json", problem) from error


def parse_holder(data: bytes) -> Holder:
    """Read a lease's record. Raises RecordDamaged."""
    told = read_json(data)
    if not isinstance(told, dict):
        raise RecordDamaged("holds no JSON object")
    for each in fields(Holder):
        kind = int if each.name in ("pid", "started") else str
        if type(told.get(each.name)) is not kind:
            raise RecordDamaged(f"lacks {each.name}, or has it of another type")
    return Holder(**{each.name: told[each.name] for each in fields(Holder)})


def _heartbeat(storage: Storage, study: str, epoch: int) -> bytes:
    """Return what changes while a holder lives. Raises LedgerDamaged if nobody can write it."""
    try:
        return storage.read(_path(study, epoch, "beat"))
    except FileNotFoundError:
        return b""
    except IsADirectoryError as error:
        raise damaged(storage, study, f"leases/{epoch:08d}.beat", "is a folder") from error


def _beat_or_nothing(storage: Storage, study: str, epoch: int) -> bytes:
    """Return the heartbeat; nothing if a folder is in its place, over which nobody beats."""
    try:
        return _heartbeat(storage, study, epoch)
    except LedgerDamaged:
        return b""


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start_time(pid: int) -> int | None:
    """Return a process's start time in ticks since boot; None where it is gone or a zombie."""
    try:
        # The command may hold spaces and brackets; the fields begin after the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
