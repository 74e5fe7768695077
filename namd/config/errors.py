"""Errors that are the user's to mend belong here; failures of the program do not."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """What the user gave cannot be used. The message is one line: path, value, way out."""


class ConfigError(InputError):
    """A configuration value is unknown, of the wrong type, or impossible."""


@contextmanager
def about(source: str) -> Iterator[None]:
    """Put the name of a file, or of what else was read, before what is wrong in it.

    Only ConfigError is about what was read; other mistakes keep their own words.
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
