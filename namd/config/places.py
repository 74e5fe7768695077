"""Folders, files and URLs as people write them; what lies there is for others to find out."""

from pathlib import Path

from namd.config.errors import InputError, shown


def local_path(text: str | Path) -> Path:
    """Return a path with `~` and `~user` expanded.

    The one place where that is done: every path that a person gives, on the command line, in the
    environment or in a file, comes through here or through `place`.

    Raises InputError if there is no such home folder, or the text can be no path.
    """
    if "\0" in str(text):
        raise InputError(f"{shown(str(text))}: no path holds a NUL character; leave it out")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{shown(str(text))}: the home folder is not known; write the folder out"
        ) from error


def place(text: str) -> str:
    """Return a text with `~` expanded if it is a folder; a URL or a name stays as it is."""
    return str(local_path(text)) if text.startswith("~") else text
