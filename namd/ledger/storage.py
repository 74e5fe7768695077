"""Where a ledger's objects lie: a local folder or S3, each able to create an object only if absent.

Nothing here knows what the objects mean.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from namd.config.errors import InputError
from namd.config.places import local_path
from namd.ledger.naming import link_if_absent, rename_over
from namd.ledger.s3 import Patience, open_s3, upload_limit_s

TEMPORARY = ".tmp-"
"""Prefix of files in the making; a listing never shows them."""

STALE_S = 3600.0
"""A temporary file older than this belongs to a killed writer."""


@runtime_checkable
class Storage(Protocol):
    """Named byte strings under one root. Names are relative, with forward slashes."""

    @property
    def root(self) -> str:
        """The folder or URL, for messages."""

    def create(self, name: str, data: bytes) -> bool:
        """Store the object durably if the name is free; False if it is taken. Never half."""

    def replace(self, name: str, data: bytes) -> None:
        """Store the object whether or not the name is taken."""

    def read(self, name: str) -> bytes:
        """Return the object's bytes. Raises FileNotFoundError."""

    def names(self, folder: str) -> list[str]:
        """Return the names right under a folder, sorted, without it; [] where it is absent."""

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders right under a folder, sorted; [] if it is absent."""

    def remove(self, name: str) -> None:
        """Remove the object, if it is there."""

    def move(self, name: str, target: str) -> None:
        """Give an object or a folder another name, which is free."""


class LocalStorage:
    """A folder of a file system that has hard links: `os.link` refuses a taken name atomically.

    fsspec's local `pipe_file(mode="create")` looks and then writes, which two writers can pass
    at once; so this is our own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def root(self) -> str:
        """The folder."""
        return str(self._folder)

    def create(self, name: str, data: bytes) -> bool:
        """Store the object durably if the name is free; False if it is taken."""
        path = self._folder / name
        with self._temporary(path, data) as temporary:
            if not link_if_absent(temporary, path):
                return False
        _sync_folder(path.parent)
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Store the object whether or not the name is taken."""
        path = self._folder / name
        with self._temporary(path, data) as temporary:
            rename_over(temporary, path)

    def read(self, name: str) -> bytes:
        """Return the object's bytes. Raises FileNotFoundError."""
        return (self._folder / name).read_bytes()

    def names(self, folder: str) -> list[str]:
        """Return the names right under a folder, sorted; [] where it is absent."""
        try:
            with os.scandir(self._folder / folder) as entries:
                return sorted(e.name for e in entries if not e.name.startswith(TEMPORARY))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        """Remove the object, if it is there."""
        (self._folder / name).unlink(missing_ok=True)

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders right under a folder, sorted; [] if it is absent."""
        try:
            with os.scandir(self._folder / folder) as entries:
                return sorted(e.name for e in entries if e.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def move(self, name: str, target: str) -> None:
        """Rename an object or a folder; readable or not."""
        path = self._folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        (self._folder / name).rename(path)

    def sweep(self, folder: str, older_than_s: float = STALE_S) -> None:
        """Remove temporary files that a killed writer left in a folder."""
        for path in (self._folder / folder).glob(f"{TEMPORARY}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()

    @contextlib.contextmanager
    def _temporary(self, path: Path, data: bytes) -> Iterator[Path]:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


class ObjectStorage:
    """A prefix of an S3 bucket through s3fs: creation sends `If-None-Match: *`.

    An outage is waited out by every call (see `Patience`); S3Away, an OSError, says that it lasts.
    """

    def __init__(
        self,
        filesystem: Any,  # noqa: ANN401 - fsspec is untyped
        root: str,
        patience: Patience | None = None,
    ) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._patiently = patience or Patience(self.root)

    @property
    def root(self) -> str:
        """The URL."""
        return f"s3://{self._root}"

    def create(self, name: str, data: bytes) -> bool:
        """Store the object if the name is free; False if it is taken."""
        path = f"{self._root}/{name}"
        try:
            self._put(path, data, mode="create")
        except FileExistsError:
            # A request whose answer was lost is sent again, and the second one then meets the
            # first one's object: ours, if the bytes are.
            return bool(self._patiently(self._filesystem.cat_file, path) == data)
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Store the object whether or not the name is taken."""
        self._put(f"{self._root}/{name}", data)

    def read(self, name: str) -> bytes:
        """Return the object's bytes. Raises FileNotFoundError."""
        return bytes(self._patiently(self._filesystem.cat_file, f"{self._root}/{name}"))

    def names(self, folder: str) -> list[str]:
        """Return the names right under a folder, sorted; [] where it is absent."""
        self._filesystem.invalidate_cache()
        try:
            paths = self._patiently(
                self._filesystem.ls, f"{self._root}/{folder}", detail=False, refresh=True
            )
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def remove(self, name: str) -> None:
        """Remove the object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._patiently(self._filesystem.rm_file, f"{self._root}/{name}")

    def folders(self, folder: str) -> list[str]:
        """Return the names of the prefixes right under a folder, sorted; [] without any."""
        place = f"{self._root}/{folder}"
        try:
            found = self._patiently(self._filesystem.ls, place, detail=True, refresh=True)
        except FileNotFoundError:
            return []
        paths = [entry["name"] for entry in found if entry["type"] == "directory"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def move(self, name: str, target: str) -> None:
        """Copy an object, then remove it under its old name."""
        self.replace(target, self.read(name))
        self.remove(name)

    def _put(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        limit_s = upload_limit_s(len(data))
        self._patiently(self._filesystem.pipe_file, path, data, mode=mode, timeout=limit_s)


def open_storage(url: str, **options: Any) -> Storage:  # noqa: ANN401 - handed to s3fs
    """Return the storage at a folder, `file://` or `s3://` URL; `options` go to s3fs.

    Raises InputError for another protocol: whether it creates atomically is not known.
    """
    protocol, separator, rest = url.partition("://")
    if not separator:
        return LocalStorage(local_path(url))
    if protocol == "file":
        return LocalStorage(Path(rest))
    if protocol not in ("s3", "s3a"):
        raise InputError(f"store {url}: a ledger lies in a local folder or on s3://")
    return ObjectStorage(open_s3(**options), rest)


def probe(storage: Storage, token: Callable[[], str] = lambda: secrets.token_hex(8)) -> None:
    """Check that the storage refuses to create what exists.

    Raises InputError where it does not, or where it cannot be written at all.
    """
    name = f"probe/{token()}"
    try:
        first = storage.create(name, b"first")
        second = storage.create(name, b"second")
        kept = storage.read(name)
        storage.remove(name)
    except OSError as error:
        raise InputError(f"store {storage.root}: cannot be written ({error})") from error
    if not first or second or kept != b"first":
        raise InputError(
            f"store {storage.root}: creating an object that exists is not refused, so two writers "
            "could overwrite each other; use a local disk with hard links, or S3 with If-None-Match"
        )


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut; POSIX asks for the folder's own fsync."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
