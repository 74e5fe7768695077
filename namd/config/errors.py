"""Errors that the user can fix; failures of the program do not belong here."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager

MAXIMUM_VALUE = 120
MAXIMUM_MESSAGE = 1000
"""Characters of a value in a message, and of a whole message: a few lines of a terminal."""

_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F}
"""Characters that reorder their neighbours on a terminal."""


class InputError(Exception):
    """What the user gave cannot be used. The message is one line: path, value, way out.

    Its text is safe to print: control characters are escaped and a long message is cut.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(InputError):
    """A configuration value is unknown, of the wrong type, or impossible."""


def is_control(character: str) -> bool:
    """Return whether a character can change a terminal, or is no character at all.

    These are the control characters, lone surrogates and those that reorder text. Tabs and line
    breaks count: `escaped` lets them stand where they may.
    """
    code = ord(character)
    return (
        code < 0x20
        or 0x7F <= code < 0xA0
        or 0xD800 <= code < 0xE000
        or code in (0x2028, 0x2029)
        or code in _BIDI
    )


def escaped(text: str, keep: str = "\n\t") -> str:
    """Return a text whose control characters are written as Python writes them in a literal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if is_control(character) and character not in keep
        else character
        for character in text
    )


def one_line(message: str, limit: int = MAXIMUM_MESSAGE) -> str:
    """Return a message on one line, escaped; the middle of a long one is left out."""
    line = escaped(" ".join(message.split()))
    if len(line) <= limit:
        return line
    tail = limit // 4
    return f"{line[: limit - tail - 5]} ... {line[-tail:]}"


def shown(value: object, limit: int = MAXIMUM_VALUE) -> str:
    """Return a value for a message: its `repr`, of which a long or deep one is cut."""
    return one_line(_SHORT.repr(value), limit)


def plain_text(text: str) -> str:
    """Return a text that people may be shown and files may hold: no control characters in it.

    Also the type of a text on the command line, where bytes that are no UTF-8 come as surrogates.
    Raises InputError naming the first one.
    """
    wrong = next((c for c in text if is_control(c) and c not in "\n\t"), None)
    if wrong is not None:
        raise InputError(
            f"{shown(text)} holds the control character {escaped(wrong)}; leave it out"
        )
    return text


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 4, 80, 80, 60
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxfrozenset = 8


@contextmanager
def about(source: str) -> Iterator[None]:
    """Put the name of a file, or of what else was read, before what is wrong in it.

    Only ConfigError is about the file's contents; other errors pass unchanged.
    """
    try:
        yield
    except ConfigError as error:
        if str(error).startswith(f"{source}: "):
            raise
        raise ConfigError(f"{source}: {error}") from error


class StageError(Exception):
    """A stage stopped for a reason it can name in one line, such as a loss that is not finite."""


class NotFiniteError(StageError):
    """A loss or metric is not finite: building it again would end the same way."""


class UndeclaredError(StageError):
    """A stage's body reads what its stage does not declare and its key therefore does not hold."""
