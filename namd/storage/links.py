"""Giving a finished file its name, once or again, on a local disk or over NFS.

Over NFS the server may execute a request and lose its reply. The client then repeats the request
and reports an error for something that succeeded, so every error is checked against the
actual files.
"""

import os
from pathlib import Path


def link_if_absent(source: Path, target: Path) -> bool:
    """Give a file a second name unless that name is taken; return whether the name is ours.

    Raises OSError if the name was not given for another reason.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if _is_linked(source, target):
            return True
        if isinstance(error, FileExistsError):
            return False
        raise
    return True


def rename_over(source: Path, target: Path) -> None:
    """Move a file to a name, taken or not. Raises OSError if it did not move."""
    moved = source.stat()
    try:
        source.replace(target)
    except OSError:
        if not _is_same(moved, target):
            raise


def _is_linked(source: Path, target: Path) -> bool:
    """Return whether `target` is `source`, asking the server rather than the attribute cache."""
    try:
        with source.open("rb") as stream:
            own = os.fstat(stream.fileno())
    except OSError:
        return False
    return own.st_nlink > 1 or _is_same(own, target)


def _is_same(own: os.stat_result, target: Path) -> bool:
    try:
        with target.open("rb") as stream:
            return os.path.samestat(own, os.fstat(stream.fileno()))
    except OSError:
        return False
