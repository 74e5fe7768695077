"""A record's JSON: NLST names and codes, nothing else."""

import json

import pytest

from namd.config.errors import InputError
from namd.data.ehr import read_record
from namd.data.schema import EHR_FEATURES


def write(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_known_values_are_read_and_the_others_listed(tmp_path):
    content = {"age": 64, "gender": 2, "SCT_LONG_DIA": 8.5, "SCT_PRE_ATT": None, "SCT_MARGINS": 9}
    record = read_record(write(tmp_path, content))
    assert record.values == {"age": 64.0, "gender": 2.0, "SCT_LONG_DIA": 8.5}
    assert record.missing == tuple(name for name in EHR_FEATURES if name not in record.values)
    assert read_record(write(tmp_path, {})).missing == EHR_FEATURES


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"Age": 64}, "Age is no feature.*did you mean age"),
        ({"PatientName": "x"}, "no feature of the record"),
        ({"gender": 3}, "gender = 3 is no NLST code; known are 1 male, 2 female"),
        ({"SCT_PRE_ATT": 5}, "no NLST code"),
        ({"diagemph": 9}, "no NLST code"),
        ({"age": 640}, "not within"),
        ({"age": "64"}, "no number"),
        ({"famchild": True}, "no number"),
        ([64], "no JSON object"),
        ("{", "not JSON"),
    ],
)
def test_anything_else_is_refused(tmp_path, content, reason):
    with pytest.raises(InputError, match=reason):
        read_record(write(tmp_path, content))
    assert read_record(write(tmp_path, {"age": 64, "gender": 1})).values["age"] == 64


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_record(tmp_path / "absent.json")
