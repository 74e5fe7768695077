"""Nested mappings as one mapping of their leaves."""

from namd.config.flattening import flat


def test_leaves_have_dotted_names():
    nested = {"a": {"b": 1, "c": {"d": None}}, "e": [1, {"f": 2}], "g": {}}
    assert flat(nested) == {"a.b": 1, "a.c.d": None, "e": [1, {"f": 2}]}
    assert flat(nested, "x.") == {"x.a.b": 1, "x.a.c.d": None, "x.e": [1, {"f": 2}]}
    assert flat(nested, lists=True) == {"a.b": 1, "a.c.d": None, "e.0": 1, "e.1.f": 2}
