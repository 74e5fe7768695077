import pytest

from namd.config.errors import (
    MAXIMUM_MESSAGE,
    MAXIMUM_VALUE,
    InputError,
    escaped,
    one_line,
    shown,
)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 100_000,
        10**4000,
        [[0] * 1000] * 1000,
        {str(n): [n] * 50 for n in range(1000)},
        [[[[[[[[["deep"]]]]]]]]],
        "\x1b[31m" * 100,
    ],
)
def test_a_long_value_is_cut_in_a_message(value):
    assert len(shown(value)) <= MAXIMUM_VALUE
    assert shown(value).isprintable()


@pytest.mark.parametrize("value", ["word", 12, 0.5, None, True, [1, 2.5, "x"], {"a": {"b": 1}}, ()])
def test_a_short_value_is_shown_as_it_is(value):
    assert shown(value) == repr(value)


@pytest.mark.parametrize("character", ["\x1b", "\0", "\x7f", "\x9b", "\ud800", "\u202e", "\r"])
def test_what_moves_a_terminal_is_escaped(character):
    assert escaped(f"a{character}b").isprintable()
    assert character not in escaped(f"a{character}b")


@pytest.mark.parametrize("text", ["plain", "two\nlines\tand a tab", "größer ≤ 𝒙", "  ", ""])
def test_what_people_write_stays_as_it_is(text):
    assert escaped(text) == text


def test_an_error_keeps_its_beginning_and_its_way_out():
    found = str(InputError(f"study.yaml: name: {'x' * 100_000}; use at most 100 characters"))
    assert len(found) <= MAXIMUM_MESSAGE
    assert found.startswith("study.yaml: name: x")
    assert found.endswith("; use at most 100 characters")
    assert str(InputError("a short\n one")) == "a short one"
    assert one_line("a short one") == "a short one"
