"""The body of a record is described once: its dataclass, its JSON and the check of it agree."""

import json

import pytest

from namd.ledger import schema
from namd.ledger.schema import Event, Identity, Place
from namd.ledger.validation import RecordDamaged, check_record

BODIES = {
    schema.OPENED: {"specification": {"name": "s"}, "configuration": {"a": 1}, "cohort": "/c"},
    schema.CLOSED: {},
    schema.STOPPED: {"reason": "power"},
    schema.PROPOSED: {
        "point": {"x": 1},
        "overrides": {"x": 1},
        "sampler_state": {},
        "trials": ["t"],
    },
    schema.WARM: {"point": {"x": 1}, "values": [0.5], "study": "earlier"},
    schema.MESSAGE: {"text": "LPIPS falls back"},
    schema.FENCED: {"by": 2},
    schema.QUEUED: {"arm": "full", "proposal": None, "seed": 0, "overrides": {}},
    schema.STARTED: {},
    schema.RUNG: {"metric": "auroc", "value": 0.5, "decision": "continue"},
    schema.STAGE: {
        "stage": "vae",
        "key": "k",
        "cached": False,
        "seconds": 1.0,
        "device_seconds": 2.0,
        "reserved": 3.0,
        "artifact": "a",
    },
    schema.COMPLETED: {"values": {"auroc": 0.5}},
    schema.PRUNED: {"reason": "worse"},
    schema.FAILED: {"reason": "disk"},
    schema.DIVERGED: {"reason": "nan"},
    schema.INTERRUPTED: {"reason": "gone"},
}


def event(kind: str, body: dict) -> Event:
    trial = None if schema.BODIES[kind].about_study else "t"
    name = f"{kind}/0" if kind in (schema.PROPOSED, schema.WARM) else kind
    return Event(Place(1, 1), Identity(trial, 1, name), 0.0, "w", body)


def checked(kind: str, body: dict) -> None:
    check_record(json.loads(event(kind, body).encode()))


def test_every_transition_has_a_body_and_an_example():
    assert set(BODIES) == set(schema.BODIES)
    assert set(schema.ENDINGS) < set(schema.BODIES)


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_is_the_same_json_after_it_was_read(kind):
    for body in (BODIES[kind], BODIES[kind] | {"of_a_later_version": [1]}):
        checked(kind, body)
        assert event(kind, body).content.encode() == body


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, cls in schema.BODIES.items() for name in schema.required(cls)],
)
def test_a_field_of_another_type_is_refused(kind, name):
    checked(kind, BODIES[kind])
    with pytest.raises(RecordDamaged, match=rf"body\.{name} of type object"):
        check_record(
            json.loads(event(kind, BODIES[kind]).encode())
            | {"body": BODIES[kind] | {name: object()}}
        )


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, n) for kind, cls in schema.BODIES.items() for n, must in schema.required(cls).items()],
)
def test_only_a_field_without_a_default_must_be_there(kind, name):
    body = {key: value for key, value in BODIES[kind].items() if key != name}
    if schema.required(schema.BODIES[kind])[name]:
        with pytest.raises(RecordDamaged, match=f"lacks body.{name}"):
            checked(kind, body)
    else:
        checked(kind, body)


def test_an_unknown_transition_keeps_its_body():
    told = Event(Place(1, 1), Identity(None, 1, "of_later"), 0.0, "w", {"x": 1})
    check_record(json.loads(told.encode()))
    assert told.content.encode() == {"x": 1}
