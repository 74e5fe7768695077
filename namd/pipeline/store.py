"""Artifacts on disk: found, filled, published once, verified, removed. Not who builds them.

The layout is that of `namd.storage.artifacts`; beside COMMIT, until there is one, lie leases,
heartbeats and `checkpoints/`.
"""

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namd.config.fingerprint import file_digest
from namd.pipeline.digests import DigestCache
from namd.pipeline.leases import Leases
from namd.pipeline.verification import first_problem, known_digest
from namd.storage.artifacts import (
    ATTEMPTS,
    CHECKPOINTS,
    COMMIT,
    MANIFEST,
    METRICS,
    NOT_STAGES,
    PAYLOAD,
    STORE_FILE,
    Commit,
    Damaged,
    attempt_folder,
    damaged,
    encode_commit,
    key_folder,
    parse_manifest,
    parse_metrics,
    read_commit,
    read_manifest,
    require_stage_name,
)
from namd.storage.backend import Backend
from namd.storage.base import Storage, probe
from namd.storage.errors import StoreError
from namd.storage.lease import LeaseTiming
from namd.storage.opening import open_storage
from namd.storage.run_records import read_run

STORE_SCHEMA = 1


@dataclass(frozen=True)
class Artifact:
    """What a stage left: published, immutable.

    Attributes:
        stage: Name of the stage.
        key: Its key.
        folder: Local folder of the attempt that counts.
        files: SHA-256 and size of every file, by its place in the folder.
        store: Name of its store, for messages.
    """

    stage: str
    key: str
    folder: Path
    files: Mapping[str, Mapping[str, Any]]
    store: str = ""

    @property
    def payload(self) -> Path:
        """The folder that the stage's body filled."""
        return self.folder / PAYLOAD

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(int(entry["size"]) for entry in self.files.values())

    def manifest(self) -> dict[str, Any]:
        """Return everything that was recorded about how it was made. Raises Damaged."""
        try:
            return parse_manifest(self._read(MANIFEST))
        except ValueError as error:
            raise self._damaged(str(error)) from error

    def metrics(self) -> list[dict[str, Any]]:
        """Return what the body measured: one mapping per step, with its `index`.

        Raises Damaged.
        """
        try:
            return parse_metrics(self._read(METRICS))
        except ValueError as error:
            raise self._damaged(str(error)) from error

    def _read(self, place: str) -> bytes:
        try:
            data = (self.folder / place).read_bytes()
        except OSError:
            data = b""
        problem = Commit("", self.files).problem(place, data)
        if problem is not None:
            raise self._damaged(problem)
        return data

    def _damaged(self, problem: str) -> Damaged:
        return damaged(self.store, self.stage, self.key, problem)


@dataclass(frozen=True)
class Attempt:
    """A folder being filled for a key; it is not read before it is published."""

    stage: str
    key: str
    name: str
    folder: Path

    @property
    def payload(self) -> Path:
        """The folder for the stage's body to fill."""
        return self.folder / PAYLOAD


@dataclass(frozen=True)
class Entry:
    """A key as a listing shows it: published or not."""

    stage: str
    key: str
    committed: bool
    held: bool


class Store:
    """A store of artifacts on a storage that has passed the probe, or is only looked into.

    Attributes:
        backend: Where it lies.
        leases: Who builds what.
        read_only: Whether nothing is written, not even what would save time later.
        is_empty: Whether it is not there yet.
    """

    def __init__(
        self,
        storage: Storage,
        timing: LeaseTiming | None = None,
        *,
        read_only: bool = False,
        is_empty: bool = False,
    ) -> None:
        self.backend = Backend(storage)
        self.leases = Leases(self.backend, timing)
        self.read_only = read_only
        self.is_empty = is_empty
        self._unsure: set[str] = set()

    def find(self, stage: str, key: str, *, digests: bool = True) -> Artifact | None:
        """Return the published artifact of a key, or None.

        A local copy that is damaged is fetched again.

        Args:
            stage: Name of the stage.
            key: The key.
            digests: Whether to compare the digest of every file that this process has not read
                yet; False for listings, which read no payload.

        Raises:
            Damaged: A file is missing, or not what was published.
        """
        commit = self.commit(stage, key)
        if commit is None:
            return None
        place = attempt_folder(stage, key, commit.attempt)
        local = self.backend.fetch(place)
        problem = first_problem(local, commit.files, digests=digests)
        if problem is not None and self.backend.renew(place):
            problem = first_problem(local, commit.files, digests=digests)
        if problem is not None:
            raise damaged(self.backend.name, stage, key, problem)
        return Artifact(stage, key, local, commit.files, self.backend.name)

    def digest_cache(self) -> DigestCache:
        """Return the store's memory of digests of cohorts and weights.

        A read-only store lends what it remembers and learns nothing.
        """
        if self.read_only:
            return DigestCache(self.backend.folder / "cache" / "digests.json", learns=False)
        return DigestCache(self.backend.working_folder("cache") / "digests.json")

    def commit(self, stage: str, key: str) -> Commit | None:
        """Return what a key's COMMIT says, or None without one. Raises Damaged."""
        require_stage_name(stage)
        with self.backend.explained():
            return read_commit(self.backend.storage, stage, key)

    def manifest(self, stage: str, key: str) -> dict[str, Any] | None:
        """Return a published artifact's manifest, reading nothing else. Raises Damaged."""
        with self.backend.explained():
            return read_manifest(self.backend.storage, stage, key)

    def run_record(self, key: str) -> dict[str, Any] | None:
        """Return a run's record, or None if there is none. Raises RunDamaged."""
        with self.backend.explained():
            return read_run(self.backend.storage, key)

    def open_attempt(self, stage: str, key: str) -> Attempt:
        """Return a fresh folder to fill."""
        name = uuid.uuid4().hex
        require_stage_name(stage)
        place = attempt_folder(stage, key, name)
        attempt = Attempt(stage, key, name, self.backend.working_folder(place))
        self.backend.working_folder(f"{place}/{PAYLOAD}")
        return attempt

    def publish(self, attempt: Attempt) -> tuple[Artifact, bool]:
        """Make an attempt the artifact of its key, unless another one is already.

        Returns the artifact that counts, and whether it is this attempt. What the loser wrote
        is removed.
        """
        folder = key_folder(attempt.stage, attempt.key)
        place = attempt_folder(attempt.stage, attempt.key, attempt.name)
        self.backend.upload(place)
        text = encode_commit(Commit(attempt.name, _digests(attempt.folder)))
        try:
            won = self.backend.create(f"{folder}/{COMMIT}", text)
        except StoreError:
            self._unsure.add(attempt.name)
            raise
        if not won:
            # Whatever the file system answered: what COMMIT names must never be removed.
            counts = self.commit(attempt.stage, attempt.key)
            won = counts is not None and counts.attempt == attempt.name
            if counts is not None and not won:
                self.backend.remove(place)
        artifact = self.find(attempt.stage, attempt.key)
        if artifact is None:
            raise StoreError(f"{self.backend.name}/{folder}: removed while it was published")
        return artifact, won

    def abandon(self, attempt: Attempt) -> None:
        """Remove an attempt that will not be published.

        A signal may come between COMMIT and its return: a published attempt stays. So does one
        whose COMMIT was sent and not answered, since it may still arrive, and one beside a
        COMMIT that cannot be read, since it may be the one.
        """
        if attempt.name in self._unsure:
            return
        with suppress(Damaged):
            commit = self.commit(attempt.stage, attempt.key)
            if commit is None or commit.attempt != attempt.name:
                self.backend.remove(attempt_folder(attempt.stage, attempt.key, attempt.name))

    def checkpoints(self, stage: str, key: str) -> Path:
        """Return the folder that every attempt at a key shares until one is published."""
        return self.backend.restore(f"{key_folder(stage, key)}/{CHECKPOINTS}")

    def keep_checkpoints(self, stage: str, key: str) -> None:
        """Save the folder of checkpoints for other machines; nothing may be writing to it.

        The measurements go first: a body that resumes drops those that are ahead of its state,
        and cannot make those that are behind.
        """
        self.backend.keep(f"{key_folder(stage, key)}/{CHECKPOINTS}", METRICS)

    def tidy(self, stage: str, key: str) -> None:
        """Remove what is not needed once a key is published: checkpoints, leases, lost attempts."""
        folder = key_folder(stage, key)
        commit = self.commit(stage, key)
        if commit is None:
            return
        self.backend.remove(f"{folder}/{CHECKPOINTS}")
        for name in self.backend.names(f"{folder}/{ATTEMPTS}"):
            if name != commit.attempt:
                self.backend.remove(f"{folder}/{ATTEMPTS}/{name}")
        self.leases.forget(folder)

    def entries(self) -> Iterator[Entry]:
        """Iterate over every key, by stage name, then key."""
        for stage in self.backend.names(""):
            if stage in NOT_STAGES or "." in stage:
                continue
            for key in self.backend.names(stage):
                yield self.look(stage, key)

    def look(self, stage: str, key: str) -> Entry:
        """Return whether a key is published, and whether a live process builds it."""
        folder = key_folder(stage, key)
        committed = self.backend.read(f"{folder}/{COMMIT}") is not None
        held = not committed and self.leases.holder(folder) is not None
        return Entry(stage, key, committed, held)

    def match(self, word: str) -> list[Entry]:
        """Return the keys that `STAGE`, `STAGE/KEY` or `KEY` (or its beginning) names."""
        stage, _, key = word.rpartition("/")
        found = []
        for entry in self.entries():
            if stage:
                hit = entry.stage == stage and entry.key.startswith(key)
            else:
                hit = entry.stage == word or (len(word) >= 4 and entry.key.startswith(word))
            if hit:
                found.append(entry)
        return found

    def verify(self, stage: str, key: str) -> list[str]:
        """Return what is wrong with an artifact: each file missing, changed or added.

        Every file is read, and read from where the store lies.
        """
        try:
            commit = self.commit(stage, key)
        except Damaged:
            return ["COMMIT is unreadable"]
        if commit is None:
            return ["not published"]
        place, files = attempt_folder(stage, key, commit.attempt), commit.files
        self.backend.renew(place)
        folder = self.backend.fetch(place)
        problems = []
        for place, entry in sorted(files.items()):
            path = folder / place
            if not path.is_file():
                problems.append(f"{place} is missing")
            elif _digest_now(path) != entry["sha256"]:
                problems.append(f"{place} has changed")
        added = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        return problems + [f"{place} was added" for place in sorted(added - set(files))]

    def remove(self, stage: str, key: str) -> None:
        """Remove a key and all that belongs to it. Raises StoreError while it is being built."""
        folder = key_folder(stage, key)
        if self.backend.read(f"{folder}/{COMMIT}") is None and self.leases.holder(folder):
            raise StoreError(f"{self.backend.name}/{folder}: a running process is building it")
        # COMMIT first: a reader during the removal must not find half an artifact.
        self.backend.remove(f"{folder}/{COMMIT}")
        self.backend.remove(folder)


def open_store(
    url: str, timing: LeaseTiming | None = None, create: bool = True, answered: bool = False
) -> Store:
    """Return the store at a local folder, `file://` or `s3://` URL, made where absent.

    Args:
        url: Where.
        timing: Of leases.
        create: Whether to make it; else it must be there.
        answered: Whether another process has just used it: then an S3 that does not answer is
            waited for from the first call on, and is not taken for a wrong address.

    Raises StoreError if it is another kind of place, another schema version, not a store,
    cannot be reached, or fails the probe.
    """
    storage = open_storage(url, answered)
    backend = Backend(storage)
    try:
        raw = _store_file(backend, create)
    except OSError as error:
        raise _unusable(backend, error) from error
    _require_schema(backend.name, raw)
    if create:
        probe(storage)
    return Store(storage, timing)


def view_store(url: str) -> Store:
    """Return the store at a place to look into; nothing is written there, ever.

    A place where nothing lies yet is an empty store. Raises StoreError as `open_store`.
    """
    storage = open_storage(url)
    backend = Backend(storage)
    try:
        raw = backend.read(STORE_FILE)
        if raw is None and backend.names(""):
            raise _no_store(backend)
    except OSError as error:
        raise _unusable(backend, error) from error
    if raw is not None:
        _require_schema(backend.name, raw)
    return Store(storage, read_only=True, is_empty=raw is None)


def _store_file(backend: Backend, create: bool) -> bytes:
    """Return what says that this is a store, made where the place is empty. Raises StoreError."""
    raw = backend.read(STORE_FILE)
    if raw is None and not create:
        raise StoreError(f"store {backend.name}: no store there ({STORE_FILE} is missing)")
    if raw is None:
        if backend.names(""):
            raise _no_store(backend)
        backend.create(STORE_FILE, json.dumps({"schema": STORE_SCHEMA}).encode())
        raw = backend.read(STORE_FILE) or b""
    return raw


def _no_store(backend: Backend) -> StoreError:
    return StoreError(
        f"store {backend.name}: the folder holds other things and no {STORE_FILE}; name an "
        "empty folder or a store"
    )


def _unusable(backend: Backend, error: OSError) -> StoreError:
    return StoreError(
        f"store {backend.name}: cannot be used ({error.strerror or error}); name another with "
        "--store"
    )


def free_bytes(folder: Path) -> int:
    """Return the bytes free on the disk of a folder."""
    return shutil.disk_usage(folder).free


def _require_schema(name: str, raw: bytes) -> None:
    try:
        version = json.loads(raw)["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"store {name}: {STORE_FILE} is unreadable") from error
    if version != STORE_SCHEMA:
        raise StoreError(
            f"store {name}: written in schema {version!r}, this version reads {STORE_SCHEMA}; "
            "name another with --store"
        )


def _digests(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.relative_to(folder).as_posix(): {
            "sha256": known_digest(path),
            "size": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _digest_now(path: Path) -> str:
    """Return a file's digest, whatever is remembered of it; empty if it cannot be read."""
    try:
        return file_digest(path)
    except OSError:
        return ""
