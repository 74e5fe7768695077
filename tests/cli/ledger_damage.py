"""Ways in which a study's ledger gets damaged, each as a change of its folder."""

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namd.ledger.reading import encode_segment
from namd.ledger.schema import DIGEST, Event, Place, Span, event_name, record_digest

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Kind:
    """One way to damage a study.

    Attributes:
        name: For the test's id.
        change: Damages the study's folder.
        file: The file that a refusal must name.
    """

    name: str
    change: Change
    file: str = ""


def event_file(folder: Path, transition: str) -> Path:
    """The first loose record of a kind."""
    for path in sorted((folder / "events").iterdir()):
        if json.loads(path.read_text())["transition"].partition("/")[0] == transition:
            return path
    raise AssertionError(transition)


def _bytes(transition: str, damage: Callable[[bytes], bytes]) -> Change:
    def change(folder: Path) -> None:
        path = event_file(folder, transition)
        path.write_bytes(damage(path.read_bytes()))

    return change


def _next_digit(data: bytes, after: bytes) -> bytes:
    """Change the last digit of the number that follows a word, as no writer did."""
    place = re.compile(after + rb'":[0-9.]*([0-9])').search(data)
    assert place is not None
    digit = b"%d" % ((int(place[1]) + 1) % 10)
    return data[: place.start(1)] + digit + data[place.end(1) :]


def _fields(transition: str, *path: str, **value: Any) -> Change:
    """Set a field of a record, or drop it if no `to` is given; the digest is of what results."""

    def change(folder: Path) -> None:
        file = event_file(folder, transition)
        record = json.loads(file.read_text())
        place = record
        for name in path[:-1]:
            place = place[name]
        if value:
            place[path[-1]] = value["to"]
        else:
            del place[path[-1]]
        record[DIGEST] = record_digest(record)
        file.write_text(json.dumps(record))

    return change


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _lease(damage: Callable[[Path], None]) -> Change:
    """Damage the last lease of a holder that gave no word."""

    def change(folder: Path) -> None:
        (folder / "leases" / "00000001.released").unlink()
        damage(folder / "leases" / "00000001.json")

    return change


def _holding(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def _lease_field(name: str, value: object) -> Change:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return _lease(change)


def _beat_as_folder(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere"}))
    beat = path.with_suffix(".beat")
    beat.unlink(missing_ok=True)
    beat.mkdir()


SEALED = 6


def seal(folder: Path) -> Path:
    """Put the first records into a segment."""
    places = [Place(1, seq) for seq in range(1, SEALED + 1)]
    files = [folder / "events" / event_name(place) for place in places]
    path = folder / "segments" / Span(1, 1, SEALED).name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode_segment([Event.decode(file.read_bytes()) for file in files]))
    for file in files:
        file.unlink()
    return path


def _segment(damage: Callable[[bytes], bytes]) -> Change:
    def change(folder: Path) -> None:
        path = seal(folder)
        path.write_bytes(damage(path.read_bytes()))

    return change


def _lines(damage: Callable[[list[bytes]], list[bytes]]) -> Change:
    def repacked(data: bytes) -> bytes:
        return gzip.compress(b"\n".join(damage(gzip.decompress(data).splitlines())))

    return _segment(repacked)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def _events() -> list[Kind]:
    """Damage to the bytes and to each field of one record."""
    kinds = {
        "empty": lambda data: b"",
        "blank": lambda data: b"\n",
        "truncated": lambda data: data[: len(data) // 2],
        "not JSON": lambda data: b"hello",
        "two records": lambda data: data + data,
        "a list": lambda data: b"[1]",
        "a text": lambda data: b'"opened"',
        "null": lambda data: b"null",
        "a number": lambda data: b"7",
        "not UTF-8": lambda data: data.replace(b"completed", b"comple\xff\xfed"),
        "zeros": lambda data: bytes(len(data)),
        "deep": lambda data: b"[" * 100_000,
        "NaN": lambda data: data.replace(b'"time":', b'"time":NaN,"was":'),
        "infinite": lambda data: data.replace(b'"auroc":', b'"auroc":1e999,"was":'),
    }
    found = [Kind(f"event: {name}", _bytes("completed", how)) for name, how in kinds.items()]
    for name, value in (("epoch", 2), ("seq", 1), ("attempt", -1), ("attempt", True)):
        found.append(Kind(f"event: {name} {value}", _fields("completed", name, to=value)))
    inside: list[tuple[str, Change]] = [
        ("completed", _fields("completed", "body", "values")),
        ("completed", _fields("completed", "body", "values", to=3)),
        ("stage", _fields("stage", "body", "key")),
        ("stage", _fields("stage", "body", "cached", to="no")),
        ("stage", _fields("stage", "body", "seconds", to="2")),
        ("queued", _fields("queued", "trial", to=None)),
        ("queued", _fields("queued", "body", "seed", to="0")),
        ("queued", _fields("queued", "body", "overrides", to=[])),
        ("started", _fields("started", "time", to="now")),
        ("opened", _fields("opened", "trial", to="x")),
        ("opened", _fields("opened", "body", "specification", to=[])),
        ("opened", _fields("opened", "body", "specification", "evaluate", to=None)),
        ("opened", _fields("opened", "body", "specification", "ablation", "toggles", to=-1)),
        ("opened", _fields("opened", "body", "specification", "search", to={"objective": 1})),
        ("closed", _fields("closed", "body")),
    ]
    return found + [Kind(f"{what} {n}", how) for n, (what, how) in enumerate(inside)]


_NAMES = ("schema", "epoch", "seq", "time", "writer", "trial", "attempt", "transition", "body")
FIELDS = [
    *[Kind(f"event: no {name}", _fields("completed", name)) for name in _NAMES],
    *[Kind(f"event: {name} a list", _fields("completed", name, to=[1])) for name in _NAMES],
]
"""Each field of a record in turn."""

EVENTS = [
    *_events(),
    Kind("event: a changed digit", _bytes("completed", lambda data: _next_digit(data, b"auroc"))),
    Kind("event: a folder", lambda f: _as_folder(event_file(f, "completed"))),
    Kind("event: gone", lambda f: event_file(f, "started").unlink()),
]

SEGMENTS = [
    Kind("segment: empty", _segment(lambda data: b"")),
    Kind("segment: truncated", _segment(lambda data: data[: len(data) * 2 // 3])),
    Kind("segment: not gzip", _segment(lambda data: b"PK" + data)),
    Kind("segment: flipped", _segment(lambda data: _flipped(data, len(data) // 2))),
    Kind("segment: checksum", _segment(lambda data: _flipped(data, len(data) - 7))),
    Kind("segment: a line short", _lines(lambda lines: lines[:-1])),
    Kind("segment: a line twice", _lines(lambda lines: [*lines[:-1], lines[0]])),
    Kind("segment: a bad line", _lines(lambda lines: [*lines[:2], b"{", *lines[3:]])),
    Kind("segment: a folder", lambda f: _as_folder(seal(f))),
]

LEASES = [
    Kind("lease: empty", _lease(_holding(b""))),
    Kind("lease: truncated", _lease(lambda path: _holding(path.read_bytes()[:20])(path))),
    Kind("lease: a list", _lease(_holding(b"[]"))),
    Kind("lease: not UTF-8", _lease(_holding(b'"\xff"'))),
    Kind("lease: no field", _lease(_holding(b"{}"))),
    Kind("lease: pid a text", _lease_field("pid", "7")),
    Kind("lease: host a number", _lease_field("host", 7)),
    Kind("lease: a folder", _lease(_as_folder)),
    Kind("heartbeat: a folder", _lease(_beat_as_folder)),
]


def _put(name: str, data: bytes) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return change


HARMLESS = [
    Kind("nothing", lambda f: None),
    Kind("sealed", lambda f: seal(f) and None),
    Kind("an unknown transition", _fields("started", "transition", to="paused/2")),
    Kind("an unknown field", _fields("completed", "more", to=[1])),
    Kind("a foreign event", _put("events/.DS_Store", b"\x00")),
    Kind("a foreign note", _put("events/notes.txt", b"mine")),
    Kind("a foreign segment", _put("segments/1.gz", b"mine")),
    Kind("a foreign lease", _put("leases/1.json", b"mine")),
    Kind("a foreign file", _put("README", b"mine")),
    Kind("a file among studies", _put("../notes.txt", b"mine")),
    Kind("a folder among studies", _put("../my notes/x", b"mine")),
    Kind("a released lease", lambda f: (f / "leases/00000001.json").write_bytes(b"") and None),
    Kind("a damaged request", _put("requests/stop-1", b"{")),
    Kind("a damaged hold", _put("holds/abc", b"{")),
]
