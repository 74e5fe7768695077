"""The layout of artifacts: the paths, contents and integrity of their files.

`<stage>/<key>/COMMIT` names the published attempt under `attempts/` and the digest of every
file in it: a manifest, metrics, and a payload. The store publishes artifacts and removes them;
this module only reads them, and needs only the storage.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from namd.storage.base import Storage
from namd.storage.errors import StoreError

STORE_FILE = "store.json"
COMMIT = "COMMIT"
ATTEMPTS = "attempts"
CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
PAYLOAD = "payload"
NOT_STAGES = frozenset({"runs", "cache", "cohorts", "studies"})
_DIGITS = frozenset("0123456789abcdef")


class CommitUnreadable(ValueError):  # noqa: N818 - says what is the case
    """A COMMIT is not what a store writes."""


class Damaged(StoreError):  # noqa: N818 - says what is the case
    """An artifact is not what was published."""


@dataclass(frozen=True)
class Commit:
    """The published attempt at a key, and the digests of its files.

    Attributes:
        attempt: Name of the attempt.
        files: `sha256` and `size` of every file, by its path in the attempt's folder.
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


def require_stage_name(stage: str) -> None:
    """Refuse a stage whose name the store uses itself. Raises ValueError."""
    if stage in NOT_STAGES or "." in stage or "/" in stage:
        raise ValueError(f"a stage cannot be called {stage!r}: the store uses such names itself")


def key_folder(stage: str, key: str) -> str:
    """Return the folder of a key in the store. Raises ValueError for an invalid stage name."""
    require_stage_name(stage)
    return f"{stage}/{key}"


def attempt_folder(stage: str, key: str, attempt: str) -> str:
    """Return the folder of an attempt in the store."""
    return f"{stage}/{key}/{ATTEMPTS}/{attempt}"


def encode_commit(commit: Commit) -> bytes:
    """Return the bytes of a COMMIT."""
    record = {"attempt": commit.attempt, "files": commit.files}
    return json.dumps(record, indent=1, sort_keys=True).encode()


def parse_manifest(data: bytes) -> dict[str, Any]:
    """Return a manifest's contents. Raises ValueError."""
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{MANIFEST} is unreadable") from error


def parse_metrics(data: bytes) -> list[dict[str, Any]]:
    """Return a stage's metrics: one mapping per step. Raises ValueError."""
    try:
        return [dict(json.loads(line)) for line in data.decode("utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{METRICS} is unreadable") from error


def parse_commit(raw: bytes) -> Commit:
    """Read a COMMIT. Raises CommitUnreadable."""
    try:
        record = json.loads(raw)
        commit = Commit(record["attempt"], record["files"])
        sound = isinstance(commit.attempt, str) and commit.attempt and "/" not in commit.attempt
        sound = sound and all(_is_entry(entry) for entry in commit.files.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CommitUnreadable("COMMIT is unreadable") from error
    if not sound:
        raise CommitUnreadable("COMMIT is unreadable")
    return commit


def damaged(store: str, stage: str, key: str, problem: str) -> Damaged:
    """Return the error that names a damaged artifact and the command before it can be rebuilt."""
    place = f"{stage}/{key[:12]}"
    return Damaged(
        f"store {store}: {place} is damaged ({problem}); "
        f"`namd store rm {place} --store {store}` removes it so that it is built again"
    )


def read_commit(storage: Storage, stage: str, key: str) -> Commit | None:
    """Return a key's COMMIT; None if nothing is published. Raises Damaged."""
    try:
        return parse_commit(storage.read(f"{stage}/{key}/{COMMIT}"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (CommitUnreadable, IsADirectoryError) as error:
        raise damaged(storage.root, stage, key, f"{COMMIT} is unreadable") from error


def read_artifact(
    storage: Storage, stage: str, key: str, place: str, *, optional: bool = False
) -> bytes | None:
    """Return a file of a published artifact; None if the artifact is not in the store.

    Args:
        storage: The store's storage.
        stage: Name of the stage, without a draw's index.
        key: The artifact's key.
        place: The file's path in the attempt's folder.
        optional: Also return None if the artifact was published without this file.

    Raises:
        Damaged: The artifact is damaged.
    """
    commit = read_commit(storage, stage, key)
    if commit is None or (optional and place not in commit.files):
        return None
    try:
        data = storage.read(f"{attempt_folder(stage, key, commit.attempt)}/{place}")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        if COMMIT not in storage.names(f"{stage}/{key}"):
            return None  # removed between the two reads
        data = b""
    problem = commit.problem(place, data)
    if problem is not None:
        raise damaged(storage.root, stage, key, problem)
    return data


def read_payload(
    storage: Storage, stage: str, key: str, name: str, *, optional: bool = False
) -> bytes | None:
    """Return a payload file; see `read_artifact`."""
    return read_artifact(storage, stage, key, f"{PAYLOAD}/{name}", optional=optional)


def read_manifest(storage: Storage, stage: str, key: str) -> dict[str, Any] | None:
    """Return a published artifact's manifest; None if it is not in the store. Raises Damaged."""
    data = read_artifact(storage, stage, key, MANIFEST)
    try:
        return None if data is None else parse_manifest(data)
    except ValueError as error:
        raise damaged(storage.root, stage, key, str(error)) from error


def read_metrics(storage: Storage, stage: str, key: str) -> list[dict[str, Any]]:
    """Return a published artifact's metrics; [] if there are none. Raises Damaged."""
    data = read_artifact(storage, stage, key, METRICS, optional=True)
    try:
        return parse_metrics(data or b"")
    except ValueError as error:
        raise damaged(storage.root, stage, key, str(error)) from error


def _is_entry(entry: Mapping[str, Any]) -> bool:
    digest, size = entry["sha256"], entry["size"]
    is_digest = isinstance(digest, str) and len(digest) == 64 and _DIGITS.issuperset(digest)
    return is_digest and isinstance(size, int) and not isinstance(size, bool) and size >= 0
