"""Reading a ledger in order, from sealed segments and loose records, while it is written."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from namd.ledger.damage import LedgerDamaged, damaged
from namd.ledger.schema import (
    SCHEMA_VERSION,
    Event,
    Place,
    Span,
    event_name,
    is_study_name,
    parse_event_name,
    study_folder,
)
from namd.ledger.validation import RecordDamaged, check_record, read_json
from namd.storage.base import Storage

_LISTINGS = 5
"""Listings, at most, if records are sealed during the read."""


@dataclass(frozen=True)
class Listing:
    """The contents of a study's folder at one moment."""

    spans: tuple[Span, ...]
    loose: tuple[Place, ...]


def study_names(storage: Storage) -> list[str]:
    """Return the names of the studies recorded under a storage; other files do not count."""
    return [name for name in storage.folders("studies") if is_study_name(name)]


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

    One segment is in memory at a time. Raises LedgerDamaged if a number is missing.
    """
    cursor = after or Place(0, 0)
    for attempt in range(_LISTINGS):
        try:
            for event in _merged(storage, study, list_records(storage, study), cursor):
                _check_next(storage, study, cursor, event.place)
                cursor = event.place
                yield event
            return
        except FileNotFoundError:
            if attempt + 1 == _LISTINGS:
                name = event_name(Place(cursor.epoch, cursor.seq + 1))
                raise damaged(storage, study, f"events/{name}", "vanishes") from None
        except LedgerDamaged:
            # A listing during writes may contain a record but not the one before it.
            if attempt + 1 == _LISTINGS:
                raise


def read_segment(storage: Storage, study: str, span: Span) -> Iterator[Event]:
    """Yield the records of a segment. Raises LedgerDamaged if they are not those of its name."""
    file = f"segments/{span.name}"
    try:
        lines = gzip.decompress(_read(storage, study, file)).splitlines()
        # One parse of the whole is twice as fast as one per line, and a segment is small.
        records = read_json(b"[" + b",".join(lines) + b"]")
        if len(records) != span.last - span.first + 1:
            raise RecordDamaged(f"holds {len(records)} records, not those of its name")
        for seq, record in enumerate(records, start=span.first):
            yield _event(record, Place(span.epoch, seq))
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        raise damaged(storage, study, file, "is no whole gzip file") from error
    except RecordDamaged as error:
        raise damaged(storage, study, file, str(error)) from error


def read_record(storage: Storage, study: str, place: Place) -> Event:
    """Return a loose record. Raises FileNotFoundError, LedgerDamaged."""
    file = f"events/{event_name(place)}"
    data = _read(storage, study, file)
    try:
        return decode_record(data, place)
    except RecordDamaged as error:
        raise damaged(storage, study, file, str(error)) from error


def decode_record(data: bytes, place: Place) -> Event:
    """Return the record that bytes hold at a place.

    Raises RecordDamaged, InputError for a schema of a later version.
    """
    return _event(read_json(data), place)


def _event(record: Any, place: Place) -> Event:  # noqa: ANN401 - JSON
    if not (isinstance(record, dict) and _is_later(record.get("schema"))):
        check_record(record)
    event = Event.from_record(record)
    if event.place != place:
        raise RecordDamaged(f"says that it is record {event.place.epoch}-{event.place.seq}")
    return event


def _is_later(schema: object) -> bool:
    return type(schema) is int and schema > SCHEMA_VERSION


def _read(storage: Storage, study: str, file: str) -> bytes:
    try:
        return storage.read(f"{study_folder(study)}/{file}")
    except IsADirectoryError as error:
        raise damaged(storage, study, file, "is a folder") from error


def encode_segment(events: list[Event]) -> bytes:
    """Return a segment's bytes; the same records give the same bytes."""
    return gzip.compress(b"".join(e.encode() for e in events), compresslevel=6, mtime=0)


def _merged(storage: Storage, study: str, listing: Listing, cursor: Place) -> Iterator[Event]:
    """Merge segments and loose records; overlaps are dropped by place."""
    loose = iter(listing.loose)
    pending = next(loose, None)
    for span in listing.spans:
        while pending is not None and pending < Place(span.epoch, span.first):
            if pending > cursor:
                yield read_record(storage, study, pending)
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
            yield read_record(storage, study, pending)
            cursor = pending
        pending = next(loose, None)


def _check_next(storage: Storage, study: str, last: Place, place: Place) -> None:
    """Check that numbers are consecutive within an epoch, starting at 1."""
    expected = last.seq + 1 if place.epoch == last.epoch else 1
    if place.seq != expected:
        file = f"events/{event_name(Place(place.epoch, expected))}"
        problem = f"is gone: record {place.epoch}-{expected} is missing before {place.seq}"
        raise damaged(storage, study, file, problem)
