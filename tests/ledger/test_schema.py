"""The body of a record is described once: its dataclass, its JSON and the check of it agree."""

import json
from dataclasses import replace

import pytest

from namd.ledger import schema
from namd.ledger.schema import Event, Identity, Place
from namd.ledger.validation import RecordDamaged, check_record
from namd.storage.stage_names import StageName

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
    found = Event(Place(1, 1), Identity(None, 1, "of_later"), 0.0, "w", {"x": 1})
    check_record(json.loads(found.encode()))
    assert found.content.encode() == {"x": 1}


def test_a_stage_of_an_earlier_record_is_read_from_its_label():
    before = {**BODIES[schema.STAGE], "stage": "scores-test[3]"}
    now = StageName("scores-test", 3, "scores", "score", "test")
    checked(schema.STAGE, before)
    assert event(schema.STAGE, before).content.stage_name == now
    fields = {**before, **now.to_mapping(), "role": "map"}
    checked(schema.STAGE, fields)
    assert event(schema.STAGE, fields).content.stage_name == replace(now, role="map")


RECORD = json.loads(event(schema.COMPLETED, {"values": {"auroc": 0.8123}}).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"body": {"values": {"auroc": 0.8124}}},
        {"body": {"values": {"auroc": 0.8123, "auprc": 0.5}}},
        {"attempt": 2},
        {"time": 1.0},
        {"digest": "0" * 16},
        {"digest": 7},
        {"of_later": 1},
    ],
)
def test_a_record_with_a_changed_digit_is_refused(change):
    check_record(RECORD)
    with pytest.raises(RecordDamaged, match="has changed since it was written"):
        check_record(RECORD | change)


def test_a_record_is_believed_in_any_order_and_without_a_digest():
    check_record(dict(reversed(RECORD.items())))
    check_record(json.loads(json.dumps(RECORD, indent=2, sort_keys=True)))
    earlier = {name: value for name, value in RECORD.items() if name != schema.DIGEST}
    check_record(earlier)
    check_record(earlier | {"attempt": 2})


def test_a_field_that_is_wrong_is_named_rather_than_the_digest():
    with pytest.raises(RecordDamaged, match=r"body\.values\.auroc that is not finite"):
        check_record(RECORD | {"body": {"values": {"auroc": float("nan")}}})


def test_names_that_json_makes_text_of_have_the_digest_that_is_read():
    body = {"values": {"auroc": 0.5, "curve": {10: 1.0, 9: 2.0}}}
    check_record(json.loads(event(schema.COMPLETED, body).encode()))
