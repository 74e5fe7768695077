"""A study that was started: found in its store by name, or refused in one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from namd.config.errors import ConfigError, InputError
from namd.config.places import local_path
from namd.config.store_places import require_place

if TYPE_CHECKING:
    from namd.ledger.view import StudyView
    from namd.storage.base import Storage
    from namd.study.spec import StudySpec


@dataclass(frozen=True)
class Ledger:
    """A study that was started, where its records lie.

    Attributes:
        url: The store: an absolute folder or a URL.
        name: The study's name.
        storage: The store as the ledger reads it.
    """

    url: str
    name: str
    storage: "Storage"

    @property
    def place(self) -> str:
        """Folder or URL of the study's records."""
        return f"{self.url}/studies/{self.name}"

    @property
    def resume(self) -> str:
        """The command that continues it."""
        return f"namd study run {self.name} --resume --store {self.url}"


def store_url(given: str | None, spec: "StudySpec | None" = None) -> str:
    """Return the store's absolute folder or URL: the command line's, the file's, `$NAMD_STORE`'s.

    Raises InputError if none is named, ConfigError where the study file names a relative folder.
    """
    inside = spec.base.given("store") if spec is not None else None
    if given is None and inside is not None and not _is_absolute(inside):
        raise ConfigError(
            f"base.store={inside!r}: a relative folder means another place to everybody who "
            "reads the file; write an absolute one or a URL, or leave it open and use --store"
        )
    url = given or inside or os.environ.get("NAMD_STORE")
    if not url:
        raise InputError(
            "no store: name its folder or URL with --store, in $NAMD_STORE or in the study "
            "file's base.store"
        )
    require_place(url)
    url = url.removeprefix("file://")
    if "://" in url:
        return url.rstrip("/")
    return str(local_path(url).absolute())


def find_study(url: str, name: str) -> Ledger:
    """Return the ledger of a study that was started in a store.

    Raises InputError if the store or the study is not there, naming the nearest.
    """
    from namd.config.parsing import nearest

    storage, names = open_studies(url)
    require_store(url, storage)
    if name not in names:
        hint = nearest(name, names) or "; it holds no study yet"
        raise InputError(f"study {name!r} was never run in the store {url}{hint}")
    return Ledger(url, name, storage)


def open_studies(url: str) -> "tuple[Storage, list[str]]":
    """Return a store's records and the names of its studies. Raises InputError."""
    from namd.ledger.reading import study_names
    from namd.storage.opening import open_storage

    if "://" not in url and not Path(url).is_dir():
        raise InputError(f"store {url}: no such folder")
    with readable(url):
        storage = open_storage(url)
        return storage, study_names(storage)


def past(url: str, name: str) -> "StudyView | None":
    """Return a study's ledger; None if it was never started or its store is not there.

    Raises InputError.
    """
    if "://" not in url and not Path(url).is_dir():
        return None
    storage, names = open_studies(url)
    return read_whole(Ledger(url, name, storage)) if name in names else None


def require_store(url: str, storage: "Storage") -> None:
    """Refuse a place that is no store, which would otherwise pass for one without studies.

    Not for a study's first run, which makes a store of an empty place. Raises InputError.
    """
    from namd.pipeline.store import STORE_FILE

    with readable(url):
        try:
            storage.read(STORE_FILE)
        except FileNotFoundError:
            raise InputError(
                f"store {url}: no store there ({STORE_FILE} is missing); name with --store or "
                "$NAMD_STORE the folder or URL that `namd study run` was given"
            ) from None


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Turn a storage that cannot be read into one line."""
    try:
        yield
    except OSError as error:
        if url in str(error):
            raise InputError(f"store {error}") from error
        raise InputError(f"store {url}: cannot be read ({error})") from error


def read_whole(ledger: Ledger) -> "StudyView":
    """Return all that a study's ledger says. Raises InputError."""
    from namd.ledger.view import read_view

    with readable(ledger.url):
        return read_view(ledger.storage, ledger.name)


def _is_absolute(store: str) -> bool:
    return "://" in store or local_path(store).is_absolute()
