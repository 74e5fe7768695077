"""A storage as the artifact store uses it: trouble with the place is one line for the user."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from namd.storage.base import Storage
from namd.storage.errors import store_error


class Backend:
    """The methods of a `Storage`, raising StoreError; what is absent is no error.

    Attributes:
        storage: What it asks.
        name: Its root, for messages.
        folder: The local folder that holds working folders and local copies.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.name = storage.root
        self.folder = storage.folder

    def create(self, path: str, data: bytes, durable: bool = True) -> bool:
        """Create a file if it is absent; False if it exists."""
        with self.explained():
            return self.storage.create(path, data, durable)

    def replace(self, path: str, data: bytes, durable: bool = True) -> None:
        """Create or replace a file."""
        with self.explained():
            self.storage.replace(path, data, durable)

    def read(self, path: str) -> bytes | None:
        """Return a file's content, None if there is none; a folder in its place reads as empty."""
        with self.explained():
            try:
                return self.storage.read(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except IsADirectoryError:
                return b""

    def names(self, path: str) -> list[str]:
        """Return the sorted names directly under a folder; [] if it is absent or no folder."""
        with self.explained():
            try:
                return self.storage.names(path)
            except NotADirectoryError:
                return []

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder, if it is there."""
        with self.explained():
            self.storage.remove_all(path)

    def working_folder(self, path: str) -> Path:
        """Return a local folder whose files `upload` will make durable under this path."""
        with self.explained():
            return self.storage.working_folder(path)

    def upload(self, path: str) -> None:
        """Make the files of a working folder durable."""
        with self.explained():
            self.storage.upload(path)

    def fetch(self, path: str) -> Path:
        """Return a local folder that holds the files under this path; they never change."""
        with self.explained():
            return self.storage.fetch(path)

    def renew(self, path: str) -> bool:
        """Replace a local copy that is damaged; False if the files lie here themselves."""
        with self.explained():
            return self.storage.renew(path)

    def keep(self, path: str, first: str = "") -> None:
        """Save a working folder that goes on changing, for `restore`."""
        with self.explained():
            self.storage.keep(path, first)

    def restore(self, path: str) -> Path:
        """Return a working folder with what was last kept of it, on any machine."""
        with self.explained():
            return self.storage.restore(path)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the storage's trouble inside this block into StoreError."""
        try:
            yield
        except OSError as error:
            known = store_error(self.name, error)
            if known is None:
                raise
            raise known from error
