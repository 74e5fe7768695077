"""Random records print every clause, leave out any, and are NLST codes."""

import itertools

from namd.config.seeding import generator
from namd.data.records import RandomRecords, family_history
from namd.data.report import report_text
from namd.data.schema import CODES, EHR_FEATURES, FAMILY_FEATURES


def drawn(count=2000, **ranges):
    rng, records = generator("test-records", 0), RandomRecords(**ranges)
    return [records.draw(rng) for _ in range(count)]


def test_every_value_occurs_and_every_clause_goes_missing():
    records = drawn()
    for name in EHR_FEATURES:
        values = {record.get(name) for record in records}
        assert None in values
        assert set(CODES.get(name, ())) <= values
    assert {family_history(record) for record in records} == {None, 0, 1}
    ages = {record["age"] for record in records if "age" in record}
    assert (min(ages), max(ages)) == RandomRecords().age_years


def test_nothing_is_missing_where_nothing_may_be():
    assert all(set(record) == set(EHR_FEATURES) for record in drawn(50, missing=0.0))


def test_records_follow_their_generator():
    assert drawn(20) == drawn(20)
    assert len({report_text(record) for record in drawn(50)}) > 45


def test_perpendicular_diameter_is_no_longer_than_the_longest():
    records = drawn(500, missing=0.0)
    assert all(record["SCT_PERP_DIA"] <= record["SCT_LONG_DIA"] for record in records)


def test_family_history_is_what_the_report_says():
    for flags in itertools.product((None, 0, 1), repeat=len(FAMILY_FEATURES)):
        pairs = zip(FAMILY_FEATURES, flags, strict=True)
        record = {name: flag for name, flag in pairs if flag is not None}
        text = report_text(record)
        said = 0 if "no family history" in text else 1 if "family history" in text else None
        assert family_history(record) == said
