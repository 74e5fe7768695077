"""The damage in a study's ledger, file by file. Nothing is changed here."""

import contextlib
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from namd.ledger import schema
from namd.ledger.damage import LedgerDamaged
from namd.ledger.lease import parse_holder
from namd.ledger.pins import PIN_FOLDERS, parse_pin
from namd.ledger.reading import decode_record, list_records, read_record, read_segment
from namd.ledger.requests import parse_request
from namd.ledger.schema import Event, Place, Span, event_name, study_folder
from namd.ledger.validation import RecordDamaged, read_json
from namd.storage.base import Storage

FOLDERS = ("events", "segments", "leases", *PIN_FOLDERS, "requests")
_PARSERS: dict[str, Callable[[bytes], object]] = {
    "leases": parse_holder,
    **dict.fromkeys(PIN_FOLDERS, parse_pin),
    "requests": parse_request,
}
_LOOKS = 4
_LEASE = re.compile(r"\d{8}\.(json|beat)")
_LOST = {
    "leases": "the last holder of the study's lease",
    **dict.fromkeys(PIN_FOLDERS, "what a trial needed; `namd store gc` can remove it"),
    "requests": "the reason of a request to stop",
}


@dataclass(frozen=True)
class Damage:
    """A file that is damaged, or missing.

    Attributes:
        file: Its path in the study's folder.
        problem: What is wrong with it.
        lost: Descriptions of the lost contents, as far as known.
        places: The records that it should contain but does not.
        kept: The readable records of a segment.
        present: Whether there is a file to set aside.
    """

    file: str
    problem: str
    lost: tuple[str, ...]
    places: tuple[Place, ...] = ()
    kept: tuple[Event, ...] = ()
    present: bool = True


@dataclass
class _Records:
    """The readable records, and the damage found."""

    sound: dict[Place, Event | None] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)


def survey(storage: Storage, study: str) -> list[Damage]:
    """Return every damage to a study's ledger.

    Raises InputError for a record of a later version, which is not damaged.
    """
    blocked = list(_blocked_folders(storage, study))
    stopped = {damage.file for damage in blocked}
    if stopped & {"events", "segments"}:
        return blocked
    records = _look_again(storage, study)
    found = [*blocked, *records.damages, *_holes(records)]
    for folder in ("leases", *PIN_FOLDERS, "requests"):
        if folder not in stopped:
            found += _look_at(storage, study, folder)
    return found


def salvage(data: bytes, span: Span) -> list[Event]:
    """Return the readable records of a damaged segment, in order."""
    found: dict[Place, Event] = {}
    for line in _inflated(data).splitlines():
        with contextlib.suppress(RecordDamaged, KeyError, TypeError):
            record = read_json(line)
            place = Place(record["epoch"], record["seq"])
            if place in span:
                found.setdefault(place, decode_record(line, place))
    return [found[place] for place in sorted(found)]


def _blocked_folders(storage: Storage, study: str) -> Iterator[Damage]:
    """Yield files in the place of the ledger's folders."""
    for folder in FOLDERS:
        try:
            storage.names(f"{study_folder(study)}/{folder}")
        except NotADirectoryError:
            yield Damage(folder, "is no folder", (f"all {folder} of the study",))


def _look_again(storage: Storage, study: str) -> _Records:
    """Check the records, again if some of them were sealed meanwhile."""
    for _ in range(_LOOKS):
        with contextlib.suppress(FileNotFoundError):
            return _look_at_records(storage, study)
    return _look_at_records(storage, study)


def _look_at_records(storage: Storage, study: str) -> _Records:
    listing = list_records(storage, study)
    records = _Records()
    for span in listing.spans:
        _look_at_segment(storage, study, span, records)
    for place in listing.loose:
        file = f"events/{event_name(place)}"
        try:
            records.sound[place] = read_record(storage, study, place)
        except LedgerDamaged as error:
            lost = () if place in records.sound else (_describe(storage, study, place),)
            records.damages.append(Damage(file, _problem(error, file), lost, (place,)))
    return _without_doubles(records)


def _look_at_segment(storage: Storage, study: str, span: Span, records: _Records) -> None:
    file = f"segments/{span.name}"
    places = [Place(span.epoch, seq) for seq in range(span.first, span.last + 1)]
    try:
        for event in read_segment(storage, study, span):
            records.sound[event.place] = None
    except LedgerDamaged as error:
        kept: list[Event] = []
        with contextlib.suppress(IsADirectoryError):
            kept = salvage(storage.read(f"{study_folder(study)}/{file}"), span)
        known = {event.place for event in kept}
        records.sound.update(dict.fromkeys(known))
        missing = tuple(place for place in places if place not in known)
        records.damages.append(
            Damage(file, _problem(error, file), _numbers(missing), missing, tuple(kept))
        )


def _without_doubles(records: _Records) -> _Records:
    """Remove lost records of segments that exist as loose records too."""
    found = []
    for damage in records.damages:
        loose = [e for p in damage.places if (e := records.sound.get(p)) is not None]
        if damage.file.startswith("segments/") and loose:
            known = {event.place for event in loose}
            missing = tuple(place for place in damage.places if place not in known)
            kept = tuple(sorted((*damage.kept, *loose), key=lambda event: event.place))
            found.append(Damage(damage.file, damage.problem, _numbers(missing), missing, kept))
        else:
            found.append(damage)
    return _Records(records.sound, found)


def _holes(records: _Records) -> Iterator[Damage]:
    """Yield the missing records."""
    listed = {place for damage in records.damages for place in damage.places}
    known = listed | records.sound.keys()
    for epoch in sorted({place.epoch for place in known}):
        last = max(place.seq for place in known if place.epoch == epoch)
        for seq in range(1, last):
            place = Place(epoch, seq)
            if place not in known:
                lost = (f"record {epoch}-{seq}",)
                yield Damage(f"events/{event_name(place)}", "is gone", lost, (place,), (), False)


def _look_at(storage: Storage, study: str, folder: str) -> Iterator[Damage]:
    """Yield damaged leases, heartbeats, pins or requests."""
    for name in storage.names(f"{study_folder(study)}/{folder}"):
        if folder == "leases" and not _LEASE.fullmatch(name):
            continue
        file = f"{folder}/{name}"
        try:
            data = storage.read(f"{study_folder(study)}/{file}")
            if not name.endswith(".beat"):
                _PARSERS[folder](data)
        except FileNotFoundError:
            continue  # released between the listing and the look
        except IsADirectoryError:
            yield Damage(file, "is a folder", (_LOST[folder],))
        except RecordDamaged as error:
            yield Damage(file, str(error), (_LOST[folder],))


def _problem(error: LedgerDamaged, file: str) -> str:
    """Return the problem from an error's line, without the file and the way out."""
    return str(error).partition(f"{file} ")[2].partition("; `namd study repair")[0]


def _describe(storage: Storage, study: str, place: Place) -> str:
    """Describe a damaged record, as far as it can be read."""
    number = f"record {place.epoch}-{place.seq}"
    try:
        record = read_json(storage.read(f"{study_folder(study)}/events/{event_name(place)}"))
        transition, trial = record["transition"], record.get("trial")
    except (RecordDamaged, OSError, KeyError, TypeError, AttributeError):
        return number
    if not isinstance(transition, str) or transition.partition("/")[0] not in schema.BODIES:
        return number
    of = f" of trial {trial[:12]}" if isinstance(trial, str) else ""
    return f"{number}: {transition}{of}"


def _numbers(places: tuple[Place, ...]) -> tuple[str, ...]:
    """Describe records, consecutive ones as a range."""
    found: list[list[Place]] = []
    for place in places:
        if found and found[-1][-1] == Place(place.epoch, place.seq - 1):
            found[-1].append(place)
        else:
            found.append([place])
    return tuple(
        f"record {p[0].epoch}-{p[0].seq}"
        if len(p) == 1
        else f"records {p[0].epoch}-{p[0].seq} to {p[-1].epoch}-{p[-1].seq}"
        for p in found
    )


def _inflated(data: bytes) -> bytes:
    """Return the contents of damaged gzip up to the damage."""
    found, unpacker = [], zlib.decompressobj(wbits=31)
    with contextlib.suppress(zlib.error):
        # Byte by byte: a larger piece would be lost as a whole.
        for at in range(len(data)):
            found.append(unpacker.decompress(data[at : at + 1]))
    return b"".join(found)
