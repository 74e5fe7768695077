"""Reading a ledger in order, from sealed segments and loose records, while it is written."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass

from namd.ledger.schema import Event, Place, Span, event_name, parse_event_name, study_folder
from namd.ledger.storage import Storage

_LISTINGS = 5
"""Times a reader lists again because records were sealed under its hands."""


class LedgerDamaged(Exception):  # noqa: N818 - says what is the case
    """A record that must exist is missing: the storage lost it, or someone removed it."""


@dataclass(frozen=True)
class Listing:
    """What lay in a study's folder at one moment."""

    spans: tuple[Span, ...]
    loose: tuple[Place, ...]


def study_names(storage: Storage) -> list[str]:
    """Return the names of the studies recorded under a storage."""
    return storage.names("studies")


def list_records(storage: Storage, study: str) -> Listing:
    """Return segments and loose records.

    Loose records are listed first: one that is sealed and removed in between is then in a
    segment of the second listing, and none is missed.
    """
    folder = study_folder(study)
    loose = [parse_event_name(name) for name in storage.names(f"{folder}/events")]
    spans = [Span.parse(name) for name in storage.names(f"{folder}/segments")]
    return Listing(
        tuple(sorted(span for span in spans if span)), tuple(sorted(p for p in loose if p))
    )


def read_events(storage: Storage, study: str, after: Place | None = None) -> Iterator[Event]:
    """Yield the records after a place in order of (epoch, seq), each once.

    One segment is in memory at a time. Raises LedgerDamaged where a number is missing.
    """
    cursor = after or Place(0, 0)
    for attempt in range(_LISTINGS):
        try:
            for event in _walk(storage, study, list_records(storage, study), cursor):
                _check_next(study, cursor, event.place)
                cursor = event.place
                yield event
            return
        except FileNotFoundError:
            if attempt + 1 == _LISTINGS:
                raise LedgerDamaged(f"study {study}: records vanish after {cursor}") from None
        except LedgerDamaged:
            # A folder listed while it is written may show a record and not the one before.
            if attempt + 1 == _LISTINGS:
                raise


def read_segment(storage: Storage, study: str, span: Span) -> Iterator[Event]:
    """Yield the records of a segment."""
    data = storage.read(f"{study_folder(study)}/segments/{span.name}")
    # One parse of the whole is twice as fast as one a line, and a segment is small.
    records = json.loads(b"[" + b",".join(gzip.decompress(data).splitlines()) + b"]")
    for record in records:
        yield Event.from_record(record)


def encode_segment(events: list[Event]) -> bytes:
    """Return a segment's bytes; the same records give the same bytes."""
    return gzip.compress(b"".join(e.encode() for e in events), compresslevel=6, mtime=0)


def _walk(storage: Storage, study: str, listing: Listing, cursor: Place) -> Iterator[Event]:
    """Merge segments and loose records; overlaps are dropped by place."""
    folder = study_folder(study)
    loose = iter(listing.loose)
    pending = next(loose, None)
    for span in listing.spans:
        while pending is not None and pending < Place(span.epoch, span.first):
            if pending > cursor:
                yield Event.decode(storage.read(f"{folder}/events/{event_name(pending)}"))
                cursor = pending
            pending = next(loose, None)
        if Place(span.epoch, span.last) <= cursor:
            continue
        for event in read_segment(storage, study, span):
            if event.place > cursor:
                yield event
                cursor = event.place
    while pending is not None:
        if pending > cursor:
            yield Event.decode(storage.read(f"{folder}/events/{event_name(pending)}"))
            cursor = pending
        pending = next(loose, None)


def _check_next(study: str, last: Place, place: Place) -> None:
    """Within an epoch numbers follow one another; an epoch starts at 1."""
    expected = last.seq + 1 if place.epoch == last.epoch else 1
    if place.seq != expected:
        raise LedgerDamaged(
            f"study {study}: record {place.epoch}-{expected} is missing before {place.seq}"
        )
