"""A record's JSON: NLST names and codes, nothing else."""

import json
from pathlib import Path

import pytest

from namd.config.errors import InputError
from namd.data.ehr import read_record
from namd.data.schema import EHR_FEATURES


def write(tmp_path, content):
    path = tmp_path / "record.json"
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
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
        ('{"age": NaN}', "age is no number, or none that is finite"),
        ('{"age": -Infinity}', "none that is finite"),
        ('{"age": 1e999}', "none that is finite"),
        (f'{{"age": {"9" * 400}}}', "none that is finite"),
        (f'{{"age": -{"9" * 5000}}}', "none that is finite"),
        (f'{{"gender": {"9" * 400}}}', "none that is finite"),
        (f'{{"age": 0.{"0" * 400}1e500}}', "not within 0...120"),
        ({"age": [64]}, "no number"),
        ({"age": {"years": 64}}, "no number"),
        ('{"age": 64, "gender": 1, "age": 65}', "age stands there twice"),
        ({"SCT_LONG_DIA": 5, "SCT_PERP_DIA": 6}, "SCT_PERP_DIA is above SCT_LONG_DIA"),
        ("[" * 60_000, "nested too deeply|not JSON"),
        ('{"age": ' + "[" * 50_000 + "]" * 10_000, "nested too deeply|not JSON"),
        ("null", "no JSON object"),
        ('"age"', "no JSON object"),
        ("[]", "no JSON object"),
        ("", "not JSON from line 1, column 1"),
        ('{"age": 64}\n{"age": 65}', "not JSON from line 2, column 1"),
        ('{"age": 64,}', "not JSON"),
        ("{'age': 64}", "not JSON"),
        ('{"age": 64\0}', "not JSON"),
        ('{"age": 64}'.encode("utf-16"), "not UTF-8 text"),
        ('{"\u00e4ge": 64}'.encode("latin-1"), "not UTF-8 text"),
        (" " * 100_000 + '{"age": 64}', "larger than 64 KiB"),
        ({"x" * 5000: 1}, "xxx\\.\\.\\. is no feature"),
        ({"\x1b[31mage\n": 1}, r"\\u001b\[31mage\\n\" is no feature"),
        ('{"\\ud800": 1}', r"\\ud800\" is no feature"),
        ({"": 1}, '"" is no feature'),
        ([64], "no JSON object"),
        ("{", "not JSON"),
    ],
)
def test_anything_else_is_refused(tmp_path, content, reason):
    with pytest.raises(InputError, match=reason) as refused:
        read_record(write(tmp_path, content))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400 + len(str(tmp_path))
    assert read_record(write(tmp_path, {"age": 64, "gender": 1})).values["age"] == 64


@pytest.mark.parametrize(
    "content",
    [
        '{"age": 64, "gender": 1}',
        '{"age": 6.4e1, "gender": 1.0}',
        b'\xef\xbb\xbf{"age": 64, "gender": 1}',
        ' \r\n{"gender": 1,\t"age": 64, "famchild": null}\n' + " " * 50_000,
    ],
    ids=["plain", "as floats", "with a byte order mark", "with space"],
)
def test_one_record_may_be_written_in_several_ways(tmp_path, content):
    assert read_record(write(tmp_path, content)).values == {"age": 64.0, "gender": 1.0}


def test_diameters_may_be_equal_or_alone(tmp_path):
    for content in ({"SCT_LONG_DIA": 5, "SCT_PERP_DIA": 5}, {"SCT_PERP_DIA": 5}):
        assert read_record(write(tmp_path, content)).values == content


def test_a_zero_is_no_other_zero_for_its_sign(tmp_path):
    assert str(read_record(write(tmp_path, '{"diagemph": -0.0}')).values["diagemph"]) == "0.0"


def test_what_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read .Is a directory"):
        read_record(tmp_path)
    with pytest.raises(InputError, match="larger than"):
        read_record(Path("/dev/zero"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_record(tmp_path / "absent.json")
