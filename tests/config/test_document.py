import pytest

from namd.config.document import parse_yaml, read_yaml_mapping
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
    with pytest.raises(InputError):
        read_yaml_mapping(tmp_path)
