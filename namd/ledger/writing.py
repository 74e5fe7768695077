"""Appending to a ledger: one writer, one record per event, none lost or duplicated by a kill.

A record is created if absent under the next number of the writer's epoch. A successor ends its
predecessors' epochs by taking their next number for a fence record, so that a predecessor that
wakes up late finds its number taken: there is no race between checking and writing.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from namd.ledger.lease import LeaseLost, acquire
from namd.ledger.reading import encode_segment, list_records, read_events, read_record
from namd.ledger.schema import FENCED, LOST, Event, Identity, Place, Span, event_name, study_folder
from namd.storage.base import Storage, probe
from namd.storage.lease import Lease, LeaseTiming
from namd.storage.process import Holder

SEGMENT_RECORDS = 2000
"""Loose records per segment: a tenth of a second to read, a few hundred kB."""


class Writer:
    """The one writer of a study. Use it as a context manager; leaving it releases the lease.

    Attributes:
        events: Called with each record at opening and after each append (`StudyView.apply`).
    """

    def __init__(
        self,
        storage: Storage,
        study: str,
        lease: Lease,
        listener: Callable[[Event], None] = lambda event: None,  # noqa: ARG005
        segment_records: int = SEGMENT_RECORDS,
    ) -> None:
        self._storage = storage
        self._study = study
        self._folder = study_folder(study)
        self._lease = lease
        self._listener = listener
        self._segment_records = segment_records
        self._token = secrets.token_hex(8)
        self._seq = 0
        self._known: set[Identity] = set()
        self._loose: list[Event] = []
        self._recover()

    @property
    def epoch(self) -> int:
        """The lease's epoch."""
        return self._lease.epoch

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, LeaseLost):
            self._lease.stop()
            return
        try:
            self._lease.release()
        except OSError:
            # The error that ended the writer (a full disk, say) may prevent the release too, and is
            # what the user must read; the lease expires by itself.
            if error is None:
                raise

    def has(self, identity: Identity) -> bool:
        """Whether a record of this identity was written."""
        return identity in self._known

    def append(self, identity: Identity, body: Mapping[str, Any] | None = None) -> bool:
        """Write a record durably; False (and nothing written) if its identity is known.

        Raises LeaseLost once a successor has the study, OSError if the storage fails (then
        the append may be retried).
        """
        if identity in self._known:
            return False
        if self._lease.seen_lost:
            raise self._succeeded()
        place = Place(self.epoch, self._seq + 1)
        event = Event(place, identity, time.time(), self._token, dict(body or {}))
        if not self._create(event):
            self._admit(self._own(place))
            return self.append(identity, body)
        self._admit(event)
        return True

    def seal(self) -> None:
        """Put the loose records into segments, then remove them; may be killed at any point.

        The segment is created before a record is removed, and the same records give the same
        bytes, so that an interrupted call can be repeated.
        """
        by_epoch: dict[int, list[Event]] = {}
        for event in self._loose:
            by_epoch.setdefault(event.place.epoch, []).append(event)
        for epoch, events in by_epoch.items():
            span = Span(epoch, events[0].place.seq, events[-1].place.seq)
            self._storage.create(f"{self._folder}/segments/{span.name}", encode_segment(events))
            self._remove(events)
        self._loose.clear()

    def _create(self, event: Event) -> bool:
        name = f"{self._folder}/events/{event_name(event.place)}"
        return self._storage.create(name, event.encode())

    def _own(self, place: Place) -> Event:
        """Return the record at a place if it is ours: a failed append may have arrived."""
        event = read_record(self._storage, self._study, place)
        if event.writer != self._token:
            raise self._succeeded()
        return event

    def _succeeded(self) -> LeaseLost:
        return LeaseLost(f"study {self._study}: epoch {self.epoch} was ended by a successor")

    def _admit(self, event: Event) -> None:
        self._seq = event.place.seq
        self._known.add(event.identity)
        self._loose.append(event)
        self._listener(event)
        if len(self._loose) >= self._segment_records:
            self.seal()

    def _remove(self, events: Iterable[Event]) -> None:
        """Remove loose records except fences and their substitutes, whose names must stay taken."""
        for event in events:
            if event.identity.kind not in (FENCED, LOST):
                self._storage.remove(f"{self._folder}/events/{event_name(event.place)}")

    def _recover(self) -> None:
        """Read the ledger, and fence every epoch before this one."""
        for name in ("events", "segments", "leases"):
            self._storage.sweep(f"{self._folder}/{name}")
        fenced, last = set(), {}
        for event in read_events(self._storage, self._study):
            self._known.add(event.identity)
            last[event.place.epoch] = event
            if event.identity.kind == FENCED:
                fenced.add(event.place.epoch)
        for epoch in range(1, self.epoch):
            if epoch not in fenced:
                self._fence(epoch, last[epoch].place.seq if epoch in last else 0)
        self._replay()

    def _fence(self, epoch: int, seq: int) -> None:
        """Take the next number of a past epoch, even if its writer is still active."""
        identity = Identity(None, epoch, f"{FENCED}/{epoch}")
        body = {"by": self.epoch}
        while True:
            seq += 1
            event = Event(Place(epoch, seq), identity, time.time(), self._token, body)
            if self._create(event) or self._is_fence(event.place):
                return

    def _is_fence(self, place: Place) -> bool:
        """Whether another successor ended the epoch here meanwhile."""
        try:
            return read_record(self._storage, self._study, place).identity.kind == FENCED
        except FileNotFoundError:
            return False

    def _replay(self) -> None:
        """Pass all records to the listener, now that earlier epochs are fenced."""
        listing = list_records(self._storage, self._study)
        sealed = {p for p in listing.loose if any(p in span for span in listing.spans)}
        unsealed, doubled = set(listing.loose) - sealed, []
        for event in read_events(self._storage, self._study):
            self._known.add(event.identity)
            if event.place in sealed:
                doubled.append(event)
            elif event.place in unsealed:
                self._loose.append(event)
            self._listener(event)
        self._remove(doubled)


def open_writer(
    storage: Storage,
    study: str,
    *,
    listener: Callable[[Event], None] = lambda event: None,  # noqa: ARG005
    holder: Holder | None = None,
    timing: LeaseTiming | None = None,
    segment_records: int = SEGMENT_RECORDS,
) -> Writer:
    """Become the study's writer.

    Args:
        storage: The store's storage.
        study: The study's name.
        listener: Called with every record of the past in order, then with each one appended.
        holder: The writing process; this one by default.
        timing: After which silence a holder counts as dead.
        segment_records: Loose records per segment.

    Raises:
        StudyBusy: Another live process writes it.
        InputError: The storage cannot be written, or does not refuse to overwrite.
    """
    probe(storage)
    lease = acquire(storage, study, holder, timing)
    try:
        return Writer(storage, study, lease, listener, segment_records)
    except BaseException:
        lease.stop()
        raise
