"""A local folder as a storage: creation by hard link, replacement by rename, both flushed."""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from namd.storage.links import link_if_absent, rename_over

TEMPORARY = ".tmp-"
"""Prefix of files in the making; hidden, so that a listing never shows them."""

STALE_S = 3600.0
"""A temporary file older than this belongs to a killed writer."""


class LocalStorage:
    """A folder of a file system with hard links: `os.link` refuses a taken name atomically.

    fsspec's local `pipe_file(mode="create")` checks and then writes, so two writers can both
    succeed; hence this implementation.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = str(folder)

    def create(self, name: str, data: bytes, durable: bool = True) -> bool:
        """Store the file if the name is free; False if it is taken."""
        path = self.folder / name
        with self._temporary(path, data, durable) as temporary:
            if not link_if_absent(temporary, path):
                return False
        if durable:
            _sync_folder(path.parent)
        return True

    def replace(self, name: str, data: bytes, durable: bool = True) -> None:
        """Store the file, whether or not the name is taken."""
        path = self.folder / name
        with self._temporary(path, data, durable) as temporary:
            rename_over(temporary, path)

    def read(self, name: str) -> bytes:
        """Return the file's bytes. Raises FileNotFoundError."""
        return (self.folder / name).read_bytes()

    def names(self, folder: str) -> list[str]:
        """Return the names directly under a folder, sorted; [] if it is absent.

        Raises NotADirectoryError.
        """
        try:
            with os.scandir(self.folder / folder) as entries:
                return sorted(e.name for e in entries if not e.name.startswith("."))
        except FileNotFoundError:
            return []

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly under a folder, sorted; [] if it is absent."""
        try:
            with os.scandir(self.folder / folder) as entries:
                return sorted(e.name for e in entries if e.is_dir() and e.name[0] != ".")
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, name: str) -> None:
        """Remove the file, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def remove_all(self, name: str) -> None:
        """Remove a file or folder; one that another process removes meanwhile is no error."""
        target = self.folder / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target, onerror=_ignore_absent)
        else:
            target.unlink(missing_ok=True)

    def move(self, name: str, target: str) -> None:
        """Rename a file or a folder; readable or not."""
        path = self.folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).rename(path)

    def sweep(self, folder: str) -> None:
        """Remove temporary files that a killed writer left in a folder."""
        for path in (self.folder / folder).glob(f"{TEMPORARY}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()

    def working_folder(self, path: str) -> Path:
        """The files are written in place."""
        folder = self.folder / path
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def upload(self, path: str) -> None:
        """Flush every file, then every folder, to the disk."""
        folder = self.folder / path
        folders = [folder]
        for found in folder.rglob("*"):
            if found.is_dir():
                folders.append(found)
            else:
                with found.open("rb") as stream:
                    os.fsync(stream.fileno())
        for each in (*reversed(folders), folder.parent):
            _sync_folder(each)

    def fetch(self, path: str) -> Path:
        """The files are already here."""
        return self.folder / path

    def renew(self, path: str) -> bool:  # noqa: ARG002 - there is no copy
        """The files are here themselves."""
        return False

    def keep(self, path: str, first: str = "") -> None:
        """The files are written in place."""

    def restore(self, path: str) -> Path:
        """The files are where they were written."""
        return self.working_folder(path)

    @contextlib.contextmanager
    def _temporary(self, path: Path, data: bytes, durable: bool) -> Iterator[Path]:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make new names survive a power cut; POSIX asks for the folder's own fsync."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ignore_absent(_function: Callable[..., object], _path: str, info: tuple) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]
