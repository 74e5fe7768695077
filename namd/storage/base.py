"""The storage operations that stores and ledgers need, independent of the files' meaning.

`local` and `objects` implement the protocol.
"""

import contextlib
import secrets
from pathlib import Path
from typing import Protocol, runtime_checkable

from namd.storage.errors import StoreError, store_error


@runtime_checkable
class Storage(Protocol):
    """Named byte strings under one root. Names are relative, with forward slashes.

    Names that begin with a dot are never listed. Every method raises OSError if the storage
    fails; `backend.Backend` turns that into a line for the user.

    Attributes:
        root: The folder or URL, for messages.
        folder: The local folder that holds working folders and local copies.
    """

    root: str
    folder: Path

    def create(self, name: str, data: bytes, durable: bool = True) -> bool:
        """Store a file if the name is free; False, and no change, if it is taken.

        Of any number of callers, on any hosts, exactly one gets True. A file that is not durable
        may be lost when the power fails.
        """
        ...

    def replace(self, name: str, data: bytes, durable: bool = True) -> None:
        """Create or replace a file; a reader sees the old content or the new."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content. Raises FileNotFoundError."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names directly under a folder, sorted; [] if it is absent."""
        ...

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly under a folder, sorted; [] if it is absent."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def remove_all(self, name: str) -> None:
        """Remove a file or a whole folder, if it is there."""
        ...

    def move(self, name: str, target: str) -> None:
        """Rename a file or a folder; the new name must be free."""
        ...

    def sweep(self, folder: str) -> None:
        """Remove the temporary files of killed writers in a folder."""
        ...

    def working_folder(self, path: str) -> Path:
        """Return a local folder whose files `upload` will make durable under this path."""
        ...

    def upload(self, path: str) -> None:
        """Make the files of a working folder durable."""
        ...

    def fetch(self, path: str) -> Path:
        """Return a local folder that holds the files under this path; they never change."""
        ...

    def renew(self, path: str) -> bool:
        """Replace a local copy of the files under this path, which is damaged or not trusted.

        Returns False, and does nothing, if the files themselves are local.
        """
        ...

    def keep(self, path: str, first: str = "") -> None:
        """Save a working folder that will change again, for `restore`; called between changes.

        Args:
            path: The folder.
            first: Name of a file that must never be behind the others.
        """
        ...

    def restore(self, path: str) -> Path:
        """Return a working folder with the files that any machine saved last."""
        ...


def probe(storage: Storage) -> None:
    """Check that the storage can be written and refuses to create what exists.

    Raises StoreError.
    """
    # Hidden, so that no stage can have this name.
    name = f".probe/{secrets.token_hex(8)}"
    try:
        first = storage.create(name, b"1")
        second = storage.create(name, b"2")
        content = storage.read(name)
    except OSError as error:
        raise store_error(storage.root, error) or StoreError(
            f"store {storage.root}: a file cannot be created only if absent here "
            f"({error.strerror or error}); name another with --store"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            storage.remove(name)
    if (first, second, content) != (True, False, b"1"):
        raise StoreError(
            f"store {storage.root}: creating a file that exists is not refused here, so two "
            "processes could overwrite each other; name a local disk with hard links, or S3 with "
            "If-None-Match, with --store"
        )
