"""A storage for the artifact store, whose errors are one line for the user."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from namd.storage.base import Storage
from namd.storage.errors import store_error

P = ParamSpec("P")
T = TypeVar("T")


def _explained(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate["Backend", P], T]:
    """Return a method that calls the storage and turns its errors into StoreError."""

    @wraps(method)
    def ask(self: "Backend", *args: P.args, **kwargs: P.kwargs) -> T:
        with self.explained():
            result: T = getattr(self.storage, method.__name__)(*args, **kwargs)
            return result

    return ask


class Backend:
    """The methods of a `Storage`, raising StoreError; an absent file is no error.

    Attributes:
        storage: The storage behind it.
        name: Its root, for messages.
        folder: The local folder that holds working folders and local copies.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.name = storage.root
        self.folder = storage.folder

    create = _explained(Storage.create)
    replace = _explained(Storage.replace)
    remove = _explained(Storage.remove_all)
    working_folder = _explained(Storage.working_folder)
    upload = _explained(Storage.upload)
    fetch = _explained(Storage.fetch)
    renew = _explained(Storage.renew)
    keep = _explained(Storage.keep)
    restore = _explained(Storage.restore)

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

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the storage's errors inside this block into StoreError."""
        try:
            yield
        except OSError as error:
            known = store_error(self.name, error)
            if known is None:
                raise
            raise known from error
