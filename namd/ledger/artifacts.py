"""What the COMMIT of a published artifact says, and whether bytes read are those published.

The store publishes artifacts and removes them; here they are only read.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from namd.config.errors import InputError
from namd.storage.base import Storage

COMMIT = "COMMIT"
_DIGITS = frozenset("0123456789abcdef")


class CommitUnreadable(ValueError):  # noqa: N818 - says what is the case
    """A COMMIT that no store wrote like this."""


@dataclass(frozen=True)
class Commit:
    """Which attempt at a key was published, and what its files held.

    Attributes:
        attempt: Name of the attempt.
        files: `sha256` and `size` of every file, by its place in the attempt's folder.
    """

    attempt: str
    files: Mapping[str, Mapping[str, Any]]

    def problem(self, place: str, data: bytes) -> str | None:
        """Return what is wrong with the bytes of a file, or None if they were published."""
        entry = self.files.get(place)
        if entry is None:
            return f"{place} is not among the published files"
        if len(data) != entry["size"]:
            return f"{place} is missing or cut short"
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            return f"{place} has changed"
        return None


def parse_commit(raw: bytes) -> Commit:
    """Read a COMMIT. Raises CommitUnreadable."""
    try:
        told = json.loads(raw)
        commit = Commit(told["attempt"], told["files"])
        sound = isinstance(commit.attempt, str) and commit.attempt and "/" not in commit.attempt
        sound = sound and all(_is_entry(entry) for entry in commit.files.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CommitUnreadable("COMMIT is unreadable") from error
    if not sound:
        raise CommitUnreadable("COMMIT is unreadable")
    return commit


def damage(store: str, stage: str, key: str, problem: str) -> str:
    """Return the line that names a damaged artifact and the command that lets it be rebuilt."""
    place = f"{stage}/{key[:12]}"
    return (
        f"store {store}: {place} is damaged ({problem}); "
        f"`namd store rm {place} --store {store}` lets it be built again"
    )


def read_commit(storage: Storage, stage: str, key: str) -> Commit | None:
    """Return what a key's COMMIT says; None if nothing is published. Raises InputError."""
    try:
        return parse_commit(storage.read(f"{stage}/{key}/{COMMIT}"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (CommitUnreadable, IsADirectoryError) as error:
        raise InputError(damage(storage.root, stage, key, f"{COMMIT} is unreadable")) from error


def read_artifact(
    storage: Storage, stage: str, key: str, place: str, *, optional: bool = False
) -> bytes | None:
    """Return a file of a published artifact; None if the artifact is not in the store.

    Args:
        storage: Where the store lies.
        stage: Name of the stage, without a draw's index.
        key: The artifact's key.
        place: The file's place in the attempt's folder.
        optional: Also return None if the artifact was published without this file.

    Raises:
        InputError: The artifact is damaged.
    """
    folder = f"{stage}/{key}"
    commit = read_commit(storage, stage, key)
    if commit is None or (optional and place not in commit.files):
        return None
    try:
        data = storage.read(f"{folder}/attempts/{commit.attempt}/{place}")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        if COMMIT not in storage.names(folder):
            return None  # removed between the two looks
        data = b""
    problem = commit.problem(place, data)
    if problem is not None:
        raise InputError(damage(storage.root, stage, key, problem))
    return data


def _is_entry(entry: Mapping[str, Any]) -> bool:
    digest, size = entry["sha256"], entry["size"]
    is_digest = isinstance(digest, str) and len(digest) == 64 and _DIGITS.issuperset(digest)
    return is_digest and isinstance(size, int) and not isinstance(size, bool) and size >= 0
