"""The few operations that the store needs of a place that keeps files; no meaning of any file.

A local folder is such a place, and the first; `object_backend` has another.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from namd.config.errors import InputError
from namd.ledger.naming import link_if_absent, rename_over
from namd.ledger.s3 import S3Away

_FULL = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "disk quota exceeded",
    errno.EROFS: "read-only file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.EIO: "input/output error",
}

_SILENT = "does not answer"


class StoreError(InputError):
    """The store's place cannot be used: full, read-only, not a store."""


@runtime_checkable
class Backend(Protocol):
    """Where a store lives. Paths are relative, with `/`.

    Attributes:
        name: For messages.
        folder: Under which working folders and what is fetched lie on this machine.
    """

    name: str
    folder: Path

    def create_if_absent(self, path: str, data: bytes, lasting: bool = True) -> bool:
        """Create a file with this content; False, and no change, where it exists.

        Of any number of callers, on any hosts, exactly one gets True. What is not lasting may
        be lost when the power fails.
        """
        ...

    def write(self, path: str, data: bytes, lasting: bool = True) -> None:
        """Create or replace a file; a reader sees the old content or the new."""
        ...

    def read(self, path: str) -> bytes | None:
        """Return a file's content, or None where there is none."""
        ...

    def list(self, path: str) -> list[str]:
        """Return the sorted names of what lies directly in a folder; empty where it is absent."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder, if it is there."""
        ...

    def working_folder(self, path: str) -> Path:
        """Return a local folder whose files `upload` will make lasting under this path."""
        ...

    def upload(self, path: str) -> None:
        """Make the files of a working folder lasting."""
        ...

    def fetch(self, path: str) -> Path:
        """Return a local folder that holds the files under this path; they never change."""
        ...

    def renew(self, path: str) -> bool:
        """Replace a local copy of the files under this path, which is damaged or not trusted.

        Returns False, and does nothing, if they lie here themselves.
        """
        ...

    def keep(self, path: str, first: str = "") -> None:
        """Save a working folder that goes on changing, for `restore`; called between changes.

        Args:
            path: The folder.
            first: Name of a file that must never be behind the others.
        """
        ...

    def restore(self, path: str) -> Path:
        """Return a working folder with what was last kept of it, on whichever machine."""
        ...


class LocalBackend:
    """A folder on a local or shared file system with hard links."""

    def __init__(self, root: Path) -> None:
        self.root = self.folder = root
        self.name = str(root)

    def create_if_absent(self, path: str, data: bytes, lasting: bool = True) -> bool:
        """Create by hard link: `os.link` fails if the name exists, also over NFS."""
        with self._explained():
            target = self._parent_made(path)
            partial = self._partial(target, data, lasting)
            try:
                if not link_if_absent(partial, target):
                    return False
            finally:
                partial.unlink(missing_ok=True)
            if lasting:
                sync_folder(target.parent)
            return True

    def write(self, path: str, data: bytes, lasting: bool = True) -> None:
        """Replace by rename."""
        with self._explained():
            target = self._parent_made(path)
            partial = self._partial(target, data, lasting)
            try:
                rename_over(partial, target)
            finally:
                partial.unlink(missing_ok=True)

    def read(self, path: str) -> bytes | None:
        """Read the whole file; a folder in its place holds nothing that anybody wrote."""
        with self._explained():
            try:
                return (self.root / path).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
            except IsADirectoryError:
                return b""

    def list(self, path: str) -> list[str]:
        """List without partial files."""
        with self._explained():
            try:
                names = [found.name for found in (self.root / path).iterdir()]
            except (FileNotFoundError, NotADirectoryError):
                return []
            return sorted(name for name in names if not name.startswith("."))

    def remove(self, path: str) -> None:
        """Remove a file or folder; one that another process removes meanwhile is no error."""
        with self._explained():
            target = self.root / path
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target, onerror=_ignore_absent)
            else:
                target.unlink(missing_ok=True)

    def working_folder(self, path: str) -> Path:
        """The files are written in place."""
        with self._explained():
            folder = self.root / path
            folder.mkdir(parents=True, exist_ok=True)
            return folder

    def upload(self, path: str) -> None:
        """Flush every file, then every folder, to the disk."""
        with self._explained():
            folder = self.root / path
            folders = [folder]
            for found in folder.rglob("*"):
                if found.is_dir():
                    folders.append(found)
                else:
                    with found.open("rb") as stream:
                        os.fsync(stream.fileno())
            for each in (*reversed(folders), folder.parent):
                sync_folder(each)

    def fetch(self, path: str) -> Path:
        """The files are already here."""
        return self.root / path

    def renew(self, path: str) -> bool:  # noqa: ARG002 - there is no copy
        """The files are here themselves."""
        return False

    def keep(self, path: str, first: str = "") -> None:
        """The files are written in place."""

    def restore(self, path: str) -> Path:
        """The files are where they were written."""
        return self.working_folder(path)

    def _parent_made(self, path: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _partial(self, target: Path, data: bytes, lasting: bool) -> Path:
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with partial.open("wb") as stream:
                stream.write(data)
                if lasting:
                    stream.flush()
                    os.fsync(stream.fileno())
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        return partial

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = storage_problem(error)
            if problem is None:
                raise
            raise StoreError(_message(self.name, problem)) from error


def storage_problem(error: BaseException | None) -> str | None:
    """Return what is wrong with the disk or S3, or None where the error is about something else.

    Libraries that write through Rust or C++ tell it in words only, or as another error's cause.
    """
    while error is not None:
        if isinstance(error, S3Away | StoreError) and _SILENT in str(error):
            return _SILENT
        if isinstance(error, OSError) and error.errno in _FULL:
            return _FULL[error.errno]
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return _FULL[errno.ENOSPC]
        error = error.__cause__ or error.__context__
    return None


class explained:  # noqa: N801 - reads as a context: `with explained(store.name):`
    """Turns a full or unwritable disk inside this block into a StoreError of one line.

    An error that names a file elsewhere (a cohort one may not read) is let through.

    Args:
        name: The store's, for the message.
        folder: Where its files lie on this machine; None: at its name.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.name = name
        self.folder = name if folder is None else str(folder)

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Raise StoreError for a disk's error."""
        if error is None or isinstance(error, InputError):
            return
        place = getattr(error, "filename", None)
        if place is not None and not str(place).startswith(self.folder):
            return
        problem = storage_problem(error)
        if problem is not None:
            raise StoreError(_message(self.name, problem)) from error


def _message(name: str, problem: str) -> str:
    return f"store {name}: {problem}; free or unlock it, or name another with --store"


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def probe(backend: Backend) -> None:
    """Refuse a place where `create_if_absent` lets two callers win. Raises StoreError."""
    # Hidden, so that no stage can be called alike.
    name = f".probe/{uuid.uuid4().hex}"
    try:
        first = backend.create_if_absent(name, b"1")
        second = backend.create_if_absent(name, b"2")
        content = backend.read(name)
    except OSError as error:
        raise StoreError(
            f"store {backend.name}: this file system cannot create a file only if absent "
            f"({error.strerror}); name another with --store"
        ) from error
    finally:
        backend.remove(name)
    if (first, second, content) != (True, False, b"1"):
        raise StoreError(
            f"store {backend.name}: creating a file that exists did not fail here, so two "
            "processes could publish the same artifact; name another with --store"
        )


def _ignore_absent(_function: Callable[..., object], _path: str, info: tuple) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]
