"""A value that configurations lacked once enters an identity only if it was changed."""

from dataclasses import dataclass, field

from namd.config.parsing import LATER, identity_mapping, is_unchanged, to_mapping


@dataclass(frozen=True)
class Inner:
    old: int = 1
    new: str | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class NewSection:
    one: int = field(default=1, metadata=LATER)
    two: tuple[int, ...] = field(default=(), metadata=LATER)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    section: NewSection = field(default_factory=NewSection, metadata=LATER)
    plain: float = 0.0


def test_at_their_defaults_they_are_left_out():
    assert identity_mapping(Outer()) == {"inner": {"old": 1}, "plain": 0.0}
    assert to_mapping(Outer())["section"] == {"one": 1, "two": []}


def test_what_was_changed_is_in():
    changed = Outer(Inner(new="x"), NewSection(one=2))
    assert identity_mapping(changed) == {
        "inner": {"old": 1, "new": "x"},
        "section": {"one": 2},
        "plain": 0.0,
    }


def test_an_older_field_is_in_even_at_its_default():
    assert identity_mapping(Inner()) == {"old": 1}
    assert identity_mapping(Inner(old=2)) == {"old": 2}


def test_a_section_of_new_fields_alone_is_unchanged_until_one_is():
    assert is_unchanged(NewSection())
    assert not is_unchanged(NewSection(two=(1,)))
    assert not is_unchanged(Inner())
    assert not is_unchanged({})
