"""The records of a ledger and their names on disk. Nothing here reads or writes.

All transitions are listed here; a reader keeps records with unknown ones.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from namd.config.errors import InputError, shown
from namd.config.fingerprint import fingerprint
from namd.storage.stage_names import StageName

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
"""Substitute for a record that was damaged and set aside."""

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
"""Transitions that end an attempt at a trial."""

CONFIRM = "confirm_p"
"""Prefix of the arm of a search winner's fresh seeds: `confirm_p7` for proposal 7."""

DIGEST = "digest"
"""Field of a record: the start of the SHA-256 of all others; earlier versions wrote none."""

DIGEST_DIGITS = 16

_Body = TypeVar("_Body", bound="Body")

_MORE = "more"
_LEFT_OUT = "left_out"


def _left_out(default: Any) -> Any:  # noqa: ANN401 - a field of any type
    """Return a field that is omitted from the JSON if it has its default."""
    return field(default=default, metadata={_LEFT_OUT: True})


@dataclass(frozen=True, kw_only=True)
class Body:
    """The body of a record. Subclasses name the fields that this version reads.

    `validation.check_record` checks a body against these fields: one without a default is
    required, and its annotation gives its JSON type.

    Attributes:
        more: Fields that this version does not know.
    """

    about_study: ClassVar[bool | None] = None
    """Whether the record is about the study (True) or a trial (False); None: either."""

    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def decode(cls: type[_Body], body: Mapping[str, Any]) -> _Body:
        """Read a body from its JSON object, which was checked before."""
        names = _NAMES[cls]
        known = {name: body[name] for name in names if name in body}
        if len(known) == len(body):
            return cls(**known)
        return cls(**known, more={name: body[name] for name in body if name not in names})

    def encode(self) -> dict[str, Any]:
        """Return the JSON object, `more` included."""
        body = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name != _MORE
            and not (each.metadata.get(_LEFT_OUT) and getattr(self, each.name) == each.default)
        }
        return body | dict(self.more)


def required(cls: type[Body]) -> Mapping[str, bool]:
    """Return the names of a body's fields and whether a record must have them."""
    found = (each for each in fields(cls) if each.name != _MORE)
    return {e.name: e.default is MISSING and e.default_factory is MISSING for e in found}


class OfStudy(Body):
    """A body of a record about the study."""

    about_study = True


class OfTrial(Body):
    """A body of a record about a trial."""

    about_study = False


@dataclass(frozen=True, kw_only=True)
class Opened(OfStudy):
    """A driver opened the study.

    Attributes:
        specification: The study file.
        configuration: The resolved base.
        cohort: The cohort's folder.
        cohort_fingerprint: Fingerprint of its contents.
        warm: Trials from earlier ledgers for a search, as bodies of `warm`.
    """

    specification: Mapping[str, Any] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    cohort: str | None = _left_out(None)
    cohort_fingerprint: str | None = _left_out(None)
    warm: Sequence[Any] = _left_out(())


@dataclass(frozen=True, kw_only=True)
class Proposed(OfStudy):
    """A search proposed a point and its trials, one per seed."""

    point: Mapping[str, Any]
    overrides: Mapping[str, Any]
    sampler_state: Mapping[str, Any]
    trials: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Warm(OfStudy):
    """A point and its objectives from an earlier study, for a search."""

    point: Mapping[str, Any]
    values: Sequence[float]
    study: str = _left_out("")


@dataclass(frozen=True, kw_only=True)
class Message(OfStudy):
    """A line for people."""

    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Stopped(OfStudy):
    """The study was stopped."""

    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Queued(OfTrial):
    """A trial was queued, with its overrides of the base and its training seed.

    Attributes:
        arm: Arm of an ablation, or of a search winner's fresh seeds; else empty.
        proposal: Number of a search's proposal; else None.
        seed: Training seed.
        overrides: Values that the trial sets on the base.
    """

    arm: str | None
    proposal: int | None
    seed: int
    overrides: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The name of its configuration for people: the arm, or `p3` for proposal 3."""
        return self.arm or f"p{self.proposal}"


@dataclass(frozen=True, kw_only=True)
class StageDone(OfTrial):
    """A trial has the artifact of a stage: built for it, or found.

    Attributes:
        stage: The stage's label.
        key: Its artifact's key.
        cached: Whether it was found rather than built.
        seconds: Wall seconds of the build; 0 if cached.
        device_seconds: Wall seconds times workers times what each reserves: accelerators, or
            cores if it reserves none.
        reserved: Device seconds for which its stage worker reserved its resources, start and
            waits included; 0 if cached.
        artifact: Name of the published attempt; it changes if the key is built again after removal.
        name: Of the stage, without the index; this and what follows is absent from the records
            of earlier versions (see namd.storage.stage_names).
        index: Draw index of a member of a family.
        family: The stage's name without its split.
        role: What the stage is for.
        split: The one split that the stage is about.
    """

    stage: str
    key: str
    cached: bool
    seconds: float = 0.0
    device_seconds: float = 0.0
    reserved: float = _left_out(0.0)
    artifact: str = _left_out("")
    name: str = _left_out("")
    index: int | None = _left_out(None)
    family: str = _left_out("")
    role: str = _left_out("")
    split: str | None = _left_out(None)

    @property
    def stage_name(self) -> StageName:
        """The stage, also of a record that has its label alone."""
        return StageName.read(vars(self), self.stage)


@dataclass(frozen=True, kw_only=True)
class RungValue(OfTrial):
    """A trial reached a rung: its value and the decision."""

    metric: str = ""
    value: float
    decision: str = ""


@dataclass(frozen=True, kw_only=True)
class Completed(OfTrial):
    """A trial has its metrics."""

    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ended(OfTrial):
    """An attempt ended without metrics."""

    reason: str = ""


BODIES: Mapping[str, type[Body]] = {
    OPENED: Opened,
    CLOSED: OfStudy,
    STOPPED: Stopped,
    PROPOSED: Proposed,
    WARM: Warm,
    MESSAGE: Message,
    FENCED: OfStudy,
    QUEUED: Queued,
    STARTED: OfTrial,
    RUNG: RungValue,
    STAGE: StageDone,
    COMPLETED: Completed,
    **dict.fromkeys((PRUNED, FAILED, DIVERGED, INTERRUPTED), Ended),
}
"""The body of each transition; unknown transitions have a plain `Body`."""

ALL_BODIES: tuple[type[Body], ...] = (Body, *BODIES.values())

_NAMES: Mapping[type[Body], tuple[str, ...]] = {cls: tuple(required(cls)) for cls in ALL_BODIES}

_EVENT_NAME = re.compile(r"(\d{8})-(\d{8})\.json")
_SEGMENT_NAME = re.compile(r"(\d{8})-(\d{8})-(\d{8})\.jsonl\.gz")
_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

MAXIMUM_NAME = 100
"""Most characters of a study's name, which names a folder and is part of a cluster job's id."""


@dataclass(frozen=True, order=True)
class Place:
    """The position of a record: the lease epoch of its writer and its number there, from 1."""

    epoch: int
    seq: int


@dataclass(frozen=True)
class Identity:
    """The identity of a record; a second record with the same identity is not written.

    Attributes:
        trial: `trial_id` of the trial; None for records about the study.
        attempt: Number of the attempt at the trial (or of the study's opening), from 1.
        transition: A constant of this module, with `/name` if there are several of it.
    """

    trial: str | None
    attempt: int
    transition: str

    @property
    def kind(self) -> str:
        """The transition without its name: `rung` of `rung/vae`."""
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
        writer: A random token of the writing process.
        body: The body's JSON object; `content` is the same as a dataclass.
        schema: Version under which it was written.
    """

    place: Place
    identity: Identity
    time: float
    writer: str
    body: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    @property
    def content(self) -> Body:
        """The body as the dataclass of its transition."""
        return BODIES.get(self.identity.kind, Body).decode(self.body)

    def encode(self) -> bytes:
        """Return the record as one line of JSON, with a digest of all else in it."""
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
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
        # Of the record as it will be read: JSON turns numbers that are names into text.
        digest = record_digest(json.loads(text))
        return f'{text[:-1]},"{DIGEST}":"{digest}"}}\n'.encode()

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


def record_digest(record: Mapping[str, Any]) -> str:
    """Return the digest of a record's JSON object, whatever digest is in it."""
    content = {name: value for name, value in record.items() if name != DIGEST}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]


def trial_id(configuration: Mapping[str, Any], train_seed: int) -> str:
    """Return a trial's identity: a hash of its resolved configuration and its training seed."""
    return fingerprint({"configuration": dict(configuration), "train_seed": train_seed})[:20]


def is_study_name(name: str) -> bool:
    """Return whether this is a valid name of a study."""
    return _STUDY_NAME.fullmatch(name) is not None


def study_folder(name: str) -> str:
    """Return the folder of a study. Raises InputError for an invalid name."""
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
    """Return the place that a file name encodes, or None."""
    match = _EVENT_NAME.fullmatch(name)
    return Place(int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True, order=True)
class Span:
    """The records of one epoch in a segment, first and last included."""

    epoch: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """The segment's file name."""
        return f"{self.epoch:08d}-{self.first:08d}-{self.last:08d}.jsonl.gz"

    @classmethod
    def parse(cls, name: str) -> "Span | None":
        """Return the span that a file name encodes, or None."""
        match = _SEGMENT_NAME.fullmatch(name)
        return cls(*(int(part) for part in match.groups())) if match else None

    def __contains__(self, place: Place) -> bool:
        return place.epoch == self.epoch and self.first <= place.seq <= self.last
