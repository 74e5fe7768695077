"""Folders, files and URLs as users write them; what they contain is not checked here."""

import os
from pathlib import Path

from namd.config.errors import InputError, shown

MAXIMUM_PART = 255
MAXIMUM_PATH = 4000
"""Limits of Linux's file systems, a little room left for what is put under a folder."""


def local_path(text: str | Path) -> Path:
    """Return a path with `~` and `~user` expanded.

    The one place where that is done: every path that a person gives, on the command line, in the
    environment or in a file, comes through here or through `place`.

    Raises InputError if there is no such home folder, or the text can be no path.
    """
    _require_path(str(text))
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{shown(str(text))}: the home folder is not known; write the folder out"
        ) from error


def place(text: str) -> str:
    """Return a text with `~` expanded if it is a folder; a URL or a name stays as it is."""
    if "://" in text:
        return text
    if text.startswith("~"):
        return str(local_path(text))
    _require_path(text)
    return text


def _require_path(text: str) -> None:
    """Refuse what every look at the disk would trip over. Raises InputError."""
    if "\0" in text:
        raise InputError(f"{shown(text)}: no path holds a NUL character; leave it out")
    longest = max(len(os.fsencode(part)) for part in text.split("/"))
    if longest > MAXIMUM_PART or len(text) > MAXIMUM_PATH:
        raise InputError(
            f"{shown(text)}: a path has at most {MAXIMUM_PATH} characters, each name in it at most "
            f"{MAXIMUM_PART} bytes; shorten it"
        )
