"""What one record of a ledger is, and its names on disk. Nothing here reads or writes.

The words of `transition` are listed here once; a reader that meets one it does not know keeps it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from namd.config.errors import InputError, shown
from namd.config.fingerprint import fingerprint

SCHEMA_VERSION = 1

# Of the study: trial is None.
OPENED = "opened"
CLOSED = "closed"
STOPPED = "stopped"
PROPOSED = "proposed"
WARM = "warm"
MESSAGE = "message"
FENCED = "fenced"
LOST = "lost"
"""Stands in the place of a record that was damaged and set aside."""

# Of a trial.
QUEUED = "queued"
STARTED = "started"
RUNG = "rung"
STAGE = "stage"
COMPLETED = "completed"
PRUNED = "pruned"
FAILED = "failed"
DIVERGED = "diverged"
INTERRUPTED = "interrupted"

ENDINGS = (COMPLETED, PRUNED, FAILED, DIVERGED, INTERRUPTED)
"""Transitions after which an attempt of a trial is over."""

_EVENT_NAME = re.compile(r"(\d{8})-(\d{8})\.json")
_SEGMENT_NAME = re.compile(r"(\d{8})-(\d{8})-(\d{8})\.jsonl\.gz")
_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

MAXIMUM_NAME = 100
"""Characters of a study's name, which is a folder's name and part of a cluster job's."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a record stands: the lease epoch of its writer and its number there, from 1."""

    epoch: int
    seq: int


@dataclass(frozen=True)
class Identity:
    """What makes a record the same record; a second one of the same identity is not written.

    Attributes:
        trial: `trial_id` of the trial; None for what concerns the study.
        attempt: Counts the attempts at the trial (or the runs of the study), from 1.
        transition: What happened: a word of this module, with `/name` where there are several.
    """

    trial: str | None
    attempt: int
    transition: str

    @property
    def kind(self) -> str:
        """The transition's word without its name: `rung` of `rung/vae`."""
        return self.transition.partition("/")[0]

    @property
    def name(self) -> str:
        """The transition's name: `vae` of `rung/vae`, else empty."""
        return self.transition.partition("/")[2]


@dataclass(frozen=True)
class Event:
    """One immutable record.

    Attributes:
        place: Epoch and number.
        identity: Trial, attempt and transition.
        time: Seconds since 1970, of the writer's clock; for people, never for decisions.
        writer: A random word of the writing process.
        body: What is told, as JSON.
        schema: Version under which it was written.
    """

    place: Place
    identity: Identity
    time: float
    writer: str
    body: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    def encode(self) -> bytes:
        """Return the record as one line of JSON."""
        record = {
            "schema": self.schema,
            "epoch": self.place.epoch,
            "seq": self.place.seq,
            "time": self.time,
            "writer": self.writer,
            "trial": self.identity.trial,
            "attempt": self.identity.attempt,
            "transition": self.identity.transition,
            "body": self.body,
        }
        return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> "Event":
        """Read a record back. Raises InputError for a schema of a later version."""
        return cls.from_record(json.loads(line))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Event":
        """Build an event from a record's JSON object; raises as `decode` does."""
        if record["schema"] > SCHEMA_VERSION:
            raise InputError(
                f"ledger record {record.get('epoch')}-{record.get('seq')} has schema "
                f"{record['schema']}, "
                f"this version reads up to {SCHEMA_VERSION}: update namd"
            )
        return cls(
            Place(record["epoch"], record["seq"]),
            Identity(record["trial"], record["attempt"], record["transition"]),
            record["time"],
            record["writer"],
            record["body"],
            record["schema"],
        )


def trial_id(configuration: Mapping[str, Any], train_seed: int) -> str:
    """Return a trial's identity: a hash of its resolved configuration and its training seed."""
    return fingerprint({"configuration": dict(configuration), "train_seed": train_seed})[:20]


def is_study_name(name: str) -> bool:
    """Return whether a study can be called so."""
    return _STUDY_NAME.fullmatch(name) is not None


def study_folder(name: str) -> str:
    """Return the folder of a study. Raises InputError for a name that no file could carry."""
    if len(name) > MAXIMUM_NAME:
        raise InputError(
            f"study name {shown(name)}: it has {len(name):,} characters; use at most {MAXIMUM_NAME}"
        )
    if not is_study_name(name):
        raise InputError(
            f"study name {shown(name)}: use letters, digits, dots, dashes and underscores, a "
            "letter or digit first"
        )
    return f"studies/{name}"


def event_name(place: Place) -> str:
    """Return the file name of a record."""
    return f"{place.epoch:08d}-{place.seq:08d}.json"


def parse_event_name(name: str) -> Place | None:
    """Return the place that a file name says, or None."""
    match = _EVENT_NAME.fullmatch(name)
    return Place(int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True, order=True)
class Span:
    """The records of one epoch that a segment holds, first and last included."""

    epoch: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """The segment's file name."""
        return f"{self.epoch:08d}-{self.first:08d}-{self.last:08d}.jsonl.gz"

    @classmethod
    def parse(cls, name: str) -> "Span | None":
        """Return the span that a file name says, or None."""
        match = _SEGMENT_NAME.fullmatch(name)
        return cls(*(int(part) for part in match.groups())) if match else None

    def __contains__(self, place: Place) -> bool:
        return place.epoch == self.epoch and self.first <= place.seq <= self.last
