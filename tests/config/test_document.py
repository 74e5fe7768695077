import math
from pathlib import Path

import pytest

from namd.config.document import parse_yaml, read_json_mapping, read_yaml_mapping
from namd.config.errors import ConfigError, InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("5E3", 5000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("no", "no"),
        ("off", "off"),
        ("1:30", "1:30"),
        ("010", 10),
        ("12", 12),
        ("-3", -3),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("a: {b: [1, 2.5, x]}", {"a": {"b": [1, 2.5, "x"]}}),
        ("a:", {"a": None}),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_scalars_follow_the_core_schema(text, value):
    parsed = parse_yaml(text, "test")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: 1\na: 2", "twice"),
        ("1: a", "not a string"),
        ("a: [1", "line"),
        ("!!python/object/apply:os.system [true]", "python"),
    ],
)
def test_a_bad_document_is_refused_naming_its_source(text, word):
    with pytest.raises(ConfigError, match=word) as refused:
        parse_yaml(text, "some.yaml")
    assert "some.yaml" in str(refused.value)


def bomb(depth: int, width: int = 9) -> str:
    """A list whose every level repeats the one below by aliases."""
    text = "&a0 [x" + ", x" * (width - 1) + "]"
    for level in range(1, depth):
        text = f"&a{level} [{text}" + f", *a{level - 1}" * (width - 1) + "]"
    return f"name: {text}"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (bomb(10), "more than 20,000 values"),
        (bomb(6), "more than 20,000 values"),
        ("a: &t " + "y" * 90_000 + "\nb: [" + "*t, " * 100 + "*t]", "more than 20,000 values"),
        ("a: [" + "1, " * 30_000 + "1]", "more than 20,000 values"),
        ("a: " + "[" * 100 + "]" * 100, "more than 40 levels"),
        ("a: " + "[" * 5000, "more than 40 levels"),
        ("a: &a [*a]", "inside what it stands for"),
        ("a: " + "x" * 300_000, "256 KiB"),
        ("a: " + "9" * 400, "too large"),
        ("a: " + "9" * 9000, "too large"),
        ("a: -9223372036854775808", "too large"),
        ("a: !!bool maybe", "'maybe' is not true or false"),
        ("a: !!int 0x1", "not a whole number"),
        ("a: !!float one", "not a number"),
        ("a: !!null 0", "not null"),
        ("a: !!timestamp x", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("a: !!set {x, y}", "tag"),
        ("a: !mine x", "tag"),
        ("a: !!bool [true]", "scalar"),
        ('a: "s\\0b"', r"control character \\x00"),
        ('a: "\\ud800"', r"control character \\ud800"),
        ('a: "\\e[31m"', r"control character \\x1b"),
        ('a: "x\\ry"', r"control character \\r"),
        ('"\\e": 1', r"control character \\x1b"),
        ("a: \x1b[31m", r"control character \\x1b"),
        ("b: 1\na: \ud800", r"control character \\ud800"),
        ('a: "\\u202e"', r"control character \\u202e"),
        ("a: &x {b: 1}\nc: {<<: *x}", "merge keys"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a:\n\t- 1", "line 2"),
        ("? [a, b]\n: 1", "not a string"),
        ("true: 1", "not a string"),
        ("a: *gone", "gone"),
    ],
)
def test_a_document_beyond_its_bounds_is_one_short_line(text, word):
    with pytest.raises(ConfigError, match=word) as refused:
        parse_yaml(text, "some.yaml")
    found = str(refused.value)
    assert found.startswith("some.yaml: ")
    assert len(found) < 300
    assert found.isprintable()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (bomb(3), {"name": [[["x"] * 9] * 9] * 9}),
        ("a: [" + "1, " * 15_000 + "1]", {"a": [1] * 15_001}),
        ("a: " + "[" * 30 + "]" * 30, None),
        ("a: &t text\nb: [*t, *t]", {"a": "text", "b": ["text", "text"]}),
        ("a: " + "x" * 200_000, {"a": "x" * 200_000}),
        ("a: 9223372036854775807", {"a": 2**63 - 1}),
        ("a: 000000000000000000000000000007", {"a": 7}),
        ("a: !!bool True", {"a": True}),
        ("a: !!float 1", {"a": 1.0}),
        ("a: -.inf", {"a": float("-inf")}),
        ("a: !!str 010", {"a": "010"}),
        ('a: "tab\\tline\\nend"', {"a": "tab\tline\nend"}),
        ("a: größer ≤ 𝒙", {"a": "größer ≤ 𝒙"}),
        ("\ufeffa: 1", {"a": 1}),
        ("on: {yes: off}", {"on": {"yes": "off"}}),
        ("---\na: 1\n...\n", {"a": 1}),
    ],
)
def test_a_document_within_its_bounds_is_read(text, value):
    parsed = parse_yaml(text, "some.yaml")
    assert parsed == value or value is None


def test_not_a_number_is_read_and_left_to_its_reader():
    assert math.isnan(parse_yaml("a: .nan", "some.yaml")["a"])


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b'{"a": 1, "a": 2}', "given twice"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deep"),
        (b'{"a": ' + b"9" * 9000 + b"}", "not JSON"),
        (b"[1]", "list"),
        (b"{", "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b'{"a": ["\\ud800"]}', "lone surrogate"),
        (b'{"\\udfff": 1}', "lone surrogate"),
        (b" " * 2000 + b"{}", "larger than"),
    ],
)
def test_a_json_object_is_refused_with_its_file(content, word, tmp_path):
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=word) as refused:
        read_json_mapping(path, 1000 if content.startswith(b"  ") else 1 << 20)
    assert str(refused.value).startswith(f"{path}: ")
    assert len(str(refused.value)) < 400
    path.write_bytes(b'{"a": [1, {"a": "\\ud835\\udc00"}]}')
    assert read_json_mapping(path) == {"a": [1, {"a": "\U0001d400"}]}


def test_files(tmp_path):
    (tmp_path / "good.yaml").write_text("a: 1\n")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert read_yaml_mapping(tmp_path / "good.yaml") == {"a": 1}
    assert read_yaml_mapping(tmp_path / "empty.yaml") == {}
    for name in ("list.yaml", "bytes.yaml", "absent.yaml"):
        with pytest.raises(InputError, match=name):
            read_yaml_mapping(tmp_path / name)
    (tmp_path / "utf16.yaml").write_bytes("a: 1".encode("utf-16"))
    with pytest.raises(InputError, match="save it as UTF-8"):
        read_yaml_mapping(tmp_path / "utf16.yaml")
    with pytest.raises(InputError, match="larger than"):
        read_yaml_mapping(Path("/dev/zero"))
    with pytest.raises(InputError):
        read_yaml_mapping(tmp_path)
