"""A run's record is read as it was written, or refused in one line."""

import json

import pytest

from namd.storage.local import LocalStorage
from namd.storage.run_records import RunDamaged, encode_run, parse_run, read_run, run_place

KEY = "ab" * 32
RECORD = {"method": "toy", "config": {}, "stages": [{"name": "vae", "key": KEY}], "rows": []}


@pytest.fixture
def storage(tmp_path) -> LocalStorage:
    return LocalStorage(tmp_path)


def test_a_record_is_read_as_it_was_written_and_one_without_a_digest_too(storage):
    assert read_run(storage, KEY) is None
    storage.replace(run_place(KEY), encode_run(RECORD))
    assert read_run(storage, KEY) == RECORD
    assert parse_run(json.dumps(RECORD).encode()) == RECORD


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"{", "is unreadable"),
        (b"[]", "holds no JSON object"),
        (encode_run(RECORD).replace(b"toy", b"joy"), "has changed since it was written"),
        (b'{"method": "toy", "config": {}}', "lacks stages"),
        (encode_run({**RECORD, "stages": [1]}), "has a stage without name and key"),
    ],
)
def test_another_record_is_refused_with_its_place_and_the_way_out(storage, raw, problem):
    storage.replace(run_place(KEY), raw)
    with pytest.raises(
        RunDamaged, match=f"runs/{KEY}/run.json {problem}; `namd store rm runs/abab"
    ):
        read_run(storage, KEY)


def test_a_folder_in_place_of_a_record_is_refused(storage, tmp_path):
    (tmp_path / run_place(KEY)).mkdir(parents=True)
    with pytest.raises(RunDamaged, match="is a folder"):
        read_run(storage, KEY)


def test_what_json_cannot_hold_is_not_written():
    with pytest.raises(ValueError, match="JSON"):
        encode_run({**RECORD, "rows": [{"auroc": float("nan")}]})
